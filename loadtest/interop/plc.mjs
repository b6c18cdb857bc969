// A real PLC directory with its data in memory. PLC_PORT says where.
import plc from '@did-plc/server';

const server = plc.PlcServer.create({ db: plc.Database.mock(), port: Number(process.env.PLC_PORT) });
await server.start();
console.log('ready');
process.on('SIGTERM', () => server.destroy().finally(() => process.exit(0)));

// @skyware/labeler with the data that ours has: issues COUNT labels and says what that took, then serves.
//   node skyware.mjs DATABASE PORT COUNT
import { LabelerServer } from '@skyware/labeler';

const [database, port, count] = process.argv.slice(2);
const server = new LabelerServer({ did: 'did:web:labeler.example.test', signingKey: '11'.repeat(32), dbPath: database });
await server.dbInitLock;
const began = process.hrtime.bigint();
const before = process.cpuUsage();
for (let n = 0; n < Number(count); n++) {
  await server.createLabel({ uri: `did:plc:${String(n).padStart(24, 'a')}`, val: 'verified-mail-operator' });
}
const { user, system } = process.cpuUsage(before);
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
console.log(JSON.stringify({ seconds, cpu_seconds: (user + system) / 1e6 }));
server.start({ port: Number(port), host: '127.0.0.1' }, (error) => console.log(error ? String(error) : 'ready'));

// @skyware/labeler with the data that ours has: issues COUNT labels and says what that took, then serves. With a COUNT of 0 it makes an index
// of what is there, which it does not by itself: without case, as its LIKE compares.
//   node skyware.mjs DATABASE PORT COUNT
import { LabelerServer } from '@skyware/labeler';

const [database, port, count] = process.argv.slice(2);
const server = new LabelerServer({ did: 'did:web:labeler.example.test', signingKey: '11'.repeat(32), dbPath: database });
await server.dbInitLock;
if (Number(count) === 0) await server.db.execute('CREATE INDEX IF NOT EXISTS by_uri ON labels (uri COLLATE NOCASE)');
const began = process.hrtime.bigint();
const before = process.cpuUsage();
for (let n = 0; n < Number(count); n++) {
  await server.createLabel({ uri: `did:plc:${String(n).padStart(24, 'a')}`, val: 'verified-mail-operator' });
}
const { user, system } = process.cpuUsage(before);
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
const pragma = async (name) => (await server.db.execute(`PRAGMA ${name}`)).rows[0][name];
const [journal_mode, synchronous] = [await pragma('journal_mode'), await pragma('synchronous')];
console.log(JSON.stringify({ seconds, cpu_seconds: (user + system) / 1e6, journal_mode, synchronous }));
server.start({ port: Number(port), host: '127.0.0.1' }, (error) => console.log(error ? String(error) : 'ready'));

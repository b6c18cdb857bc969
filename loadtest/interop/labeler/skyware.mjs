// @skyware/labeler with the data that ours has: issues ISSUED labels and says what that took, puts more beside them until there are COUNT (with the
// signature of the first, in a few transactions), then serves. With a COUNT of 0 it makes an index of what is there, which it does not by itself: without
// case, as its LIKE compares.
//   node skyware.mjs DATABASE PORT ISSUED COUNT
import { LabelerServer } from '@skyware/labeler';

const [database, port, issued, count] = process.argv.slice(2);
const server = new LabelerServer({ did: 'did:web:labeler.example.test', signingKey: '11'.repeat(32), dbPath: database });
await server.dbInitLock;
if (Number(count) === 0) await server.db.execute('CREATE INDEX IF NOT EXISTS by_uri ON labels (uri COLLATE NOCASE)');
const began = process.hrtime.bigint();
const before = process.cpuUsage();
const uri = (n) => `did:plc:${String(n).padStart(24, 'a')}`;
for (let n = 0; n < Number(issued); n++) {
  await server.createLabel({ uri: uri(n), val: 'verified-mail-operator' });
}
const { user, system } = process.cpuUsage(before);
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
for (let n = Number(issued); n < Number(count); ) {
  const sql = 'INSERT INTO labels (src, uri, val, neg, cts, sig) SELECT src, ?, val, neg, cts, sig FROM labels WHERE id = 1';
  const many = Array.from({ length: Math.min(10_000, Number(count) - n) }, (_, more) => ({ sql, args: [uri(n + more)] }));
  await server.db.batch(many, 'write');
  n += many.length;
}
const pragma = async (name) => (await server.db.execute(`PRAGMA ${name}`)).rows[0][name];
const [journal_mode, synchronous] = [await pragma('journal_mode'), await pragma('synchronous')];
console.log(JSON.stringify({ seconds, cpu_seconds: (user + system) / 1e6, journal_mode, synchronous }));
server.start({ port: Number(port), host: '127.0.0.1' }, (error) => console.log(error ? String(error) : 'ready'));

// Labels by the reference implementation, and its verdict on ours.
//   node vectors.mjs make COUNT SEED   random labels, signed by Ozone's signLabel (every fifth by skyware's), one a line
//   node vectors.mjs check             reads lines of ours and says "ok COUNT", or what is wrong
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { cborDecode, cborEncode } from '@atproto/common';
import { Secp256k1Keypair, verifySignature } from '@atproto/crypto';
import { ErrorFrame, Frame, MessageFrame } from '@atproto/xrpc-server';

// Neither package exports the function that signs.
const inside = (name) => import(pathToFileURL(new URL(`./node_modules/${name}`, import.meta.url).pathname));
const { signLabel } = await inside('@atproto/ozone/dist/mod-service/util.js');
const skyware = await inside('@skyware/labeler/dist/util/labels.js');

const SECRET = '11'.repeat(32);
const key = await Secp256k1Keypair.import(SECRET);
const hex = (octets) => Buffer.from(octets).toString('hex');
const unpadded = (octets) => Buffer.from(octets).toString('base64').replace(/=+$/, '');

// Numbers that a seed decides: SHA-256 of seed and count.
const dice = (seed) => {
  let count = 0;
  const next = () => createHash('sha256').update(`${seed} ${count++}`).digest().readUInt32BE();
  const below = (most) => next() % most;
  const text = (alphabet, length) => Array.from({ length }, () => alphabet[below(alphabet.length)]).join('');
  return { below, text, one: (list) => list[below(list.length)], maybe: (some) => below(some) === 0 };
};

const LOWER = 'abcdefghijklmnopqrstuvwxyz234567';
function random(d) {
  const did = d.maybe(4) ? `did:web:${d.text(LOWER, 1 + d.below(40))}.example` : `did:plc:${d.text(LOWER, 24)}`;
  const time = new Date(Date.UTC(2020 + d.below(20), d.below(12), 1 + d.below(28), d.below(24), d.below(60), d.below(60), d.below(1000)));
  const iso = time.toISOString();
  const label = {
    ver: 1,
    src: d.maybe(3) ? 'did:web:labeler.example.test' : `did:plc:${d.text(LOWER, 24)}`,
    uri: d.maybe(2) ? did : `at://${did}/app.bsky.feed.post/${d.text(LOWER, 13)}`,
    val: d.one(['verified-mail-operator', 'relay-member', 'clean-sender', '!hide', d.text(LOWER + '-!', 1 + d.below(128))]),
    cts: d.one([iso, iso, iso.replace('Z', '+01:00'), iso.replace(/\.\d+Z/, 'Z'), iso.replace('Z', `${100 + d.below(900)}Z`)]),
  };
  if (d.maybe(3)) label.cid = `bafyrei${d.text(LOWER, 52)}`;
  if (d.maybe(3)) label.neg = d.maybe(2);
  if (d.maybe(3)) label.exp = new Date(time.getTime() + d.below(1e9)).toISOString();
  return label;
}

async function make(count, seed) {
  const d = dice(seed);
  console.log(JSON.stringify({ key: key.did(), made: `by @atproto/ozone and @skyware/labeler, seed ${seed}; secret key: 32 octets 0x11` }));
  for (let n = 0; n < count; n++) {
    const label = random(d);
    const signed = n % 5 === 4 ? skyware.signLabel(label, Buffer.from(SECRET, 'hex')) : await signLabel(label, key);
    const { sig, ...rest } = signed;
    const seq = d.one([d.below(30), d.below(300), d.below(70000), 2 ** 32 + d.below(1000), Number.MAX_SAFE_INTEGER]);
    const frame = new MessageFrame({ seq, labels: [{ ...rest, sig: new Uint8Array(sig) }] }, { type: '#labels' }).toBytes();
    console.log(JSON.stringify({ label: { ...rest, sig: { $bytes: unpadded(sig) } }, cbor: hex(cborEncode(rest)), seq, frame: hex(frame) }));
  }
}

async function check() {
  let count = 0;
  const wrong = (line, why) => {
    console.log(`${why}: ${line}`);
    process.exit(1);
  };
  for await (const line of createInterface({ input: process.stdin })) {
    const ours = JSON.parse(line);
    const frame = Frame.fromBytes(Buffer.from(ours.frame, 'hex'));
    count++;
    if (ours.error) {
      if (!(frame instanceof ErrorFrame) || frame.code !== ours.error) wrong(line, 'not that error');
      continue;
    }
    if (ours.info) {
      if (!(frame instanceof MessageFrame) || frame.type !== '#info' || frame.body.name !== ours.info) wrong(line, 'not that remark');
      continue;
    }
    if (!(frame instanceof MessageFrame) || frame.type !== '#labels' || frame.body.seq !== ours.seq) wrong(line, 'not that frame');
    const [label] = frame.body.labels;
    const { sig, ...rest } = label;
    if (hex(new MessageFrame({ seq: ours.seq, labels: [label] }, { type: '#labels' }).toBytes()) !== ours.frame) wrong(line, 'other octets of the frame');
    if (hex(cborEncode(rest)) !== ours.cbor) wrong(line, 'other octets under the signature');
    if (!(await verifySignature(ours.key, cborEncode(rest), new Uint8Array(sig)))) wrong(line, 'a bad signature');
    const again = await signLabel(rest, key);
    if (hex(again.sig) !== hex(sig)) wrong(line, 'another signature than theirs');
    const json = { ...rest, sig: { $bytes: unpadded(sig) } };
    if (Object.keys(ours.label).length !== Object.keys(json).length) wrong(line, 'other fields in JSON');
    for (const [name, value] of Object.entries(json)) {
      if (JSON.stringify(ours.label[name]) !== JSON.stringify(value)) wrong(line, `another ${name} in JSON`);
    }
    if (hex(cborEncode(cborDecode(Buffer.from(ours.cbor, 'hex')))) !== ours.cbor) wrong(line, 'not canonical');
  }
  console.log(`ok ${count}`);
}

const [what, count, seed] = process.argv.slice(2);
await (what === 'make' ? make(Number(count), seed) : check());

// What a consumer makes of a labeler, by @atproto's own packages: its DID document, the frames of subscribeLabels, queryLabels, every signature.
//   node labels.mjs LABELER DID
// Keeps one stream open from cursor 0 on, through restarts of the labeler. For each line on standard input it replays the stream anew from cursor 0,
// reads all of queryLabels, and says on one line, in JSON, which labels are in force, how many were ever said of each DID, and what is wrong.
import { createInterface } from 'node:readline';
import { cborEncode } from '@atproto/common';
import { verifySignature } from '@atproto/crypto';
import { DidResolver, getDidKeyFromMultibase } from '@atproto/identity';
import { Frame, MessageFrame } from '@atproto/xrpc-server';
import { WebSocket } from 'ws';

const [labeler, did] = process.argv.slice(2);
// The resolver would refuse http and loopback, as it should outside of a test.
const resolver = new DidResolver({ fetch: (...request) => fetch(...request) });
const wrong = new Set();
const hex = (octets) => Buffer.from(octets).toString('hex');
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function labelKey() {
  const document = await resolver.ensureResolve(did);
  const method = document.verificationMethod?.find((method) => method.id.endsWith('#atproto_label'));
  return getDidKeyFromMultibase({ type: method.type, publicKeyMultibase: method.publicKeyMultibase });
}

async function verified(key, label) {
  const { sig, ...rest } = label;
  if (rest.src !== did || !(await verifySignature(key, cborEncode(rest), new Uint8Array(sig)))) {
    wrong.add(`a bad signature: ${JSON.stringify(rest)}`);
  }
}

// Frames by their numbers. One number is one frame, for ever.
class Stream {
  frames = new Map();
  labels = new Map();
  last = 0;

  open(cursor) {
    this.socket = new WebSocket(`${labeler.replace('http', 'ws')}/xrpc/com.atproto.label.subscribeLabels?cursor=${cursor}`);
    this.socket.on('message', (octets) => this.take(octets));
    this.socket.on('error', () => {});
  }

  keepOpen() {
    this.open(this.last);
    this.socket.on('close', () => setTimeout(() => this.keepOpen(), 50));
  }

  take(octets) {
    const frame = Frame.fromBytes(octets);
    if (!(frame instanceof MessageFrame) || frame.type !== '#labels') {
      wrong.add(`a frame that is none of labels: ${JSON.stringify({ ...frame.header, ...frame.body })}`);
      return;
    }
    const { seq, labels } = frame.body;
    const known = this.frames.get(seq);
    if (known !== undefined) {
      if (known !== hex(octets)) wrong.add(`number ${seq} was used twice`);
      return;
    }
    if (seq <= this.last) wrong.add(`number ${seq} comes after ${this.last}`);
    this.last = Math.max(this.last, seq);
    this.frames.set(seq, hex(octets));
    this.labels.set(seq, labels);
  }
}

const stateOf = (labels) => {
  const newest = new Map();
  for (const label of labels) {
    const key = `${label.uri} ${label.val}`;
    const before = newest.get(key);
    if (before && before.cts >= label.cts) wrong.add(`cts does not grow: ${key} ${label.cts}`);
    newest.set(key, label);
  }
  return newest;
};

async function queried() {
  const rows = [];
  let cursor = '';
  do {
    const answer = await fetch(`${labeler}/xrpc/com.atproto.label.queryLabels?uriPatterns=*&limit=250${cursor}`);
    if (!answer.ok) throw new Error(`queryLabels: ${answer.status}`);
    const page = await answer.json();
    for (const { sig, ...rest } of page.labels) rows.push({ ...rest, sig: Buffer.from(sig.$bytes, 'base64') });
    cursor = page.cursor ? `&cursor=${encodeURIComponent(page.cursor)}` : '';
  } while (cursor);
  return rows;
}

const written = (state) => [...state.values()].map(({ sig, ...rest }) => JSON.stringify([...Object.entries(rest).sort(), hex(sig)])).sort().join('\n');

async function check() {
  const key = await labelKey();
  const replay = new Stream();
  replay.open(0);
  try {
    for (let tries = 0; ; tries++) {
      const rows = await queried();
      const fromQuery = stateOf(rows);
      const fromStream = stateOf([...replay.labels.values()].flat());
      if (fromQuery.size !== rows.length) wrong.add('queryLabels has two rows of one key');
      const same = written(fromQuery) === written(fromStream);
      const both = replay.last === live.last && replay.frames.size === live.frames.size;
      if (same && both) break;
      if (tries > 100) {
        wrong.add(same ? `${replay.frames.size} frames from the beginning, ${live.frames.size} seen before` : 'the stream tells another state than queryLabels');
        break;
      }
      await sleep(30);
    }
    for (const [seq, frame] of replay.frames) {
      if ((live.frames.get(seq) ?? frame) !== frame) wrong.add(`number ${seq} is another frame than before`);
    }
    const all = [...replay.labels.values()].flat();
    for (const label of [...all, ...(await queried())]) await verified(key, label);
    const force = {};
    const said = {};
    for (const label of all) said[label.uri] = (said[label.uri] ?? 0) + 1;
    for (const label of stateOf(all).values()) {
      force[label.uri] ??= [];
      if (!label.neg && Date.parse(label.exp) > Date.now()) force[label.uri].push(label.val);
    }
    Object.values(force).forEach((values) => values.sort());
    return { force, said, frames: replay.frames.size, last: replay.last, wrong: [...wrong] };
  } finally {
    replay.socket.close();
  }
}

const live = new Stream();
live.keepOpen();
for await (const _ of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await check().catch((error) => ({ force: {}, said: {}, frames: 0, last: 0, wrong: [String(error)] }))));
}
process.exit(0);

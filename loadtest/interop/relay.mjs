// A relay and a Jetstream, scripted: what PDSes say, in one stream with numbers of its own, and the same as version 1 of Jetstream writes it.
//   node relay.mjs PORT PDS…
// It believes everything, so that a labeler behind it must not.
import { createServer } from 'node:http';
import { cborEncode } from '@atproto/common';
import { Frame, MessageFrame } from '@atproto/xrpc-server';
import { WebSocket, WebSocketServer } from 'ws';

const [port, ...upstreams] = process.argv.slice(2);
const FIREHOSE = '/xrpc/com.atproto.sync.subscribeRepos';
const frames = [];
const events = [];
const readers = new Set();
let time = Date.now() * 1000;

function say(list, cursor, message) {
  list.push({ cursor, message });
  for (const reader of readers) if (reader.list === list) reader.socket.send(message);
}

function take(octets) {
  const frame = Frame.fromBytes(octets);
  if (!(frame instanceof MessageFrame) || !['#commit', '#identity', '#account', '#sync'].includes(frame.type)) return;
  const { type, body } = frame;
  const seq = frames.length + 1;
  say(frames, seq, Buffer.concat([cborEncode({ op: 1, t: type }), cborEncode({ ...body, seq })]));
  const event = (fields) => {
    time += 1;
    say(events, time, JSON.stringify({ did: body.repo ?? body.did, time_us: time, ...fields }));
  };
  if (type === '#commit') {
    for (const { action, path, cid } of body.ops) {
      const [collection, rkey] = path.split('/');
      event({ kind: 'commit', commit: { rev: body.rev, operation: action, collection, rkey, cid: cid ? String(cid) : undefined } });
    }
  } else if (type !== '#sync') {
    const { did, handle, active, status, time: at } = body;
    event({ kind: type.slice(1), [type.slice(1)]: { did, handle, active, status, seq, time: at } });
  }
}

function follow(pds, cursor) {
  const socket = new WebSocket(`${pds}${FIREHOSE}?cursor=${cursor}`);
  let last = cursor;
  socket.on('message', (octets) => {
    take(octets);
    last = Frame.fromBytes(octets).body.seq ?? last;
  });
  socket.on('error', () => {});
  socket.on('close', () => setTimeout(() => follow(pds, last), 200));
}

const server = createServer((_, response) => response.writeHead(501).end());
const sockets = new WebSocketServer({ server });
sockets.on('connection', (socket, request) => {
  const url = new URL(request.url, 'http://relay');
  const list = url.pathname === FIREHOSE ? frames : events;
  const wanted = url.searchParams.get('cursor');
  for (const { cursor, message } of list) if (wanted !== null && cursor > Number(wanted)) socket.send(message);
  const reader = { list, socket };
  readers.add(reader);
  socket.on('close', () => readers.delete(reader));
  socket.on('error', () => {});
});
server.listen(Number(port), '127.0.0.1', () => console.log('ready'));
upstreams.forEach((pds) => follow(pds, 0));

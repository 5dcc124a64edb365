// A real gRPC server: grpc-js.
//
//   node grpc-server.js [CERTIFICATE KEY]
//
// Prints `listening PORT` and ends when its standard input does. Nothing here waits for a clock.

import { EventEmitter, once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Echo, grpc, options } from './grpc.js';
import { bytes } from './support.js';

const [cert_chain, private_key] = process.argv.slice(2).map((path) => readFileSync(path));
const credentials = cert_chain
  ? grpc.ServerCredentials.createSsl(null, [{ cert_chain, private_key }])
  : grpc.ServerCredentials.createInsecure();

/** The calls to Hang that were cancelled, by their text. */
const cancelled = new Set();
const signals = new EventEmitter();
signals.setMaxListeners(0);

/** What a call was asked with, so that its client can see it: its own fields and its peer's. */
function seen(call) {
  const metadata = new grpc.Metadata();
  for (const name of ['x-text', 'x-data-bin', 'x-forwarded-for', 'user-agent', 'te', 'connection']) {
    for (const value of call.metadata.get(name)) metadata.add(name.endsWith('-bin') ? 'seen-data-bin' : `seen-${name}`, value);
  }
  return metadata;
}

/** Metadata for behind the answer. */
function trailer(name, value) {
  const metadata = new grpc.Metadata();
  metadata.add(name, value);
  return metadata;
}

const service = {
  Unary(call, answer) {
    call.sendMetadata(seen(call));
    answer(null, call.request, trailer('trailing', 'after all'));
  },

  Fail(call, answer) {
    answer({ ...call.request, metadata: trailer('reason-bin', Buffer.from([0, 1, 255])) });
  },

  async Count(call) {
    const { messages, size, status } = call.request;
    for (let number = 0; number < messages; number += 1) {
      if (!call.write({ text: String(number), data: bytes(size) })) await once(call, 'drain');
    }
    if (status?.code) call.emit('error', status);
    else call.end(trailer('counted', String(messages)));
  },

  Collect(call, answer) {
    const sum = { messages: 0, bytes: 0 };
    call.on('data', ({ data }) => {
      sum.messages += 1;
      sum.bytes += data.length;
    });
    call.on('end', () => answer(null, sum));
  },

  First(call, answer) {
    call.once('data', (message) => answer(null, message));
  },

  Chat(call) {
    call.on('data', (message) => call.write(message));
    call.on('end', () => call.end(trailer('said', 'goodbye')));
  },

  Hang(call) {
    const { text } = call.request;
    call.write({ text });
    call.on('cancelled', () => {
      cancelled.add(text);
      signals.emit(text);
    });
  },

  async Cancelled(call, answer) {
    const { text } = call.request;
    if (!cancelled.has(text)) await once(signals, text);
    answer(null, { text });
  },
};

const server = new grpc.Server(options);
server.addService(Echo.service, service);
server.bindAsync('127.0.0.1:0', credentials, (error, bound) => {
  if (error) throw error;
  console.log(`listening ${bound}`);
});
process.stdin.resume().on('end', () => process.exit());

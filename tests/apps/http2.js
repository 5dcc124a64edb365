// A real app that speaks nothing but HTTP/2, with prior knowledge or behind TLS.
//
//   node http2.js [CERTIFICATE KEY]
//
// Prints `listening PORT` and ends when its standard input does. Nothing here waits for a clock.

import { EventEmitter } from 'node:events';
import { readFileSync } from 'node:fs';
import { createSecureServer, createServer } from 'node:http2';
import { bytes } from './support.js';

const [cert, key] = process.argv.slice(2).map((path) => readFileSync(path));
const settings = { enableConnectProtocol: true };
const server = cert ? createSecureServer({ cert, key, settings }) : createServer({ settings });

/** Lets one request wake another: `signals.emit(id)`. */
const signals = new EventEmitter();
signals.setMaxListeners(0);

const pages = {
  '/json': (stream, headers) => {
    stream.respond({ 'content-type': 'application/json' });
    stream.end(JSON.stringify(headers));
  },

  // What was sent, byte for byte, as it comes.
  '/echo': (stream, headers) => {
    stream.respond({ 'content-type': 'application/octet-stream' });
    stream.pipe(stream);
  },

  '/large': (stream) => {
    const body = bytes(8 << 20);
    stream.respond({ 'content-length': body.length });
    stream.end(body);
  },

  '/trailers': (stream) => {
    stream.respond({ 'content-type': 'text/plain' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-checksum': 'abc' }));
    stream.end('body with a trailer');
  },

  '/hints': (stream) => {
    stream.additionalHeaders({ ':status': 103, link: '</style.css>; rel=preload' });
    stream.respond();
    stream.end('after the hints');
  },

  // Events, one for each POST to /tell.
  '/events': (stream) => {
    stream.respond({ 'content-type': 'text/event-stream' });
    stream.write('data: 0\n\n');
    let count = 0;
    const tell = () => stream.write(`data: ${(count += 1)}\n\n`);
    signals.on('tell', tell);
    stream.on('close', () => {
      signals.off('tell', tell);
      signals.emit('gone');
    });
  },

  '/tell': (stream) => {
    stream.respond();
    stream.end(String(signals.emit('tell')));
  },

  '/broken': (stream) => {
    stream.respond({ 'content-length': 1000 });
    stream.write('half', () => stream.close(2));
  },
};

server.on('stream', (stream, headers) => {
  stream.on('error', () => {}); // a client that goes away is none
  if (headers[':protocol'] === 'websocket') {
    stream.respond({ 'x-version': headers['sec-websocket-version'] });
    return void stream.pipe(stream);
  }
  const page = pages[headers[':path']];
  if (page) return void page(stream, headers);
  stream.respond({ ':status': 404 }, { endStream: true });
});

server.listen(0, '127.0.0.1', () => console.log(`listening ${server.address().port}`));
process.stdin.on('end', () => process.exit()).resume();

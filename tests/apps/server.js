// The real app: Express, ws and Socket.IO on one port, as people run them behind a proxy.
//
//   node server.js [PORT | unix:PATH] [--files DIR]
//
// Prints `listening PORT` (or `listening unix:PATH`) and ends when its standard input does, so that it never
// outlives the test that started it. Nothing here waits for a clock: what must come later is asked for by a
// second request.

import { createHash } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import express from 'express';
import { Server as SocketIO } from 'socket.io';
import { WebSocketServer } from 'ws';
import { bytes } from './support.js';

const args = process.argv.slice(2);
const files = args.includes('--files') ? args.splice(args.indexOf('--files'), 2)[1] : undefined;
const [where = '0'] = args;

/** Lets one request wake another: `signals.emit(id, value)`. */
const signals = new EventEmitter();
signals.setMaxListeners(0);

const app = express();
const server = createServer(app);

// --- Express ---------------------------------------------------------------------------------------------------

// What the app was sent, field by field as it came: the proof of what the proxy does to a head.
app.all('/json', (req, res) => {
  res.json({ method: req.method, url: req.url, version: req.httpVersion, fields: pairs(req.rawHeaders) });
});

app.get('/download/length/:n', (req, res) => {
  const body = bytes(Number(req.params.n));
  res.set('Content-Type', 'application/octet-stream').set('Content-Length', body.length);
  Readable.from(slices(body, 64 * 1024)).pipe(res);
});

app.get('/download/chunked/:n', (req, res) => {
  res.set('Content-Type', 'application/octet-stream');
  Readable.from(slices(bytes(Number(req.params.n)), 10_007)).pipe(res);
});

// Breaks off in the middle of a body: what arrives must not look whole.
app.get('/download/broken/:framing', async (req, res) => {
  if (req.params.framing === 'length') res.set('Content-Length', 1_000_000);
  res.write(bytes(1000));
  await once(signals, `break ${req.query.id}`);
  res.destroy();
});

app.post('/download/broken/:id', (req, res) => {
  res.json({ woken: signals.emit(`break ${req.params.id}`) });
});

app.get('/trailers', (req, res) => {
  res.set('Trailer', 'X-Checksum');
  res.write('body with a trailer');
  res.addTrailers({ 'X-Checksum': 'abc' });
  res.end();
});

app.get('/hints', (req, res) => {
  res.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' }, () => res.send('after the hints'));
});

// Answers with what it received; a body that was sent with a length keeps it, one that was chunked stays so.
app.all('/upload', async (req, res) => {
  const hash = createHash('sha256');
  let length = 0;
  await pipeline(req, async (chunks) => {
    for await (const chunk of chunks) {
      hash.update(chunk);
      length += chunk.length;
    }
  });
  res.json({ method: req.method, length, sha256: hash.digest('hex'), fields: pairs(req.rawHeaders) });
});

// Sends every piece back as it comes, long before the request has ended: full duplex over HTTP.
app.post('/echo', async (req, res) => {
  res.set('Content-Type', req.get('Content-Type') ?? 'application/octet-stream');
  await pipeline(req, res);
});

// Refuses a body on sight of its head, and does not read it.
app.post('/refuse', (req, res) => {
  res.status(413).set('Connection', 'close').send('too large for me\n');
});

app.all('/empty', (req, res) => res.status(204).end());
app.get('/status/:code', (req, res) => res.status(Number(req.params.code)).send(`status ${req.params.code}\n`));
app.get('/redirect', (req, res) => res.redirect(302, '/json?from=redirect'));
app.get('/redirect/absolute', (req, res) => res.redirect(307, `${req.protocol}://${req.get('host')}/json`));
app.post('/redirect/see-other', (req, res) => req.resume().on('end', () => res.redirect(303, '/json')));

app.get('/cookies/set', (req, res) => {
  res.cookie('session', 'a b;c', { httpOnly: true, sameSite: 'lax', path: '/' });
  res.cookie('theme', 'dark', { path: '/' });
  res.json({ set: 2 });
});
app.get('/cookies', (req, res) => res.json({ cookie: req.get('Cookie') ?? null }));

// Long polling: the answer comes when another request asks for it.
app.get('/slow/:id', async (req, res) => {
  const [value] = await once(signals, `slow ${req.params.id}`);
  res.json({ value });
});
app.post('/slow/:id', (req, res) => res.json({ woken: signals.emit(`slow ${req.params.id}`, req.query.value) }));

// Server-sent events: the first at once, each further one when another request posts it, `end` ends the stream.
app.get('/events', (req, res) => {
  res.set({ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
  res.flushHeaders();
  res.write(`id: 0\ndata: hello after ${req.get('Last-Event-ID') ?? 'nothing'}\n\n`);
  let id = 0;
  const forward = (data) => (data === 'end' ? res.end() : res.write(`id: ${++id}\ndata: ${data}\n\n`));
  signals.on(`events ${req.query.id}`, forward);
  res.on('close', () => {
    signals.off(`events ${req.query.id}`, forward);
    signals.emit(`events closed ${req.query.id}`);
  });
});
app.post('/events/:id', (req, res) => {
  res.json({ delivered: signals.emit(`events ${req.params.id}`, String(req.query.data)) });
});
// Answers as soon as the event stream `id` has been given up by its reader.
app.get('/events/:id/closed', async (req, res) => {
  const gone = once(signals, `events closed ${req.params.id}`);
  if (signals.listenerCount(`events ${req.params.id}`) > 0) await gone;
  res.json({ closed: true });
});

if (files) app.use('/files', express.static(files));

// --- WebSocket -------------------------------------------------------------------------------------------------

const echo = new WebSocketServer({ noServer: true, perMessageDeflate: { threshold: 0 }, maxPayload: 64 << 20 });
const plain = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: 64 << 20 });
const chat = new WebSocketServer({
  noServer: true,
  handleProtocols: (offered) => ['chat.v2', 'chat.v1'].find((name) => offered.has(name)) ?? false,
});

/** The closes that were seen, by the `id` in the URL: code and reason, for `/ws/closed/ID`. */
const closes = new Map();

for (const sockets of [echo, plain]) {
  sockets.on('connection', (socket, req) => {
    const query = new URL(req.url, 'http://app').searchParams;
    const id = query.get('id');
    // For clients that cannot speak WebSocket: one message, then the end of the connection.
    if (query.has('greet')) socket.send(query.get('greet'), () => socket.terminate());
    socket.on('message', (data, binary) => {
      const order = binary ? null : /^close (\d+) ?(.*)$/.exec(data.toString());
      if (order) socket.close(Number(order[1]), order[2]);
      else if (!binary && data.toString() === 'terminate') socket.terminate();
      else if (!binary && data.toString() === 'head') socket.send(JSON.stringify(pairs(req.rawHeaders)));
      else socket.send(data, { binary });
    });
    socket.on('close', (code, reason) => {
      if (!id) return;
      closes.set(id, { code, reason: reason.toString() });
      signals.emit(`closed ${id}`);
    });
    socket.on('error', () => {});
  });
}

// A server that speaks first, in one piece with its 101: the bytes that hasty proxies lose.
chat.on('connection', (socket, req) => {
  socket.send(JSON.stringify({ welcome: socket.protocol }));
  socket.on('message', (data) => {
    const message = JSON.stringify({ said: JSON.parse(data), by: req.socket.remotePort });
    for (const client of chat.clients) if (client.readyState === 1) client.send(message);
  });
});

app.get('/ws/closed/:id', async (req, res) => {
  if (!closes.has(req.params.id)) await once(signals, `closed ${req.params.id}`);
  res.json(closes.get(req.params.id));
});
// The same paths without a handshake are ordinary HTTP.
app.get(['/ws', '/plain', '/chat', '/private'], (req, res) => res.status(426).set('Upgrade', 'websocket').send('WebSocket only\n'));

const io = new SocketIO(server, { destroyUpgrade: false, maxHttpBufferSize: 16 << 20 });

server.on('upgrade', (req, socket, head) => {
  const path = new URL(req.url, 'http://app').pathname;
  const target = { '/ws': echo, '/plain': plain, '/chat': chat }[path];
  if (target) return target.handleUpgrade(req, socket, head, (ws) => target.emit('connection', ws, req));
  if (path.startsWith('/socket.io/')) return; // engine.io has its own listener
  const [status, body] = path === '/private' ? ['401 Unauthorized', 'who are you?\n'] : ['404 Not Found', 'no such socket\n'];
  socket.end(`HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`);
});

// --- Socket.IO -------------------------------------------------------------------------------------------------

io.on('connection', (socket) => {
  socket.on('echo', (data, acknowledge) => acknowledge(data));
  socket.on('transport', (acknowledge) => acknowledge(socket.conn.transport.name));
  socket.on('fields', (acknowledge) => acknowledge(socket.handshake.headers));
  socket.on('join', (room, acknowledge) => (socket.join(room), acknowledge(room)));
  socket.on('shout', (room, data) => io.to(room).emit('shouted', data));
  socket.on('drop me', () => socket.conn.close());
});
io.of('/admin').use((socket, done) => {
  done(socket.handshake.auth.token === 'letmein' ? undefined : new Error('not you'));
});

// ---------------------------------------------------------------------------------------------------------------

function pairs(rawHeaders) {
  return Array.from({ length: rawHeaders.length / 2 }, (_, i) => [rawHeaders[2 * i], rawHeaders[2 * i + 1]]);
}

function* slices(buffer, size) {
  for (let at = 0; at < buffer.length; at += size) yield buffer.subarray(at, at + size);
}

const path = where.startsWith('unix:') ? where.slice('unix:'.length) : undefined;
server.listen(path ? { path } : { port: Number(where), host: '127.0.0.1' }, () => {
  console.log(`listening ${path ? where : server.address().port}`);
});
process.stdin.resume().on('end', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));

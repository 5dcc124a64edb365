// An app that tells what it was asked, to see what a proxy makes of a request.
//
//   node echo.js [COUNT]
//
// Listens on COUNT ports, prints `listening PORT PORT …`, and ends when its standard input does. Every path answers
// with JSON: which of the ports, and the request as it came. Every path speaks WebSocket too: the first message is
// that same JSON, then each message comes back. The query asks for other answers:
//
//   ?status=500        that status            ?header=X-Name:value   that field, as often as it is asked for
//   ?protocol=a        only with WebSocket: the subprotocol to choose      ?refuse=403   instead of a 101

import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { WebSocketServer } from 'ws';

const count = Number(process.argv[2] ?? 1);

function told(port, req, body = '') {
  const fields = Array.from({ length: req.rawHeaders.length / 2 }, (_, i) => req.rawHeaders.slice(2 * i, 2 * i + 2));
  return JSON.stringify({ port, method: req.method, url: req.url, version: req.httpVersion, fields, body });
}

const query = (req) => new URLSearchParams(req.url.split('?').slice(1).join('?'));

function app(port) {
  const server = createServer(async (req, res) => {
    const body = await text(req);
    const asked = query(req);
    res.statusCode = Number(asked.get('status') || 200);
    res.setHeader('Content-Type', asked.get('type') ?? 'application/json');
    res.setHeader('X-App', 'echo');
    for (const field of asked.getAll('header')) {
      const colon = field.indexOf(':');
      res.appendHeader(field.slice(0, colon), field.slice(colon + 1));
    }
    res.end([204, 304].includes(res.statusCode) ? undefined : told(port, req, body));
  });
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, handleProtocols });
  sockets.on('connection', (socket, req) => {
    socket.send(told(port, req));
    socket.on('message', (data, binary) => socket.send(data, { binary }));
    socket.on('error', () => {});
  });
  server.on('upgrade', (req, socket, head) => {
    const status = query(req).get('refuse');
    if (!status) return sockets.handleUpgrade(req, socket, head, (ws) => sockets.emit('connection', ws, req));
    socket.end(`HTTP/1.1 ${status} Refused\r\nX-App: echo\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n`);
  });
  return server;
}

const handleProtocols = (offered, req) => query(req).get('protocol') ?? [...offered][0] ?? false;

const servers = await Promise.all(Array.from({ length: count }, (_, port) => new Promise((resolve) => {
  const server = app(port);
  server.listen(0, '127.0.0.1', () => resolve(server));
})));
console.log(`listening ${servers.map((server) => server.address().port).join(' ')}`);
process.stdin.resume().on('end', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));

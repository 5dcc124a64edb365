// A real app behind TLS: https and ws on one port.
//
//   node secure.js CERTIFICATE KEY [CA]      with a CA, clients must show a certificate of it
//
// Prints `listening PORT` and ends when its standard input does.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { WebSocketServer } from 'ws';

const [cert, key, ca] = process.argv.slice(2).map((path) => readFileSync(path));

const server = createServer({ cert, key, ca, requestCert: !!ca, rejectUnauthorized: !!ca }, (req, res) => {
  if (req.method === 'POST') return void req.pipe(res);
  const { socket } = req;
  res.setHeader('Content-Type', 'application/json');
  res.end(JSON.stringify({
    host: req.headers.host,
    version: req.httpVersion,
    name: socket.servername || null,
    protocol: socket.getProtocol(),
    client: ca ? socket.getPeerCertificate().subject.CN : null,
  }));
});

const sockets = new WebSocketServer({ server });
sockets.on('connection', (ws) => ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary })));

server.listen(0, '127.0.0.1', () => console.log(`listening ${server.address().port}`));
process.stdin.on('end', () => process.exit()).resume();

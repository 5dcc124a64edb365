// The app: a page and a WebSocket on one port, on loopback only. compose.yaml installs `ws`.
const { createServer } = require('node:http');
const { WebSocketServer } = require('ws');

const server = createServer((req, res) => res.end(`hello ${req.headers['x-real-ip']}, from ${req.headers.host}\n`));
const sockets = new WebSocketServer({ server }).on('connection', (socket) => {
  socket.send('welcome');
  socket.on('message', (data) => socket.send(`you said: ${data}`));
});
server.listen(3000, '127.0.0.1', () => console.log('listening on 127.0.0.1:3000'));

// As process 1 it would not hear of SIGTERM otherwise. 1001: going away.
process.on('SIGTERM', () => {
  server.close();
  for (const socket of sockets.clients) socket.close(1001);
});

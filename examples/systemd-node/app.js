// Ten lines of Node: a page and a WebSocket on one port. Needs `npm install ws` beside it.
const { createServer } = require('node:http');
const { WebSocketServer } = require('ws');

const server = createServer((req, res) => res.end(`hello ${req.headers['x-real-ip']}, from ${req.headers.host}\n`));
new WebSocketServer({ server }).on('connection', (socket) => {
  socket.send('welcome');
  socket.on('message', (data) => socket.send(`you said: ${data}`));
});
server.listen(3000, '127.0.0.1', () => console.log('listening on 127.0.0.1:3000'));

// Socket.IO over several hopgates and several apps: every connection goes to the next hopgate, as behind a balancer.
//
//   node --test-force-exit --test-reporter=tap socketio-sticky.js http://ADDR,http://ADDR

import assert from 'node:assert/strict';
import { connect, createServer } from 'node:net';
import { test } from 'node:test';
import { io } from 'socket.io-client';
import { base, bytes, next, sha256 } from './support.js';

const gates = base().split(',').map((url) => new URL(url));
assert(gates.length > 1, 'several hopgates');
const limit = { timeout: 20_000 };

/** How many connections each of the hopgates was given. */
const given = gates.map(() => 0);
const balancer = createServer((client) => {
  const turn = given.indexOf(Math.min(...given));
  given[turn] += 1;
  const server = connect(gates[turn].port, gates[turn].hostname);
  client.pipe(server).pipe(client);
  client.on('error', () => server.destroy());
  server.on('error', () => client.destroy());
}).listen(0, '127.0.0.1');
await next(balancer, 'listening');
const url = `http://127.0.0.1:${balancer.address().port}`;

/** A connected client. Browsers send cookies back by themselves, the client for Node.js if it is told to. */
function join(options) {
  const socket = io(url, { forceNew: true, reconnection: false, withCredentials: true, ...options });
  return new Promise((resolve, reject) => {
    socket.on('connect', () => resolve(socket));
    socket.on('connect_error', reject);
    socket.on('disconnect', (reason) => reason === 'io client disconnect' || reject(new Error(reason)));
  });
}

test('twelve clients that stay with polling keep their sessions', limit, async () => {
  const before = [...given];
  await Promise.all(Array.from({ length: 12 }, async (_, client) => {
    const socket = await join({ transports: ['polling'] });
    for (let i = 0; i < 5; i += 1) assert.equal(await socket.emitWithAck('echo', `${client}-${i}`), `${client}-${i}`);
    const data = bytes(50_000);
    assert.equal(sha256(await socket.emitWithAck('echo', data)), sha256(data));
    socket.disconnect();
  }));
  given.forEach((count, gate) => assert(count - before[gate] > 50, `${given}: each hopgate had its part`));
});

test('the upgrade of a session comes to the server that has it', limit, async () => {
  await Promise.all(Array.from({ length: 8 }, async () => {
    const socket = await join({});
    const { engine } = socket.io;
    if (engine.transport.name !== 'websocket') await new Promise((resolve) => engine.once('upgrade', resolve));
    assert.equal(await socket.emitWithAck('transport'), 'websocket');
    socket.disconnect();
  }));
});

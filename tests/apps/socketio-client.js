// Socket.IO v4 through the proxy, with its own client.
//
//   node --test-force-exit --test-reporter=tap socketio-client.js http://ADDR

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { io } from 'socket.io-client';
import { base, bytes, sha256 } from './support.js';

const url = base();
const limit = { timeout: 20_000 };

/** Waits for one event of a Socket.IO emitter (which has no use for node:events). */
function once(emitter, event) {
  return new Promise((resolve) => emitter.once(event, (...args) => resolve(args)));
}

/** A connected client with a manager, and so a connection, of its own. */
async function join(options = {}, namespace = '') {
  const socket = io(url + namespace, { forceNew: true, timeout: 10_000, ...options });
  const failed = once(socket, 'connect_error').then(([error]) => { throw error; });
  await Promise.race([once(socket, 'connect'), failed]);
  failed.catch(() => {});
  return socket;
}

/** Waits until the socket's connection has become a WebSocket. */
async function upgraded({ io: { engine } }) {
  if (engine.transport.name !== 'websocket') await once(engine, 'upgrade');
  assert.equal(engine.transport.name, 'websocket');
}

test('a client starts with polling and moves over to WebSocket', limit, async () => {
  const socket = await join();
  await upgraded(socket);
  assert.equal(await socket.emitWithAck('transport'), 'websocket');
  assert.equal(await socket.emitWithAck('echo', 'after the upgrade'), 'after the upgrade');
  socket.disconnect();
});

test('nothing is lost or doubled while the transport changes', limit, async () => {
  const socket = io(url, { forceNew: true });
  const moved = once(socket, 'connect').then(() => upgraded(socket));
  const answers = Array.from({ length: 300 }, (_, i) => socket.emitWithAck('echo', i));
  assert.deepEqual(await Promise.all(answers), Array.from({ length: 300 }, (_, i) => i));
  await moved;
  socket.disconnect();
});

test('a client may stay with polling', limit, async () => {
  const socket = await join({ transports: ['polling'] });
  assert.equal(await socket.emitWithAck('transport'), 'polling');
  const data = bytes(200_000);
  assert.equal(sha256(await socket.emitWithAck('echo', data)), sha256(data));
  socket.disconnect();
});

test('a client may insist on WebSocket from the start', limit, async () => {
  const socket = await join({ transports: ['websocket'] });
  assert.equal(await socket.emitWithAck('transport'), 'websocket');
  const data = bytes(1 << 20);
  assert.equal(sha256(await socket.emitWithAck('echo', data)), sha256(data));
  const fields = await socket.emitWithAck('fields');
  assert.equal(fields['x-forwarded-for'], '127.0.0.1');
  assert.equal(fields.host, new URL(url).host);
  socket.disconnect();
});

test('a client that was dropped comes back by itself', limit, async () => {
  for (const transports of [['polling', 'websocket'], ['websocket']]) {
    const socket = await join({ transports, reconnectionDelay: 1, reconnectionDelayMax: 10 });
    const first = socket.id;
    const back = once(socket, 'connect');
    socket.emit('drop me');
    await back;
    assert.notEqual(socket.id, first);
    assert.equal(await socket.emitWithAck('echo', 'back'), 'back');
    socket.disconnect();
  }
});

test('a room hears what is shouted into it', limit, async () => {
  const members = await Promise.all(Array.from({ length: 8 }, (_, i) => join({ transports: [i % 2 ? 'polling' : 'websocket'] })));
  await Promise.all(members.map((socket) => socket.emitWithAck('join', 'attic')));
  const heard = members.map((socket) => once(socket, 'shouted'));
  members[0].emit('shout', 'attic', { text: 'hello', data: bytes(100) });
  for (const [{ text, data }] of await Promise.all(heard)) {
    assert.equal(text, 'hello');
    assert.equal(sha256(Buffer.from(data)), sha256(bytes(100)));
  }
  for (const socket of members) socket.disconnect();
});

test('a namespace with a password lets in who knows it', limit, async () => {
  await assert.rejects(join({ auth: { token: 'wrong' }, reconnection: false }, '/admin'), /not you/);
  const socket = await join({ auth: { token: 'letmein' } }, '/admin');
  socket.disconnect();
});

test('fifty clients at once', limit, async () => {
  const clients = await Promise.all(Array.from({ length: 50 }, () => join()));
  const answers = await Promise.all(clients.map((socket, i) => socket.emitWithAck('echo', { i, data: bytes(1000 + i) })));
  answers.forEach(({ i, data }, n) => {
    assert.equal(i, n);
    assert.equal(sha256(Buffer.from(data)), sha256(bytes(1000 + n)));
  });
  for (const socket of clients) socket.disconnect();
});

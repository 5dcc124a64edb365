// WebSocket through the proxy, with `ws` as the client.
//
//   node --test-force-exit --test-reporter=tap ws-client.js http://ADDR

import assert from 'node:assert/strict';
import { request as plain } from 'node:http';
import { request as secure } from 'node:https';
import { test } from 'node:test';
import { text } from 'node:stream/consumers';
import WebSocket from 'ws';
import { base, bytes, next, sha256 } from './support.js';

const url = base();
const request = url.startsWith('https:') ? secure : plain;
const limit = { timeout: 20_000 };
const id = () => Math.random().toString(36).slice(2);

/** An open WebSocket to `path`. */
async function open(path, protocols = [], options = {}) {
  const socket = new WebSocket(url.replace(/^http/, 'ws') + path, protocols, options);
  await next(socket, 'open');
  return socket;
}

/** Sends a message and returns the one that comes back. */
async function echo(socket, message) {
  socket.send(message);
  const [data, binary] = await next(socket, 'message');
  return binary ? data : data.toString();
}

async function close(socket, code = 1000) {
  socket.close(code);
  await next(socket, 'close');
}

for (const [path, name] of [['/ws', 'with permessage-deflate'], ['/plain', 'without extensions']]) {
  test(`text comes back, ${name}`, limit, async () => {
    const socket = await open(path);
    assert.equal(socket.extensions.includes('permessage-deflate'), path === '/ws');
    for (const message of ['hello', '', 'Grüße, 世界 🚪', 'x'.repeat(70_000)]) assert.equal(await echo(socket, message), message);
    await close(socket);
  });

  test(`binary messages up to 1 MiB come back byte for byte, ${name}`, limit, async () => {
    const socket = await open(path);
    for (const length of [0, 1, 125, 126, 65_535, 65_536, 1 << 20]) {
      const message = bytes(length);
      assert.equal(sha256(await echo(socket, message)), sha256(message), `${length} bytes`);
    }
    await close(socket);
  });

  test(`a hundred messages sent without waiting come back in order, ${name}`, limit, async () => {
    const socket = await open(path);
    const got = [];
    const all = new Promise((resolve) => socket.on('message', (data) => got.push(sha256(data)) === 100 && resolve()));
    const sent = Array.from({ length: 100 }, (_, i) => bytes(1000 * i));
    for (const message of sent) socket.send(message);
    await all;
    assert.deepEqual(got, sent.map(sha256));
    await close(socket);
  });
}

test('a fragmented message comes back whole', limit, async () => {
  const socket = await open('/plain');
  const message = bytes(300_000);
  socket.send(message.subarray(0, 1), { fin: false });
  socket.send(message.subarray(1, 200_000), { fin: false });
  socket.send(message.subarray(200_000), { fin: true });
  assert.equal(sha256((await next(socket, 'message'))[0]), sha256(message));
  await close(socket);
});

test('a ping is answered by a pong with the same payload', limit, async () => {
  const socket = await open('/ws');
  for (const payload of ['', 'are you there?', 'x'.repeat(125)]) {
    socket.ping(payload);
    assert.equal((await next(socket, 'pong'))[0].toString(), payload);
  }
  await close(socket);
});

test("the client's close code and reason reach the app", limit, async () => {
  for (const [code, reason] of [[1000, ''], [1001, 'going away'], [3000, 'library'], [4999, 'grüezi']]) {
    const name = id();
    const socket = await open(`/ws?id=${name}`);
    socket.close(code, reason);
    assert.equal((await next(socket, 'close'))[0], code);
    assert.deepEqual(await (await fetch(`${url}/ws/closed/${name}`)).json(), { code, reason });
  }
});

test("the app's close code and reason reach the client", limit, async () => {
  for (const [code, reason] of [[1000, 'done'], [1008, 'policy'], [1011, 'oops'], [1012, 'restart'], [4321, '']]) {
    const socket = await open('/ws');
    socket.send(`close ${code} ${reason}`);
    const [got, why] = await next(socket, 'close');
    assert.deepEqual([got, why.toString()], [code, reason]);
  }
});

test('a peer that vanishes without a closing handshake is noticed on the other side', limit, async () => {
  const fromApp = await open('/ws');
  fromApp.send('terminate');
  assert.equal((await next(fromApp, 'close'))[0], 1006);

  const name = id();
  const fromClient = await open(`/ws?id=${name}`);
  fromClient.terminate();
  assert.equal((await (await fetch(`${url}/ws/closed/${name}`)).json()).code, 1006);
});

test('the app chooses among the subprotocols offered', limit, async () => {
  for (const [offered, chosen] of [[['chat.v2'], 'chat.v2'], [['chat.v1', 'chat.v2'], 'chat.v2'], [['other', 'chat.v1'], 'chat.v1']]) {
    const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/chat`, offered);
    const [welcome] = await next(socket, 'message'); // sent by the app together with its 101
    assert.equal(socket.protocol, chosen);
    assert.deepEqual(JSON.parse(welcome), { welcome: chosen });
    await close(socket);
  }
});

test('what one says in the chat, all hear', limit, async () => {
  const sockets = await Promise.all(Array.from({ length: 10 }, async () => {
    const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/chat`, 'chat.v2');
    await next(socket, 'message');
    return socket;
  }));
  const heard = sockets.map((socket) => next(socket, 'message'));
  sockets[3].send('"hello all"');
  for (const [message] of await Promise.all(heard)) assert.equal(JSON.parse(message).said, 'hello all');
  await Promise.all(sockets.map((socket) => close(socket)));
});

test('200 sockets at once each get their own bytes', limit, async () => {
  const sockets = await Promise.all(Array.from({ length: 200 }, () => open('/plain')));
  await Promise.all(sockets.map(async (socket, i) => {
    for (let round = 0; round < 5; round++) {
      const message = bytes(10_000 + i).subarray(i);
      assert.equal(sha256(await echo(socket, message)), sha256(message));
    }
  }));
  await Promise.all(sockets.map((socket) => close(socket)));
});

test('the app sees a handshake as the RFC spells it, and who sent it', limit, async () => {
  const socket = await open('/ws', [], { headers: { Cookie: 'a=b', Origin: 'http://example.com', 'X-Custom': 'kept' } });
  const fields = JSON.parse(await echo(socket, 'head'));
  const field = (name) => fields.filter(([key]) => key === name).map(([, value]) => value);
  assert.deepEqual(field('Sec-WebSocket-Version'), ['13']);
  assert.equal(field('Sec-WebSocket-Key').length, 1);
  assert.deepEqual(field('Cookie'), ['a=b']);
  assert.deepEqual(field('Origin'), ['http://example.com']);
  assert.deepEqual(field('X-Custom'), ['kept']);
  const any = (name) => fields.filter(([key]) => key.toLowerCase() === name).map(([, value]) => value);
  assert.deepEqual(any('x-forwarded-for'), ['127.0.0.1']);
  assert.deepEqual(any('connection').map((value) => value.toLowerCase()), ['upgrade']);
  assert.deepEqual(any('upgrade').map((value) => value.toLowerCase()), ['websocket']);
  await close(socket);
});

test("an app's refusal is relayed as the response that it is", limit, async () => {
  for (const [path, status, body] of [['/private', 401, 'who are you?\n'], ['/nowhere', 404, 'no such socket\n']]) {
    const socket = new WebSocket(url.replace(/^http/, 'ws') + path);
    socket.on('error', () => {});
    const [req, res] = await next(socket, 'unexpected-response');
    assert.equal(res.statusCode, status);
    assert.equal(await text(res), body);
    req.destroy();
  }
});

test('a plain GET of a WebSocket path is plain HTTP', limit, async () => {
  const req = request(`${url}/ws`).end();
  const [res] = await next(req, 'response');
  assert.equal(res.statusCode, 426);
  assert.equal(await text(res), 'WebSocket only\n');
});

// A real gRPC client: every kind of call to grpc-server.js, through whatever stands between.
//
//   node --test-force-exit --test-reporter=tap grpc-client.js http://ADDR

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Echo, grpc, options } from './grpc.js';
import { base, bytes, sha256 } from './support.js';

const client = new Echo(base().replace('http://', ''), grpc.credentials.createInsecure(), options);
const limit = { timeout: 20_000 };
const id = () => Math.random().toString(36).slice(2);

/** The answer to a call with one request and one answer, its metadata and its status. */
function unary(method, request, metadata = new grpc.Metadata(), settings = {}) {
  return new Promise((resolve, reject) => {
    const seen = {};
    const call = client[method](request, metadata, settings, (error, answer) => {
      if (error) return reject(error);
      seen.answer = answer;
      if (seen.status) resolve(seen);
    });
    call.on('metadata', (fields) => (seen.metadata = fields));
    call.on('status', (status) => {
      seen.status = status;
      if (seen.answer) resolve(seen);
    });
  });
}

/** Everything that a stream brings, and the status behind it, whatever that is. */
function all(call) {
  const messages = [];
  call.on('data', (message) => messages.push(message));
  call.on('error', () => {}); // it says what the status says
  return new Promise((resolve) => call.on('status', (status) => resolve({ messages, status })));
}

test('a message is answered, with metadata before and behind it', limit, async () => {
  const metadata = new grpc.Metadata();
  metadata.add('x-text', 'hello');
  metadata.add('x-data-bin', Buffer.from([0, 255, 1]));
  const { answer, metadata: seen, status } = await unary('Unary', { text: 'Grüße', data: bytes(100) }, metadata);
  assert.equal(answer.text, 'Grüße');
  assert.equal(sha256(answer.data), sha256(bytes(100)));
  assert.deepEqual(seen.get('seen-x-text'), ['hello']);
  assert.deepEqual(seen.get('seen-data-bin'), [Buffer.from([0, 255, 1])]);
  assert.equal(status.code, grpc.status.OK);
  assert.deepEqual(status.metadata.get('trailing'), ['after all']);
});

test('an empty message is one', limit, async () => {
  const { answer } = await unary('Unary', {});
  assert.equal(answer.text, '');
});

test('a hundred calls at a time are answered, each with its own', limit, async () => {
  const texts = Array.from({ length: 100 }, (_, number) => `call ${number}`);
  const answers = await Promise.all(texts.map((text) => unary('Unary', { text })));
  assert.deepEqual(answers.map(({ answer }) => answer.text), texts);
});

test('a message of 16 MiB goes both ways', { timeout: 60_000 }, async () => {
  const data = bytes(16 << 20);
  const { answer } = await unary('Unary', { data });
  assert.equal(sha256(answer.data), sha256(data));
});

test('every status comes with its words and its metadata', limit, async () => {
  for (const code of [1, 3, 5, 7, 8, 12, 13, 14, 16]) {
    const failed = unary('Fail', { code, details: `status ${code}: 50 % Grüße` });
    await assert.rejects(failed, (error) => {
      assert.equal(error.code, code);
      assert.equal(error.details, `status ${code}: 50 % Grüße`);
      assert.deepEqual(error.metadata.get('reason-bin'), [Buffer.from([0, 1, 255])]);
      return true;
    });
  }
});

test('a stream of answers comes in order, and its status behind it', limit, async () => {
  const { messages, status } = await all(client.Count({ messages: 1000, size: 1000 }));
  assert.deepEqual(messages.map(({ text }) => Number(text)), [...Array(1000).keys()]);
  assert.equal(status.code, grpc.status.OK);
  assert.deepEqual(status.metadata.get('counted'), ['1000']);
});

test('a stream of answers may be empty', limit, async () => {
  const { messages, status } = await all(client.Count({ messages: 0 }));
  assert.deepEqual(messages, []);
  assert.deepEqual(status.metadata.get('counted'), ['0']);
});

test('a stream of answers may end with an error, behind what came', limit, async () => {
  const { messages, status } = await all(client.Count({ messages: 3, status: { code: 9, details: 'three is all' } }));
  assert.equal(messages.length, 3);
  assert.equal(status.code, 9);
  assert.equal(status.details, 'three is all');
});

test('a stream of requests is answered once it has ended', limit, async () => {
  const sum = new Promise((resolve, reject) => {
    const call = client.Collect((error, answer) => (error ? reject(error) : resolve(answer)));
    for (let number = 0; number < 500; number += 1) call.write({ data: bytes(number) });
    call.end();
  });
  assert.deepEqual(await sum, { messages: 500, bytes: (499 * 500) / 2 });
});

test('a stream of requests may be answered before it has ended', limit, async () => {
  const answer = await new Promise((resolve, reject) => {
    const call = client.First((error, message) => (error ? reject(error) : resolve(message)));
    call.write({ text: 'the first of many' });
  });
  assert.equal(answer.text, 'the first of many');
});

test('both sides speak in turn, for as long as they like', limit, async () => {
  const call = client.Chat();
  for (let turn = 0; turn < 100; turn += 1) {
    call.write({ text: `turn ${turn}` });
    const [message] = await once(call, 'data');
    assert.equal(message.text, `turn ${turn}`);
  }
  call.end();
  call.resume();
  const [status] = await once(call, 'status');
  assert.deepEqual(status.metadata.get('said'), ['goodbye']);
});

test('both sides speak at once: 32 MiB each way', { timeout: 60_000 }, async () => {
  const call = client.Chat();
  const [size, count] = [1 << 18, 128];
  const echoed = all(call);
  for (let number = 0; number < count; number += 1) {
    if (!call.write({ text: String(number), data: bytes(size) })) await once(call, 'drain');
  }
  call.end();
  const { messages, status } = await echoed;
  assert.equal(status.code, grpc.status.OK);
  assert.deepEqual(messages.map(({ text }) => Number(text)), [...Array(count).keys()]);
  assert.ok(messages.every(({ data }) => data.length === size));
});

test('a call that is cancelled ends at the server, too', limit, async () => {
  const text = id();
  const call = client.Hang({ text });
  call.on('error', () => {});
  await once(call, 'data');
  call.cancel();
  const { answer } = await unary('Cancelled', { text });
  assert.equal(answer.text, text);
});

test('a call whose deadline passes ends at the server, too', limit, async () => {
  const text = id();
  const call = client.Hang({ text }, { deadline: Date.now() + 300 });
  const { status } = await all(call);
  assert.equal(status.code, grpc.status.DEADLINE_EXCEEDED);
  await unary('Cancelled', { text });
});

test('a method that nobody knows is told to be so', limit, async () => {
  const same = (value) => value;
  const error = await new Promise((resolve) => {
    client.makeUnaryRequest('/hopgate.test.Echo/Nothing', same, same, Buffer.alloc(0), resolve);
  });
  assert.equal(error.code, grpc.status.UNIMPLEMENTED);
});

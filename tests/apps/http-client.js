// Ordinary HTTP/1.1 through the proxy, with Node's own clients: `fetch`, a keep-alive agent, and a bare socket.
//
//   node --test-force-exit --test-reporter=tap http-client.js http://ADDR

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { test } from 'node:test';
import { text } from 'node:stream/consumers';
import { base, bytes, next, sha256 } from './support.js';

const url = base();
const limit = { timeout: 20_000 };
const id = () => Math.random().toString(36).slice(2);

/** One request with node:http; the response with its whole body as a Buffer. */
async function ask(path, { agent, method = 'GET', headers = {}, body } = {}) {
  const req = request(url + path, { agent, method, headers });
  req.end(body);
  const [res] = await next(req, 'response');
  const chunks = [];
  for await (const chunk of res) chunks.push(chunk);
  return { status: res.statusCode, headers: res.headers, trailers: res.trailers, body: Buffer.concat(chunks), socket: req.socket };
}

test('fetch gets JSON, and the app sees who asked for what', limit, async () => {
  const res = await fetch(`${url}/json?a=1&b=%20`, { headers: { 'X-Twice': 'one' } });
  assert.equal(res.status, 200);
  assert.match(res.headers.get('content-type'), /^application\/json/);
  const seen = await res.json();
  assert.equal(seen.url, '/json?a=1&b=%20');
  const field = (name) => seen.fields.filter(([key]) => key.toLowerCase() === name).map(([, value]) => value);
  assert.deepEqual(field('host'), [new URL(url).host]);
  assert.deepEqual(field('x-twice'), ['one']);
  assert.deepEqual(field('x-forwarded-for'), ['127.0.0.1']);
  assert.deepEqual(field('x-real-ip'), ['127.0.0.1']);
  assert.deepEqual(field('x-forwarded-proto'), ['http']);
  assert.deepEqual(field('x-forwarded-host'), [new URL(url).host]);
});

test('one keep-alive connection carries many requests of all kinds', limit, async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const sockets = new Set();
  for (let i = 0; i < 20; i++) {
    for (const [method, path, status, body] of [
      ['GET', '/json', 200],
      ['HEAD', '/json', 200],
      ['GET', '/download/chunked/30000', 200],
      ['HEAD', '/download/length/1000', 200],
      ['GET', '/empty', 204],
      ['POST', '/upload', 200, 'a body'],
      ['GET', '/status/404', 404],
      ['GET', '/status/500', 500],
      ['DELETE', '/empty', 204],
      ['OPTIONS', '/empty', 204],
    ]) {
      const res = await ask(path, { agent, method, body });
      assert.equal(res.status, status, `${method} ${path}`);
      sockets.add(res.socket);
    }
  }
  agent.destroy();
  assert.equal(sockets.size, 1, 'every request went over the same connection');
});

test('HEAD tells the length and sends no body', limit, async () => {
  const res = await ask('/download/length/12345', { method: 'HEAD' });
  assert.equal(res.status, 200);
  assert.equal(res.headers['content-length'], '12345');
  assert.equal(res.body.length, 0);
});

test('a large download with a length is byte-exact', limit, async () => {
  const res = await fetch(`${url}/download/length/20000000`);
  assert.equal(res.headers.get('content-length'), '20000000');
  assert.equal(sha256(Buffer.from(await res.arrayBuffer())), sha256(bytes(20_000_000)));
});

test('a large chunked download is byte-exact', limit, async () => {
  const res = await ask('/download/chunked/20000000');
  assert.equal(res.headers['transfer-encoding'], 'chunked');
  assert.equal(sha256(res.body), sha256(bytes(20_000_000)));
});

test('forty downloads at once do not mix', limit, async () => {
  await Promise.all(Array.from({ length: 40 }, async (_, i) => {
    const length = 100_000 + i;
    const res = await ask(`/download/${i % 2 ? 'chunked' : 'length'}/${length}`);
    assert.equal(sha256(res.body), sha256(bytes(length)));
  }));
});

test('an upload with a length arrives whole', limit, async () => {
  const body = bytes(5_000_000);
  const seen = await (await fetch(`${url}/upload`, { method: 'PUT', body })).json();
  assert.deepEqual([seen.method, seen.length, seen.sha256], ['PUT', body.length, sha256(body)]);
  assert.ok(seen.fields.some(([name, value]) => name.toLowerCase() === 'content-length' && value === '5000000'));
});

test('a chunked upload arrives whole', limit, async () => {
  const body = bytes(5_000_000);
  const req = request(`${url}/upload`, { method: 'POST' });
  for (let at = 0; at < body.length; at += 77_777) req.write(body.subarray(at, at + 77_777));
  req.end();
  const [res] = await next(req, 'response');
  const seen = JSON.parse(await text(res));
  assert.deepEqual([seen.length, seen.sha256], [body.length, sha256(body)]);
});

test('the body goes up after 100 Continue', limit, async () => {
  const req = request(`${url}/upload`, { method: 'POST', headers: { Expect: '100-continue', 'Content-Length': 7 } });
  req.flushHeaders();
  await next(req, 'continue');
  req.end('at last');
  const [res] = await next(req, 'response');
  assert.equal(JSON.parse(await text(res)).sha256, sha256('at last'));
});

test('the app answers while the request is still being sent', limit, async () => {
  const req = request(`${url}/echo`, { method: 'POST' });
  req.write('first');
  const [res] = await next(req, 'response');
  assert.equal(String((await next(res, 'data'))[0]), 'first');
  req.write('second');
  assert.equal(String((await next(res, 'data'))[0]), 'second');
  req.end();
  await once(res, 'end');
});

test('an app that refuses a body unread is heard', limit, async () => {
  const req = request(`${url}/refuse`, { method: 'POST', headers: { 'Content-Length': 50_000_000 } });
  req.on('error', () => {}); // what is still being written may be cut off, after the answer
  req.write(bytes(100_000));
  const [res] = await next(req, 'response');
  assert.equal(res.statusCode, 413);
  assert.equal(await text(res), 'too large for me\n');
  req.destroy();
});

test('trailers reach a client that asks for them', limit, async () => {
  const res = await ask('/trailers', { headers: { TE: 'trailers' } });
  assert.equal(String(res.body), 'body with a trailer');
  assert.equal(res.trailers['x-checksum'], 'abc');
});

test('103 Early Hints come before the answer', limit, async () => {
  const req = request(`${url}/hints`);
  const hints = [];
  req.on('information', (info) => hints.push([info.statusCode, info.headers.link]));
  req.end();
  const [res] = await next(req, 'response');
  assert.deepEqual(hints, [[103, '</style.css>; rel=preload; as=style']]);
  assert.equal(await text(res), 'after the hints');
});

test('redirects are followed to the proxy, not around it', limit, async () => {
  for (const [path, method] of [['/redirect', 'GET'], ['/redirect/absolute', 'GET'], ['/redirect/see-other', 'POST']]) {
    const res = await fetch(url + path, { method, body: method === 'POST' ? 'x' : undefined });
    assert.equal(res.status, 200, path);
    assert.equal(new URL(res.url).host, new URL(url).host, path);
    assert.equal((await res.json()).method, 'GET', path);
  }
});

test('cookies come one a field and go back as they were', limit, async () => {
  const set = (await fetch(`${url}/cookies/set`)).headers.getSetCookie();
  assert.equal(set.length, 2);
  const cookie = set.map((line) => line.split(';')[0]).join('; ');
  assert.equal((await (await fetch(`${url}/cookies`, { headers: { cookie } })).json()).cookie, cookie);
});

test('long polling gets its answer when there is one', limit, async () => {
  const poll = id();
  const answer = fetch(`${url}/slow/${poll}`).then((res) => res.json());
  // The poll may not have reached the app yet: wake it until somebody was woken.
  for (;;) {
    const { woken } = await (await fetch(`${url}/slow/${poll}?value=now`, { method: 'POST' })).json();
    if (woken) break;
  }
  assert.deepEqual(await answer, { value: 'now' });
});

test('server-sent events come one by one, the first at once', limit, async () => {
  const stream = id();
  const res = await fetch(`${url}/events?id=${stream}`, { headers: { 'Last-Event-ID': '41' } });
  assert.match(res.headers.get('content-type'), /^text\/event-stream/);
  const reader = res.body.pipeThrough(new TextDecoderStream()).getReader();
  const event = async () => (await reader.read()).value;
  assert.equal(await event(), 'id: 0\ndata: hello after 41\n\n');
  for (const [n, data] of ['one', 'two', 'three'].entries()) {
    await fetch(`${url}/events/${stream}?data=${data}`, { method: 'POST' });
    assert.equal(await event(), `id: ${n + 1}\ndata: ${data}\n\n`);
  }
  await fetch(`${url}/events/${stream}?data=end`, { method: 'POST' });
  assert.equal((await reader.read()).done, true);
});

test('the app learns that the reader of its events has gone', limit, async () => {
  const stream = id();
  const abort = new AbortController();
  const res = await fetch(`${url}/events?id=${stream}`, { signal: abort.signal });
  await res.body.getReader().read();
  const closed = fetch(`${url}/events/${stream}/closed`).then((res) => res.json());
  abort.abort();
  assert.deepEqual(await closed, { closed: true });
});

test('a response that breaks off does not look whole', limit, async () => {
  for (const framing of ['length', 'chunked']) {
    const cut = id();
    const req = request(`${url}/download/broken/${framing}?id=${cut}`).end();
    req.on('error', () => {}); // it is told as well if the connection ends with RST
    const [res] = await next(req, 'response');
    const body = text(res);
    body.catch(() => {});
    await fetch(`${url}/download/broken/${cut}`, { method: 'POST' });
    await assert.rejects(body, (error) => error.code === 'ECONNRESET', framing);
    assert.equal(res.complete, false, framing);
  }
});

test('pipelined requests are answered in their order', limit, async () => {
  const { hostname, port, host } = new URL(url);
  const socket = connect(port, hostname);
  const lengths = [10, 70_000, 0, 1, 30_000];
  socket.write(lengths.map((n) => `GET /download/length/${n} HTTP/1.1\r\nHost: ${host}\r\n\r\n`).join('')
    + `POST /upload HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 4\r\n\r\nbody`
    + `GET /empty HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
  const chunks = [];
  for await (const chunk of socket) chunks.push(chunk);
  let rest = Buffer.concat(chunks);
  const answers = [];
  while (rest.length) {
    const end = rest.indexOf('\r\n\r\n') + 4;
    const head = rest.subarray(0, end).toString('latin1');
    const length = Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0);
    answers.push([head.split(' ')[1], rest.subarray(end, end + length)]);
    rest = rest.subarray(end + length);
  }
  assert.deepEqual(answers.map(([status]) => status), ['200', '200', '200', '200', '200', '200', '204']);
  lengths.forEach((n, i) => assert.equal(sha256(answers[i][1]), sha256(bytes(n))));
  assert.equal(JSON.parse(answers[5][1]).sha256, sha256('body'));
});

// Two browsers load a page of the app over HTTP/2, and open a WebSocket on the same connection (RFC 8441).
//
//   node --test-force-exit --test-reporter=tap browser-http2.js https://localhost:PORT

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { chromium } from 'playwright-core';
import { firefox } from './firefox.js';
import { base } from './support.js';

const url = base();
const limit = { timeout: 90_000 };
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** In the page: how it came, and what a WebSocket of it says to what it is told. */
const visit = `
  const done = arguments[arguments.length - 1];
  const [browser] = arguments;
  const socket = new WebSocket(location.origin.replace(/^http/, 'ws') + '/socket?browser=' + browser, ['chat', 'none']);
  const heard = [];
  let version;
  const said = ['hello', 'x'.repeat(200000), 'Grüße 🚪'];
  socket.onopen = () => said.forEach((text) => socket.send(text));
  socket.onmessage = ({ data }) => {
    if (!version) return (version = JSON.parse(data).version); // of HTTP, as the app has it
    heard.push(data === said[heard.length]);
    if (heard.length === said.length) socket.close(4001, 'enough');
  };
  socket.onclose = ({ code, reason, wasClean }) => done({
    protocol: performance.getEntriesByType('navigation')[0].nextHopProtocol,
    version, subprotocol: socket.protocol, heard, code, reason, wasClean,
  });
`;
const expected = {
  protocol: 'h2', version: '1.1', subprotocol: 'chat', heard: [true, true, true], code: 4001, reason: 'enough', wasClean: true,
};

test('chromium', limit, async () => {
  assert.ok(existsSync(executablePath), `no browser at ${executablePath}: install Debian's chromium (tests/run does), or set CHROMIUM`);
  const browser = await chromium.launch({
    executablePath,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  try {
    const page = await browser.newPage({ ignoreHTTPSErrors: true });
    assert.equal((await page.goto(`${url}/page?type=text/html&browser=chromium`)).status(), 200);
    const seen = await page.evaluate(
      ([script, name]) => new Promise((resolve) => { new Function(script)(name, resolve); }), [visit, 'chromium'],
    );
    assert.deepEqual(seen, expected);
  } finally {
    await browser.close();
  }
});

test('firefox', limit, async () => {
  const browser = await firefox();
  try {
    await browser.open(`${url}/page?type=text/html&browser=firefox`);
    assert.deepEqual(await browser.run(visit, 'firefox'), expected);
  } finally {
    await browser.close();
  }
});

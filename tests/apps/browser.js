// Chromium opens the page of `hopgate demo` and uses it as a newcomer would.
//
//   node --test-force-exit --test-reporter=tap browser.js URL [PICTURE.png]

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { base } from './support.js';

const url = base();
const limit = { timeout: 60_000 };
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';

let browser;
let page;
const complaints = [];

before(async () => {
  assert.ok(existsSync(executablePath), `no browser at ${executablePath}: install Debian's chromium (tests/run does), or set CHROMIUM`);
  browser = await chromium.launch({
    executablePath,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync',
    ],
  });
  page = await browser.newPage({ ignoreHTTPSErrors: true }); // of the demo with TLS: made by itself
  page.setDefaultTimeout(20_000);
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  page.on('requestfailed', (request) => {
    const why = request.failure()?.errorText;
    if (why !== 'net::ERR_ABORTED') complaints.push(`${request.url()}: ${why}`); // aborted: by the page itself
  });
  assert.equal((await page.goto(url)).status(), 200);
}, limit);

after(async () => {
  if (process.argv[3]) await page?.screenshot({ path: process.argv[3], fullPage: true });
  await browser?.close();
});

/** Waits until the element's text matches. */
async function shows(selector, pattern) {
  await page.locator(selector).filter({ hasText: pattern }).waitFor();
}

/** Waits for a line of the WebSocket log of this kind with this text. */
async function logged(kind, text) {
  await page.locator(`#ws-log .${kind}`, { hasText: text }).last().waitFor();
}

test('the page says that it works', limit, async () => {
  assert.match(await page.title(), /hopgate/);
  await shows('h1', /works/);
});

test('a WebSocket is opened, used and closed with the controls of the page', limit, async () => {
  await shows('#ws-state', /^closed$/);
  await page.fill('#ws-url', '/any/path?of=mine');
  await page.click('#ws-connect');
  await shows('#ws-state', /^open$/);
  await logged('received', /connected on \/any\/path/);
  for (const message of ['hello from Chromium', 'Grüße 🚪', 'x'.repeat(100_000)]) {
    await page.fill('#ws-message', message);
    await page.click('#ws-send');
    await logged('sent', message);
    await logged('received', message);
  }
  await page.click('#ws-disconnect');
  await shows('#ws-state', /^closed$/);
  await logged('event', /code 1000/);
});

test('it can be opened again', limit, async () => {
  await page.click('#ws-connect');
  await shows('#ws-state', /^open$/);
  await page.click('#ws-disconnect');
  await shows('#ws-state', /^closed$/);
});

test('the clock of server-sent events ticks', limit, async () => {
  const seen = new Set();
  while (seen.size < 3) {
    const now = await page.locator('#clock').textContent();
    if (/\d\d:\d\d:\d\d/.test(now)) seen.add(now);
    await page.waitForFunction((before) => document.querySelector('#clock').textContent !== before, now);
  }
});

test('the request as the app saw it has the fields of the proxy', limit, async () => {
  await page.click('#json-load');
  await shows('#json', /x-real-ip/);
  const seen = JSON.parse(await page.locator('#json').evaluate((pre) => pre.innerText));
  assert.equal(seen.path, '/json');
  assert.equal(seen.headers.host, new URL(url).host);
  assert.equal(seen.headers['x-forwarded-for'], '127.0.0.1');
  assert.equal(seen.headers['x-forwarded-host'], new URL(url).host);
  assert.equal(`${seen.headers['x-forwarded-proto']}:`, new URL(url).protocol);
  assert.equal(seen.headers['x-real-ip'], '127.0.0.1');
});

test('a page of our own reaches the app with fetch, XMLHttpRequest and EventSource alike', limit, async () => {
  const seen = await page.evaluate(async () => {
    const xhr = await new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open('GET', '/json?xhr');
      request.onload = () => resolve(JSON.parse(request.responseText).path);
      request.onerror = reject;
      request.send();
    });
    const posted = await (await fetch('/json?fetch', { method: 'POST', body: 'x'.repeat(300_000) })).json();
    const event = await new Promise((resolve) => {
      const source = new EventSource('/clock');
      source.onmessage = ({ data }) => (source.close(), resolve(data));
    });
    const missing = (await fetch('/json/none')).status;
    return { xhr, posted: [posted.method, posted.path], event, missing };
  });
  assert.equal(seen.xhr, '/json?xhr');
  assert.deepEqual(seen.posted, ['POST', '/json?fetch']);
  assert.match(seen.event, /\d\d:\d\d:\d\d/);
  assert.equal(seen.missing, 404);
});

test('thirty WebSockets of one page at once each get their own answers', limit, async () => {
  const wrong = await page.evaluate(async () => {
    const one = (i) => new Promise((resolve) => {
      const socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/ws/${i}`);
      const message = `${i} `.repeat(1000);
      socket.onopen = () => socket.send(message);
      socket.onmessage = ({ data }) => {
        if (data === message) (socket.onclose = () => resolve(null), socket.close(1000));
      };
      socket.onerror = () => resolve(`socket ${i} failed`);
    });
    return (await Promise.all(Array.from({ length: 30 }, (_, i) => one(i)))).filter(Boolean);
  });
  assert.deepEqual(wrong, []);
});

test('the page had nothing to complain about', limit, () => {
  // The 404 that was asked for above is written to the console by the browser itself.
  assert.deepEqual(complaints.filter((text) => !/status of 404/.test(text)), []);
});

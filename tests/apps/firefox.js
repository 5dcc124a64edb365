// Drives Firefox by Marionette, its own remote control: enough to open a page and run a script in it.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { next } from './support.js';

const executable = process.env.FIREFOX ?? '/usr/bin/firefox-esr';

/** Starts Firefox, without a window, and with a profile of its own that believes any certificate. */
export async function firefox() {
  if (!existsSync(executable)) throw new Error(`no browser at ${executable}: install Debian's firefox-esr (tests/run does), or set FIREFOX`);
  const profile = mkdtempSync(join(tmpdir(), 'firefox-'));
  // Port 0: Firefox writes the one that it got into its profile.
  const prefs = ['("marionette.port", 0)', '("network.proxy.type", 0)', '("app.update.enabled", false)'];
  writeFileSync(join(profile, 'user.js'), prefs.map((pref) => `user_pref${pref};\n`).join(''));
  const child = spawn(executable, ['--headless', '--marionette', '--no-remote', '--profile', profile], {
    stdio: 'ignore',
  });
  const socket = connect(await port(profile, child), '127.0.0.1');
  const marionette = new Marionette(socket);
  await marionette.hello;
  await marionette.send('WebDriver:NewSession', { acceptInsecureCerts: true });
  return {
    open: (url) => marionette.send('WebDriver:Navigate', { url }),
    /** Runs the body of a function in the page; it calls its last argument with the result. */
    run: async (script, ...args) => (await marionette.send('WebDriver:ExecuteAsyncScript', { script, args })).value,
    async close() {
      socket.destroy();
      child.kill('SIGKILL');
      await next(child, 'exit').catch(() => {});
      rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    },
  };
}

async function port(profile, child) {
  const file = join(profile, 'MarionetteActivePort');
  for (let tries = 0; tries < 300 && child.exitCode === null; tries += 1) {
    const written = existsSync(file) && readFileSync(file, 'utf8').trim();
    if (written) return Number(written);
    await pause(100);
  }
  throw new Error(`Firefox did not open its remote control (exit code ${child.exitCode})`);
}

/** The protocol: `LENGTH:[kind, id, …]`, where an answer has the id of its command. */
class Marionette {
  #socket;
  #received = Buffer.alloc(0);
  #waiting = new Map();
  #last = 0;

  constructor(socket) {
    this.#socket = socket;
    this.hello = new Promise((resolve) => this.#waiting.set('hello', { resolve }));
    socket.on('data', (data) => this.#take(data));
  }

  send(command, parameters) {
    const id = (this.#last += 1);
    const message = JSON.stringify([0, id, command, parameters]);
    this.#socket.write(`${Buffer.byteLength(message)}:${message}`);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #take(data) {
    this.#received = Buffer.concat([this.#received, data]);
    for (;;) {
      const colon = this.#received.indexOf(':');
      const end = colon + 1 + Number(this.#received.subarray(0, Math.max(colon, 0)).toString());
      if (colon < 0 || this.#received.length < end) return;
      const message = JSON.parse(this.#received.subarray(colon + 1, end));
      this.#received = this.#received.subarray(end);
      const [id, error, result] = Array.isArray(message) ? message.slice(1) : ['hello', null, message];
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      error ? reject(new Error(`${error.error}: ${error.message}`)) : resolve(result);
    }
  }
}

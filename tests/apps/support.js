// What the app and its clients share: bytes that both sides can make, and a digest.

import { createCipheriv, createHash } from 'node:crypto';

/** The first `length` bytes of an endless stream that looks random and is always the same. */
export function bytes(length) {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 'hopgate'), Buffer.alloc(16));
  return cipher.update(Buffer.alloc(length));
}

/** The SHA-256 of a buffer or string, in hex. */
export function sha256(data) {
  return createHash('sha256').update(data).digest('hex');
}

/** The base URL that a client script is told to use, without a slash at its end. */
export function base() {
  const url = process.argv[2];
  if (!url) throw new Error('usage: node SCRIPT URL');
  // With nothing left to wait for, Node would cancel the tests that follow; so each ends by its own time limit.
  setInterval(() => {}, 60_000);
  return url.replace(/\/$/, '');
}

/** Resolves with the arguments of the emitter's next `event`; rejects on its `error`. */
export function next(emitter, event) {
  return new Promise((resolve, reject) => {
    const done = (...args) => (emitter.off?.('error', failed), resolve(args));
    const failed = (error) => (emitter.off?.(event, done), reject(error));
    emitter.once(event, done);
    if (event !== 'error') emitter.once('error', failed);
  });
}

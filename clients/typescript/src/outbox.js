/**
 * An outbox: requests that are sent when there is a network, however often the page is closed in between.
 * @module
 */

import { intent } from './intent.js';
import { OutcomeUnknown } from './send.js';
import { indexedDb } from './storage.js';

/**
 * @typedef {object} OutboxOptions
 * @property {import('./storage.js').IntentStorage} [storage] IndexedDB
 * @property {number} [ttl] how long a key is good, in milliseconds; 24 h; no longer than the server keeps its records
 * @property {number} [retryMs] how long after a failed round the next begins, in milliseconds, give or take a half; 30,000
 * @property {(entry: string, response: Response) => void} [onAnswer] a final answer came and the entry is gone. Also for answers that
 *   say that nothing ran (401, 429 and the like); then it stays
 * @property {(response: Response, entry: string) => void | Promise<void>} [record] as of an intent, with the entry's name
 * @property {(entry: string, error: OutcomeUnknown) => void} [onUnknown] nobody can know yet; the entry stays
 */

/**
 * The outbox of this name. Drains at once, when the browser is back online, when the page becomes visible, and every `retryMs`
 * while something is left.
 * @param {string} name
 * @param {OutboxOptions & import('./send.js').Options} [options]
 */
export function outbox(name, options = {}) {
  return new Outbox(name, options);
}

/** See {@link outbox}. Made by it only. */
export class Outbox {
  /** @type {Promise<number> | null} */
  #draining = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #isClosed = false;
  #wake = () => {
    if (globalThis.document?.visibilityState !== 'hidden') void this.drain().catch(() => {});
  };

  /** @param {string} name @param {OutboxOptions & import('./send.js').Options} options */
  constructor(name, options) {
    this.name = name;
    this.options = { ...options, storage: options.storage ?? indexedDb() };
    globalThis.addEventListener?.('online', this.#wake);
    globalThis.document?.addEventListener('visibilitychange', this.#wake);
    this.#wake();
  }

  /**
   * Keeps a request; it is in the storage when this resolves, and sent as soon as can be.
   * @param {string} entry what it is for, such as the cart's id: the same entry is kept once
   * @param {RequestInfo | URL} input
   * @param {RequestInit} [init] as of `fetch`; credentials are not stored: give them in `options.headers`
   * @returns {Promise<string>} the key
   */
  async add(entry, input, init) {
    const key = await this.#intent(entry).prepare(input, init);
    this.#wake();
    return key;
  }

  /** What is not settled yet. @returns {Promise<string[]>} */
  async entries() {
    const prefix = `hapax:${this.name}/`;
    const names = (await this.options.storage.names(prefix)).map((name) => name.slice(prefix.length));
    const states = await Promise.all(names.map((entry) => this.#intent(entry).state()));
    return names.filter((_, at) => states[at] === 'pending');
  }

  /**
   * Sends what is left, one after the other.
   * @returns {Promise<number>} how many are left
   */
  drain() {
    this.#draining ??= this.#round().finally(() => {
      this.#draining = null;
    });
    return this.#draining;
  }

  /** Gives an entry up: see `Intent.forget`. @param {string} entry */
  async forget(entry) {
    await this.#intent(entry).forget();
  }

  /** Stops draining. What is kept stays. */
  close() {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    globalThis.removeEventListener?.('online', this.#wake);
    globalThis.document?.removeEventListener('visibilitychange', this.#wake);
  }

  async #round() {
    clearTimeout(this.#timer);
    for (const entry of await this.entries()) {
      if (this.#isClosed) break;
      await this.#one(entry);
    }
    const left = (await this.entries()).length;
    if (left > 0 && !this.#isClosed) {
      const random = (this.options.random ?? Math.random)();
      this.#timer = setTimeout(this.#wake, (this.options.retryMs ?? 30_000) * (0.5 + random));
      // A timer is no reason for Node to stay alive: what is kept is drained at the next start.
      /** @type {{ unref?: () => void }} */ (this.#timer).unref?.();
    }
    return left;
  }

  /** @param {string} entry */
  async #one(entry) {
    const kept = this.#intent(entry);
    try {
      const response = await kept.resume();
      await kept.forgetSettled();
      if (response) this.options.onAnswer?.(entry, response);
    } catch (error) {
      if (error instanceof OutcomeUnknown) this.options.onUnknown?.(entry, error);
    }
  }

  /** @param {string} entry */
  #intent(entry) {
    const { record } = this.options;
    return intent(`${this.name}/${entry}`, { ...this.options, record: record && ((response) => record(response, entry)) });
  }
}

/**
 * An intent: something the user wants once. Its key and bytes are kept before the first send and forgotten only
 * after a final answer (P41), whatever happens to the network, the tab or the machine in between.
 * @module
 */

import { OutcomeUnknown, handOver, send } from './send.js';
import { alone, memory } from './storage.js';

/**
 * @typedef {object} IntentOptions
 * @property {import('./storage.js').IntentStorage} [storage] where it is kept; in memory
 * @property {number} [ttl] how long its key is good, in milliseconds; 24 h. No longer than the server keeps its records: after
 *   that a repeat would run again
 * @property {number} [rememberMs] how long a final answer also serves later calls of `send` with the same name, in milliseconds; 0:
 *   only calls that began before the answer was there
 * @property {() => string} [newKey] a random UUID
 * @property {(response: Response, name: string) => void | Promise<void>} [record] awaited with a final answer before the key is
 *   forgotten: keep here what you must not lose. If it rejects, or the page or process dies, the intent stays pending, and the
 *   next send gets the same answer
 */

/**
 * What is kept of an intent, as JSON.
 * @typedef {object} Kept
 * @property {1} version
 * @property {string} key
 * @property {string} url
 * @property {string} method
 * @property {[string, string][]} headers
 * @property {string | null} body base64
 * @property {RequestInit} init
 * @property {number} bornMs milliseconds since 1970
 * @property {boolean} maybe whether an attempt may have run; set before the first send
 * @property {{ atMs: number, status: number, headers: [string, string][], body: string } | null} answer
 */

/** @typedef {'vacant' | 'pending' | 'settled'} State */

/** The intent is pending with other bytes. Resume it, or forget it if a second operation is really wanted. */
export class IntentPending extends Error {
  /** @param {string} intent its name */
  constructor(intent) {
    super(`the intent ${JSON.stringify(intent)} is pending with another request: resume() or forget() it first`);
    this.name = 'IntentPending';
    this.intent = intent;
  }
}

const PREFIX = 'hapax:';
/** How long an answer is left to those who wait in other tabs, in milliseconds. */
const LEFT_OVER_MS = 600_000;
/** Fields that are not stored, because they are credentials: give them in `options.headers`. */
const NOT_STORED = ['authorization', 'proxy-authorization', 'cookie'];
/** @param {string} name */
const isCredential = (name) => NOT_STORED.includes(name.toLowerCase());
/** An answer larger than this, in bytes, is not kept for those who wait: they ask the server, which replays it. */
const MAX_ANSWER = 256 * 1024;
const DAY_MS = 86_400_000;

/**
 * The intent of this name. One name is one thing the user wants: `checkout:cart-42`, not `checkout`.
 * @param {string} name
 * @param {IntentOptions & import('./send.js').Options} [options]
 */
export function intent(name, options = {}) {
  return new Intent(name, options);
}

/** See {@link intent}. Made by it only. */
export class Intent {
  /** @param {string} name @param {IntentOptions & import('./send.js').Options} options */
  constructor(name, options) {
    this.name = name;
    this.options = options;
    this.storage = options.storage ?? SHARED;
    this.slot = `${PREFIX}${name}`;
    /** @type {[string, string][]} what the caller gave and is not stored */
    this.credentials = [];
  }

  /**
   * Sends the request once, or joins the send under way. Pending from an earlier call, page or tab with the same bytes: resumed
   * with its key. A request is the same when method, URL, content type and content are.
   *
   * Rejects with {@link OutcomeUnknown} (the intent stays), {@link IntentPending}, or the network's error when nothing ran.
   * @param {RequestInfo | URL} input
   * @param {RequestInit} [init] as of `fetch`
   * @returns {Promise<Response>} a final answer, or one to a request that ran nothing (401, 429 and the like: the key stays)
   */
  async send(input, init) {
    const calledMs = this.#nowMs();
    const request = await this.#fix(input, init);
    const response = await this.#alone(async () => {
      const kept = await this.#read();
      if (kept?.answer && isSame(kept, request) && this.#serves(kept.answer.atMs, calledMs)) {
        return answerOf(kept.answer) ?? this.#run(kept, init?.signal);
      }
      if (kept && !kept.answer) {
        const isFree = !kept.maybe && this.#isOld(kept);
        if (isSame(kept, request) && !isFree) return this.#run(kept, init?.signal);
        if (kept.maybe) throw new IntentPending(this.name);
      }
      return this.#run(await this.#begin(request), init?.signal);
    });
    void this.#sweep().catch(() => {});
    return response;
  }

  /**
   * Keeps the request without sending it: {@link Intent.resume} or an outbox does.
   * @param {RequestInfo | URL} input
   * @param {RequestInit} [init]
   * @returns {Promise<string>} the key
   */
  async prepare(input, init) {
    const request = await this.#fix(input, init);
    return this.#alone(async () => {
      const kept = await this.#read();
      if (kept && !kept.answer) {
        if (isSame(kept, request)) return kept.key;
        if (kept.maybe) throw new IntentPending(this.name);
      }
      return (await this.#begin(request)).key;
    });
  }

  /**
   * Sends what is pending again, with its key and its bytes.
   * @returns {Promise<Response | null>} null if nothing is pending
   */
  async resume() {
    const calledMs = this.#nowMs();
    return this.#alone(async () => {
      const kept = await this.#read();
      if (kept?.answer) return this.#serves(kept.answer.atMs, calledMs) ? answerOf(kept.answer) : null;
      return kept ? this.#run(kept) : null;
    });
  }

  /** `pending`: begun, and no final answer yet. @returns {Promise<State>} */
  async state() {
    const kept = await this.#read();
    if (!kept) return 'vacant';
    if (!kept.answer) return 'pending';
    return this.#serves(kept.answer.atMs, this.#nowMs()) ? 'settled' : 'vacant';
  }

  /** The pending key, or null. @returns {Promise<string | null>} */
  async key() {
    const kept = await this.#read();
    return kept && !kept.answer ? kept.key : null;
  }

  /** Forgets key and bytes. The next send is a new operation, and the earlier one may have run: the caller says that it may. */
  async forget() {
    return this.#alone(() => this.storage.remove(this.slot));
  }

  /** Forgets an answer that serves nobody any more; a pending intent stays. */
  async forgetSettled() {
    const nowMs = this.#nowMs();
    return this.#alone(async () => {
      const kept = await this.#read();
      if (kept?.answer && !this.#serves(kept.answer.atMs, nowMs)) await this.storage.remove(this.slot);
    });
  }

  /** Forgets what is left of other intents: nobody can be waiting for an answer of a while ago. */
  async #sweep() {
    for (const slot of await this.storage.names(PREFIX)) {
      const text = await this.storage.get(slot);
      const answer = text === null ? null : /** @type {Kept} */ (JSON.parse(text)).answer;
      if (!answer || this.#serves(answer.atMs + LEFT_OVER_MS, this.#nowMs())) continue;
      await new Intent(slot.slice(PREFIX.length), this.options).forgetSettled();
    }
  }

  /** @param {RequestInfo | URL} input @param {RequestInit} [init] */
  async #fix(input, init) {
    const request = await fix(input, init);
    this.credentials = request.headers.filter(([name]) => isCredential(name));
    return { ...request, headers: request.headers.filter(([name]) => !isCredential(name)) };
  }

  /**
   * @template T
   * @param {() => Promise<T>} work
   */
  #alone(work) {
    return alone(this.slot, work);
  }

  #nowMs() {
    return this.options.clock?.nowMs() ?? Date.now();
  }

  /** @param {Kept} kept */
  #isOld(kept) {
    return this.#nowMs() - kept.bornMs > (this.options.ttl ?? DAY_MS);
  }

  /** @param {number} answeredMs @param {number} calledMs */
  #serves(answeredMs, calledMs) {
    return calledMs <= answeredMs + (this.options.rememberMs ?? 0);
  }

  /** @returns {Promise<Kept | null>} */
  async #read() {
    const text = await this.storage.get(this.slot);
    if (text === null) return null;
    const kept = JSON.parse(text);
    if (kept.version !== 1) throw new Error(`the intent ${JSON.stringify(this.name)} was kept by another version of hapax-client`);
    return kept;
  }

  /** @param {import('./send.js').Fixed} request @returns {Promise<Kept>} */
  async #begin(request) {
    /** @type {Kept} */
    const kept = {
      version: 1,
      key: (this.options.newKey ?? (() => globalThis.crypto.randomUUID()))(),
      url: request.url,
      method: request.method,
      headers: request.headers,
      body: request.body && toBase64(request.body),
      init: request.init ?? {},
      bornMs: this.#nowMs(),
      maybe: true,
      answer: null,
    };
    await this.#write(kept);
    return kept;
  }

  /** @param {Kept} kept */
  async #write(kept) {
    await this.storage.set(this.slot, JSON.stringify(kept));
  }

  /** @param {Kept} kept @param {AbortSignal | null} [signal] @returns {Promise<Response>} */
  async #run(kept, signal) {
    const resume = async () => /** @type {Response} */ (await this.resume());
    if (this.#isOld(kept)) {
      // The server may have forgotten the key: to send it now could run it a second time.
      throw new OutcomeUnknown(kept.key, 'expired', 0, null, resume);
    }
    const request = {
      url: kept.url,
      method: kept.method,
      headers: /** @type {[string, string][]} */ ([...kept.headers, ...this.credentials]),
      body: kept.body === null ? null : fromBase64(kept.body),
      key: kept.key,
      init: kept.init,
    };
    if (!kept.maybe) await this.#write({ ...kept, maybe: true });
    try {
      const ended = await send(request, signal ? { ...this.options, signal } : this.options);
      if (ended.isFinal) {
        await this.options.record?.(ended.response.clone(), this.name);
        await this.#settle(kept, ended.response);
      } else await this.#write({ ...kept, maybe: false });
      return handOver(ended);
    } catch (error) {
      if (error instanceof OutcomeUnknown) error.resume = resume;
      throw error;
    }
  }

  /**
   * Leaves the answer to those who wait their turn: they called for the same thing before it was there.
   * @param {Kept} kept
   * @param {Response} response
   */
  async #settle(kept, response) {
    const isStream = (response.headers.get('content-type') ?? '').startsWith('text/event-stream');
    const bytes = isStream ? null : new Uint8Array(await response.clone().arrayBuffer());
    const isKept = bytes !== null && bytes.length <= MAX_ANSWER;
    const answer = {
      atMs: this.#nowMs(),
      status: isKept ? response.status : 0,
      headers: /** @type {[string, string][]} */ (isKept ? [...response.headers] : []),
      body: isKept ? toBase64(bytes) : '',
    };
    await this.#write({ ...kept, answer, maybe: false });
  }
}

const SHARED = memory();

/**
 * Fixes the bytes of a request.
 * @param {RequestInfo | URL} input
 * @param {RequestInit} [init]
 * @returns {Promise<import('./send.js').Fixed>}
 */
export async function fix(input, init) {
  const request = new Request(input, init);
  const body = new Uint8Array(await request.arrayBuffer());
  /** @type {Record<string, unknown>} */
  const how = {};
  for (const name of ['credentials', 'mode', 'redirect', 'cache', 'referrerPolicy', 'integrity']) {
    const value = /** @type {any} */ (request)[name];
    if (value !== undefined && value !== '' && value !== 'navigate') how[name] = value;
  }
  return {
    url: request.url,
    method: request.method,
    headers: /** @type {[string, string][]} */ ([...request.headers]),
    body: body.length > 0 ? body : null,
    key: null,
    init: how,
  };
}

/** @param {Kept} kept @param {import('./send.js').Fixed} request */
function isSame(kept, request) {
  /** @param {[string, string][]} headers */
  const type = (headers) => (new Headers(headers).get('content-type') ?? '').replace(/boundary=.*/, '');
  return (
    kept.method === request.method &&
    kept.url === request.url &&
    type(kept.headers) === type(request.headers) &&
    kept.body === (request.body && toBase64(request.body))
  );
}

/** @param {NonNullable<Kept['answer']>} answer @returns {Response | null} null if it was too large to keep */
function answerOf(answer) {
  if (answer.status === 0) return null;
  const hasNoBody = [204, 205, 304].includes(answer.status);
  return new Response(hasNoBody ? null : /** @type {BodyInit} */ (fromBase64(answer.body)), {
    status: answer.status,
    headers: answer.headers,
  });
}

/** @param {Uint8Array} bytes */
function toBase64(bytes) {
  let text = '';
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

/** @param {string} text */
function fromBase64(text) {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}

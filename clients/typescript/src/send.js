/**
 * The attempts of one request: sends, asks the policy, waits, sends again.
 * @module
 */

import { budgetOf } from './backoff.js';
import { judge, isProblem } from './policy.js';

/**
 * A request whose bytes are fixed, so that every attempt is the same.
 * @typedef {object} Fixed
 * @property {string} url absolute
 * @property {string} method in capitals
 * @property {[string, string][]} headers without the key
 * @property {Uint8Array | null} body
 * @property {string | null} key
 * @property {RequestInit} [init] how it is fetched (`credentials`, `mode`, …), no content
 */

/**
 * What the attempts are made with. Everything has a default.
 * @typedef {object} Options
 * @property {typeof globalThis.fetch} [fetch] what sends one attempt; the platform's
 * @property {string} [header] the field that carries the key; `Idempotency-Key`
 * @property {number} [attempts] how often it is sent at most; 3
 * @property {number} [attemptMs] time for one attempt, answer included, in milliseconds; 30,000
 * @property {number} [deadlineMs] time for all attempts and waits, in milliseconds; 90,000
 * @property {AbortSignal} [signal] ends it from outside: rejects with the signal's reason; a kept intent stays
 * @property {() => HeadersInit | Promise<HeadersInit>} [headers] asked before every attempt for fields that differ or must
 *   not be stored: credentials, trace ids
 * @property {import('./backoff.js').Budget} [budget] instead of the host's
 * @property {(event: AttemptEvent) => void} [onAttempt] told of every attempt after it was judged; must not throw
 * @property {Clock} [clock] for tests
 * @property {() => number} [random] for tests; in [0, 1)
 */

/**
 * @typedef {object} AttemptEvent
 * @property {number} attempt from 1
 * @property {import('./policy.js').Outcome} outcome
 * @property {import('./policy.js').Decision} decision
 */

/** @typedef {{ nowMs: () => number, sleep: (ms: number, signal?: AbortSignal) => Promise<void> }} Clock */

/**
 * How it ended: with an answer that settles the intent (`isFinal`), or, when nothing ran, with an answer or an error.
 * @typedef {{ response: Response, isFinal: boolean } | { response: null, isFinal: false, error: unknown }} Ended
 */

/** Nobody can know yet whether the operation ran. Resume it with the same key; never start it anew by itself. */
export class OutcomeUnknown extends Error {
  /**
   * @param {string | null} key the key that every attempt carried
   * @param {import('./policy.js').Why | 'expired'} why
   * @param {number} attempts how many were made
   * @param {Response | null} response the last answer, if one came
   * @param {() => Promise<Response>} resume sends the same bytes with the same key again
   * @param {unknown} [cause] the last error, if one came
   */
  constructor(key, why, attempts, response, resume, cause) {
    super(`whether the operation ran is unknown (${why}, after ${attempts} attempts)`, { cause });
    this.name = 'OutcomeUnknown';
    this.key = key;
    this.why = why;
    this.attempts = attempts;
    this.response = response;
    this.resume = resume;
  }
}

/** @type {Clock} */
const CLOCK = {
  nowMs: () => Date.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(done, ms);
      function done() {
        signal?.removeEventListener('abort', cancel);
        resolve();
      }
      function cancel() {
        clearTimeout(timer);
        reject(signal?.reason);
      }
      if (signal?.aborted) cancel();
      else signal?.addEventListener('abort', cancel, { once: true });
    }),
};

/**
 * What a caller of `fetch` expects of an end.
 * @param {Ended} ended
 * @returns {Response}
 */
export function handOver(ended) {
  if (ended.response === null) throw ended.error;
  return ended.response;
}

/**
 * Sends until it has ended. Throws {@link OutcomeUnknown} and, when `options.signal` fires, its reason; nothing else.
 * @param {Fixed} request
 * @param {Options} options
 * @returns {Promise<Ended>}
 */
export async function send(request, options) {
  const clock = options.clock ?? CLOCK;
  const random = options.random ?? Math.random;
  const budget = options.budget ?? budgetOf(new URL(request.url).host);
  const deadlineMs = options.deadlineMs ?? 90_000;
  const begun = clock.nowMs();
  let maybe = false;
  let paid = 0;
  for (let attempt = 1; ; attempt += 1) {
    const leftMs = deadlineMs - (clock.nowMs() - begun);
    const timeMs = Math.max(1, Math.min(options.attemptMs ?? 30_000, leftMs));
    const came = await once(request, options, timeMs);
    const decision = judge(came.outcome, {
      method: request.method,
      keyed: request.key !== null,
      attempt,
      attempts: options.attempts ?? 3,
      maybe,
      tokens: budget.tokens,
      elapsedMs: clock.nowMs() - begun,
      deadlineMs,
      nowMs: clock.nowMs(),
      random: random(),
    });
    options.onAttempt?.({ attempt, outcome: came.outcome, decision });
    switch (decision.do) {
      case 'retry':
        budget.take(decision.cost);
        ({ maybe } = decision);
        paid = decision.cost;
        await clock.sleep(decision.afterMs, options.signal);
        break;
      case 'final':
        budget.success(paid);
        return { response: /** @type {Response} */ (came.response), isFinal: true };
      case 'give_up':
        if (came.response) return { response: came.response, isFinal: false };
        return { response: null, isFinal: false, error: came.error };
      case 'unknown': {
        const resume = () => send(request, options).then(handOver);
        throw new OutcomeUnknown(request.key, decision.why, attempt, came.response, resume, came.error);
      }
    }
  }
}

/**
 * @typedef {{ outcome: import('./policy.js').Outcome, response: Response | null, error?: unknown }} Came
 */

/**
 * One attempt, and its answer in full: an answer that breaks off later would be taken for a final one.
 * @param {Fixed} request
 * @param {Options} options
 * @param {number} timeMs
 * @returns {Promise<Came>}
 */
async function once(request, options, timeMs) {
  options.signal?.throwIfAborted();
  const headers = new Headers(request.headers);
  try {
    for (const [name, value] of new Headers(await options.headers?.())) headers.set(name, value);
  } catch (error) {
    return { outcome: { failure: 'connect' }, response: null, error };
  }
  if (request.key !== null) headers.set(options.header ?? 'Idempotency-Key', request.key);
  options.signal?.throwIfAborted();
  const control = new AbortController();
  const cancel = () => control.abort(options.signal?.reason);
  options.signal?.addEventListener('abort', cancel, { once: true });
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    control.abort(new DOMException('the attempt took too long', 'TimeoutError'));
  }, timeMs);
  let hasAnswer = false;
  try {
    const response = await (options.fetch ?? globalThis.fetch)(request.url, {
      ...request.init,
      method: request.method,
      headers,
      body: /** @type {BodyInit | null} */ (request.body),
      signal: control.signal,
    });
    hasAnswer = true;
    const came = await whole(response, request);
    // An answer that is not read here is still the caller's to break off.
    if (came.response !== response) options.signal?.removeEventListener('abort', cancel);
    return came;
  } catch (error) {
    options.signal?.throwIfAborted();
    // Whatever a fetch throws, the request may have left: only a failure to connect is known to be harmless.
    const failure = isLate ? 'timeout' : hasAnswer ? 'cut' : isConnectError(error) ? 'connect' : 'reset';
    return { outcome: { failure }, response: null, error };
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Reads the answer in full, but for streams and for requests that have no effect to settle.
 * @param {Response} response
 * @param {Fixed} request
 * @returns {Promise<Came>}
 */
async function whole(response, request) {
  /** @param {string} body @returns {import('./policy.js').Outcome} */
  const outcome = (body) => ({ status: response.status, field: (name) => response.headers.get(name), body });
  const type = response.headers.get('content-type');
  const isStream = (type ?? '').startsWith('text/event-stream');
  if ((request.key === null && !isProblem(type)) || isStream || response.type === 'opaque') {
    return { outcome: outcome(''), response };
  }
  const bytes = await response.arrayBuffer();
  const copy = new Response(hasNoBody(response.status) ? null : bytes, {
    status: response.status,
    statusText: response.statusText,
    headers: response.headers,
  });
  Object.defineProperty(copy, 'url', { value: response.url });
  Object.defineProperty(copy, 'redirected', { value: response.redirected });
  return { outcome: outcome(isProblem(type) ? new TextDecoder().decode(bytes) : ''), response: copy };
}

/** @param {number} status */
const hasNoBody = (status) => status === 204 || status === 205 || status === 304;

/** Codes of Node, Deno and Bun that say that no connection was made. Browsers do not tell. */
const CONNECT_CODES = ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'UND_ERR_CONNECT_TIMEOUT', 'ConnectionRefused'];

/** @param {unknown} error */
const isConnectError = (error) => CONNECT_CODES.includes(codeOf(error));

/** @param {unknown} error @returns {string} */
function codeOf(error) {
  const { code, cause } = /** @type {{ code?: unknown, cause?: unknown }} */ (error ?? {});
  if (typeof code === 'string') return code;
  return cause ? codeOf(cause) : '';
}

// hapax-client: made from src/ by build.mjs. MIT OR Apache-2.0.
/**
 * How long to wait, and what a retry may cost (P43). Pure but for the budgets, which are counters.
 * @module
 */

const BASE_MS = 50;
const BASE_THROTTLED_MS = 1000;
const CAP_MS = 20_000;
/** Tokens of a host's full budget. */
const BUDGET = 500;

/**
 * Full jitter: a part of `min(20 s, base · 2ⁿ)`, in whole milliseconds.
 * @param {number} n how many retries were made before this one
 * @param {boolean} throttled base of 1 s instead of 50 ms
 * @param {number} random in [0, 1)
 */
function backoff(n, throttled, random) {
  const base = throttled ? BASE_THROTTLED_MS : BASE_MS;
  return Math.floor(random * Math.min(CAP_MS, base * 2 ** n));
}

/** The one date format that senders may generate (RFC 9110, section 5.6.7). */
const IMF_DATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/;

/**
 * What the server asks to wait, in milliseconds: the field, else the member of the problem, else 0.
 * @param {string | null} field `Retry-After`
 * @param {number | null} member `retry_after` of the problem, in milliseconds
 * @param {number} nowMs the wall clock, in milliseconds since 1970
 */
function retryAfter(field, member, nowMs) {
  if (field !== null && /^\d+$/.test(field)) return Number(field) * 1000;
  if (field !== null && IMF_DATE.test(field)) {
    const at = Date.parse(field);
    if (!Number.isNaN(at)) return Math.max(0, at - nowMs);
  }
  return member ?? 0;
}

/** Tokens for the retries towards one host. When a server is down, they run out, and with them the extra load. */
class Budget {
  /** What is left. */
  tokens = BUDGET;

  /**
   * Takes the cost of a retry, or nothing if too little is left.
   * @param {number} cost in tokens
   * @returns {boolean} whether it was there
   */
  take(cost) {
    if (this.tokens < cost) return false;
    this.tokens -= cost;
    return true;
  }

  /**
   * A final answer came: gives back what its last retry took, or one token.
   * @param {number} cost in tokens; 0 without a retry
   */
  success(cost) {
    this.tokens = Math.min(BUDGET, this.tokens + (cost || 1));
  }
}

/** @type {Map<string, Budget>} */
const budgets = new Map();
/** Hosts remembered; beyond, the one that was asked for longest ago starts anew. */
const MAX_HOSTS = 1000;

/**
 * The budget of a host; one for the whole page or process.
 * @param {string} host name and port
 */
function budgetOf(host) {
  const budget = budgets.get(host) ?? new Budget();
  budgets.delete(host);
  budgets.set(host, budget);
  if (budgets.size > MAX_HOSTS) budgets.delete(/** @type {string} */ (budgets.keys().next().value));
  return budget;
}

/**
 * What is sent again, and what an answer means for the intent (P42, P44). Pure: no clock, no randomness, no I/O.
 * The rules stand in clients/README.md; clients/vectors.json has their cases.
 * @module
 */


/**
 * How an attempt failed without an answer. `connect`: nothing was sent. `reset`, `timeout`, `cut` (the answer
 * broke off): it may have run.
 * @typedef {'connect' | 'reset' | 'timeout' | 'cut'} Failure
 */

/**
 * What came back from an attempt.
 * @typedef {{ failure: Failure } | { status: number, field: (name: string) => string | null, body: string }} Outcome
 */

/**
 * What an attempt is judged by.
 * @typedef {object} Attempt
 * @property {string} method the request's method, in capitals
 * @property {boolean} keyed whether the request carries a key
 * @property {number} attempt how many attempts were made, this one included
 * @property {number} attempts how many may be made
 * @property {boolean} maybe whether an earlier attempt may have run
 * @property {number} tokens what is left of the host's budget
 * @property {number} elapsedMs time since the first attempt began, in milliseconds
 * @property {number} deadlineMs time for everything, in milliseconds
 * @property {number} nowMs the wall clock, in milliseconds since 1970
 * @property {number} random a number in [0, 1)
 */

/**
 * What to do. `maybe` says whether an attempt may have run.
 * @typedef {{ do: 'final' }
 *   | { do: 'retry', afterMs: number, cost: number, maybe: boolean }
 *   | { do: 'unknown', why: Why }
 *   | { do: 'give_up', why: Why }} Decision
 */

/**
 * Why nothing is sent again: the `answer` forbids it, `attempts`, `deadline` or `budget` are used up, or there is `no_key`.
 * @typedef {'answer' | 'attempts' | 'deadline' | 'budget' | 'no_key'} Why
 */

/** @typedef {{ kind: 'final' | 'stop' | 'again', maybe: boolean, throttled: boolean, afterMs: number }} Meaning */

/** Methods whose repetition is harmless by definition (RFC 9110, section 9.2.2). */
const IDEMPOTENT = ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'];
const SAFE = ['GET', 'HEAD', 'OPTIONS', 'TRACE'];

/** Answers that give the key back unused (P25) and are not sent again. */
const RELEASED = [301, 302, 307, 308, 401, 403, 407, 409, 421, 423, 426];

/** Problems that say that nothing was executed. */
const NOTHING_RAN = ['store-unavailable', 'overloaded', 'request-timeout', 'upstream-unreachable'];

/** Cost of a retry in tokens (P43). */
const COST = 14;
const COST_THROTTLED = 5;

/**
 * Decides what follows from what came back.
 * @param {Outcome} outcome
 * @param {Attempt} attempt
 * @returns {Decision}
 */
function judge(outcome, attempt) {
  const meaning = 'failure' in outcome ? ofFailure(outcome.failure) : ofAnswer(outcome, attempt.nowMs);
  if (meaning.kind === 'final') return { do: 'final' };
  if (!attempt.keyed && !IDEMPOTENT.includes(attempt.method)) return { do: 'give_up', why: 'no_key' };
  const maybe = !SAFE.includes(attempt.method) && (attempt.maybe || meaning.maybe);
  /** @param {Why} why @returns {Decision} */
  const end = (why) => ({ do: maybe ? 'unknown' : 'give_up', why });
  if (meaning.kind === 'stop') return end('answer');
  if (attempt.attempt >= attempt.attempts) return end('attempts');
  const afterMs = meaning.afterMs + backoff(attempt.attempt - 1, meaning.throttled, attempt.random);
  if (attempt.elapsedMs + afterMs >= attempt.deadlineMs) return end('deadline');
  const cost = meaning.throttled ? COST_THROTTLED : COST;
  if (attempt.tokens < cost) return end('budget');
  return { do: 'retry', afterMs, cost, maybe };
}

/** @param {Failure} failure @returns {Meaning} */
function ofFailure(failure) {
  return { kind: 'again', maybe: failure !== 'connect', throttled: false, afterMs: 0 };
}

/** @type {Meaning} */
const FINAL = { kind: 'final', maybe: false, throttled: false, afterMs: 0 };
/** @param {boolean} maybe @returns {Meaning} */
const stop = (maybe) => ({ kind: 'stop', maybe, throttled: false, afterMs: 0 });

/**
 * @param {Extract<Outcome, { status: number }>} answer
 * @param {number} nowMs
 * @returns {Meaning}
 */
function ofAnswer(answer, nowMs) {
  const { status } = answer;
  if (status >= 200 && status < 300) return FINAL;
  if (answer.field('idempotent-replayed') === 'true') {
    const isDeclared = answer.field('idempotency-status') === 'replayed';
    return status >= 500 && !isDeclared ? stop(true) : FINAL;
  }
  const problem = readProblem(answer);
  if (problem.kind === 'outcome-unknown' || problem.kind === 'key-expired') return stop(true);
  if (problem.kind === 'response-unavailable') return FINAL;
  const ranNot = NOTHING_RAN.includes(problem.kind);
  const isAgain = [408, 425, 429, 500, 502, 503, 504].includes(status) || isInProgress(status, problem);
  if (problem.retryable === false && status >= 500) return stop(!ranNot);
  if (problem.retryable === false && isAgain) return stop(false);
  if (isAgain) {
    const maybe = status !== 425 && status !== 429 && !ranNot;
    const afterMs = retryAfter(answer.field('retry-after'), problem.retryAfterMs, nowMs);
    return { kind: 'again', maybe, throttled: status === 429 || status === 503, afterMs };
  }
  if (RELEASED.includes(status)) return stop(false);
  return status >= 500 ? stop(true) : FINAL;
}

/** @param {number} status @param {Problem} problem */
function isInProgress(status, problem) {
  return status === 409 && (problem.kind === 'in-progress' || problem.retryable === true);
}

/**
 * The members of a problem (RFC 9457) that a client acts on.
 * @typedef {{ kind: string, retryable: boolean | null, retryAfterMs: number | null }} Problem
 */

/** @param {Extract<Outcome, { status: number }>} answer @returns {Problem} */
function readProblem(answer) {
  /** @type {Problem} */
  const none = { kind: '', retryable: null, retryAfterMs: null };
  if (!isProblem(answer.field('content-type'))) return none;
  let body;
  try {
    body = JSON.parse(answer.body);
  } catch {
    return none;
  }
  if (body === null || typeof body !== 'object' || Array.isArray(body)) return none;
  const type = typeof body.type === 'string' ? body.type : '';
  const after = body.retry_after;
  return {
    kind: type.slice(Math.max(type.lastIndexOf('#'), type.lastIndexOf('/')) + 1),
    retryable: typeof body.retryable === 'boolean' ? body.retryable : null,
    retryAfterMs: typeof after === 'number' && after >= 0 ? Math.floor(after * 1000) : null,
  };
}

/**
 * Whether a content type is `application/problem+json`; only then does {@link judge} look at the body.
 * @param {string | null} contentType
 */
function isProblem(contentType) {
  return (contentType ?? '').split(';')[0].trim().toLowerCase() === 'application/problem+json';
}

/**
 * The attempts of one request: sends, asks the policy, waits, sends again.
 * @module
 */


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
class OutcomeUnknown extends Error {
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
function handOver(ended) {
  if (ended.response === null) throw ended.error;
  return ended.response;
}

/**
 * Sends until it has ended. Throws {@link OutcomeUnknown} and, when `options.signal` fires, its reason; nothing else.
 * @param {Fixed} request
 * @param {Options} options
 * @returns {Promise<Ended>}
 */
async function send(request, options) {
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

/**
 * Where intents are kept. A storage is four functions over text; what is kept is one JSON text a name.
 * @module
 */

/**
 * @typedef {object} IntentStorage
 * @property {(name: string) => Promise<string | null>} get
 * @property {(name: string, text: string) => Promise<void>} set kept when it resolves, as safely as the platform can
 * @property {(name: string) => Promise<void>} remove
 * @property {(prefix: string) => Promise<string[]>} names names that begin with `prefix`
 */

/** Kept until the page or the process ends: retries only. @returns {IntentStorage} */
function memory() {
  /** @type {Map<string, string>} */
  const kept = new Map();
  return {
    get: async (name) => kept.get(name) ?? null,
    set: async (name, text) => void kept.set(name, text),
    remove: async (name) => void kept.delete(name),
    names: async (prefix) => [...kept.keys()].filter((name) => name.startsWith(prefix)),
  };
}

/** Kept over reloads of one tab (`sessionStorage`). @returns {IntentStorage} */
const session = () => web(() => globalThis.sessionStorage);

/** Kept over reloads and restarts, shared by all tabs (`localStorage`). @returns {IntentStorage} */
const local = () => web(() => globalThis.localStorage);

/** @param {() => globalThis.Storage} area asked each time: reading it throws where storage is forbidden @returns {IntentStorage} */
function web(area) {
  return {
    get: async (name) => area().getItem(name),
    set: async (name, text) => area().setItem(name, text),
    remove: async (name) => area().removeItem(name),
    names: async (prefix) => Object.keys(area()).filter((name) => name.startsWith(prefix)),
  };
}

/**
 * Kept over restarts, shared by all tabs, for more than a few kilobytes. Writes are flushed before they resolve where
 * the browser can (`durability: "strict"`).
 * @param {string} [database] its name
 * @returns {IntentStorage}
 */
function indexedDb(database = 'hapax') {
  const TABLE = 'intents';
  /** @type {Promise<IDBDatabase> | null} */
  let opened = null;
  const open = () => {
    opened ??= new Promise((resolve, reject) => {
      const request = globalThis.indexedDB.open(database, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(TABLE);
      request.onsuccess = () => {
        // Another tab wants to delete or change the database: let it, and open anew next time.
        request.result.onversionchange = () => {
          request.result.close();
          opened = null;
        };
        resolve(request.result);
      };
      request.onerror = () => {
        opened = null;
        reject(request.error);
      };
    });
    return opened;
  };
  /**
   * @template T
   * @param {IDBTransactionMode} mode
   * @param {(table: IDBObjectStore) => IDBRequest<T>} run
   * @returns {Promise<T>}
   */
  const run = async (mode, run) => {
    const base = await open();
    return new Promise((resolve, reject) => {
      const change = base.transaction(TABLE, mode, { durability: 'strict' });
      const request = run(change.objectStore(TABLE));
      change.oncomplete = () => resolve(request.result);
      change.onabort = () => reject(change.error);
    });
  };
  return {
    get: async (name) => (await run('readonly', (table) => table.get(name))) ?? null,
    set: async (name, text) => void (await run('readwrite', (table) => table.put(text, name))),
    remove: async (name) => void (await run('readwrite', (table) => table.delete(name))),
    names: async (prefix) =>
      /** @type {string[]} */ (await run('readonly', (table) => table.getAllKeys(IDBKeyRange.bound(prefix, `${prefix}\uffff`)))),
  };
}

/** @type {Map<string, Promise<unknown>>} */
const queues = new Map();

/**
 * Runs `work` while nobody else runs under `name`: in any tab where there are Web Locks, else in this page or process.
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
async function alone(name, work) {
  const locks = globalThis.navigator?.locks;
  if (locks) return /** @type {Promise<T>} */ (locks.request(name, work));
  const before = queues.get(name) ?? Promise.resolve();
  const turn = before.then(work, work);
  const settled = turn.then(
    () => {},
    () => {},
  );
  queues.set(name, settled);
  await settled;
  if (queues.get(name) === settled) queues.delete(name);
  return turn;
}

/**
 * An intent: something the user wants once. Its key and bytes are kept before the first send and forgotten only
 * after a final answer (P41), whatever happens to the network, the tab or the machine in between.
 * @module
 */


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
class IntentPending extends Error {
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
function intent(name, options = {}) {
  return new Intent(name, options);
}

/** See {@link intent}. Made by it only. */
class Intent {
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
async function fix(input, init) {
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

/**
 * A `fetch` that retries safely, for everything that takes a fetch: ky, axios, generated API clients.
 * @module
 */


/**
 * @typedef {object} FetchOptions
 * @property {'given' | 'each'} [keys] `given`: only requests that carry a key are retried. `each` (the default): a POST or
 *   PATCH without one gets a key of its own, held over the retries of that call
 */

/**
 * Makes a function like `fetch`. Its answers to keyed requests are whole: they are read before they are returned.
 * Rejects with `OutcomeUnknown` where nobody can know whether the operation ran.
 * @param {FetchOptions & import('./send.js').Options} [options]
 * @returns {typeof globalThis.fetch}
 */
function safeFetch(options = {}) {
  const header = options.header ?? 'Idempotency-Key';
  return async (input, init) => {
    const request = await fix(input, init);
    const given = new Headers(request.headers).get(header);
    const isKeyed = ['POST', 'PATCH'].includes(request.method) && (options.keys ?? 'each') === 'each';
    const key = given ?? (isKeyed ? globalThis.crypto.randomUUID() : null);
    const headers = request.headers.filter(([name]) => name.toLowerCase() !== header.toLowerCase());
    const signal = init?.signal ?? (input instanceof Request ? input.signal : undefined) ?? options.signal;
    return handOver(await send({ ...request, headers, key }, { ...options, signal }));
  };
}

/**
 * An outbox: requests that are sent when there is a network, however often the page is closed in between.
 * @module
 */


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
function outbox(name, options = {}) {
  return new Outbox(name, options);
}

/** See {@link outbox}. Made by it only. */
class Outbox {
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

export { intent, Intent, IntentPending, outbox, Outbox, safeFetch, OutcomeUnknown, memory, session, local, indexedDb, judge, backoff, retryAfter, Budget };

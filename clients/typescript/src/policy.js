/**
 * What is sent again, and what an answer means for the intent (P42, P44). Pure: no clock, no randomness, no I/O.
 * The rules stand in clients/README.md; clients/vectors.json has their cases.
 * @module
 */

import { backoff, retryAfter } from './backoff.js';

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
export function judge(outcome, attempt) {
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
export function isProblem(contentType) {
  return (contentType ?? '').split(';')[0].trim().toLowerCase() === 'application/problem+json';
}

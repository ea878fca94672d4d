/**
 * The attempts of one request: sends, asks the policy, waits, sends again.
 * @module
 */
export type Fixed = {
    /**
     * absolute
     */
    url: string;
    /**
     * in capitals
     */
    method: string;
    /**
     * without the key
     */
    headers: [string, string][];
    body: Uint8Array | null;
    key: string | null;
    /**
     * how it is fetched (`credentials`, `mode`, …), no content
     */
    init?: RequestInit;
};
export type Options = {
    /**
     * what sends one attempt; the platform's
     */
    fetch?: typeof globalThis.fetch;
    /**
     * the field that carries the key; `Idempotency-Key`
     */
    header?: string;
    /**
     * how often it is sent at most; 3
     */
    attempts?: number;
    /**
     * time for one attempt, answer included, in milliseconds; 30,000
     */
    attemptMs?: number;
    /**
     * time for all attempts and waits, in milliseconds; 90,000
     */
    deadlineMs?: number;
    /**
     * ends it from outside: rejects with the signal's reason; a kept intent stays
     */
    signal?: AbortSignal;
    /**
     * asked before every attempt for fields that differ or must
     * not be stored: credentials, trace ids
     */
    headers?: () => HeadersInit | Promise<HeadersInit>;
    /**
     * instead of the host's
     */
    budget?: import('./backoff.js').Budget;
    /**
     * told of every attempt after it was judged; must not throw
     */
    onAttempt?: (event: AttemptEvent) => void;
    /**
     * for tests
     */
    clock?: Clock;
    /**
     * for tests; in [0, 1)
     */
    random?: () => number;
};
export type AttemptEvent = {
    /**
     * from 1
     */
    attempt: number;
    outcome: import('./policy.js').Outcome;
    decision: import('./policy.js').Decision;
};
export type Clock = {
    nowMs: () => number;
    sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
};
export type Ended = {
    response: Response;
    isFinal: boolean;
} | {
    response: null;
    isFinal: false;
    error: unknown;
};
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
export declare class OutcomeUnknown extends Error {
    key: string | null;
    why: "expired" | import("./policy.js").Why;
    attempts: number;
    response: Response | null;
    resume: () => Promise<Response>;
    /**
     * @param {string | null} key the key that every attempt carried
     * @param {import('./policy.js').Why | 'expired'} why
     * @param {number} attempts how many were made
     * @param {Response | null} response the last answer, if one came
     * @param {() => Promise<Response>} resume sends the same bytes with the same key again
     * @param {unknown} [cause] the last error, if one came
     */
    constructor(key: string | null, why: import('./policy.js').Why | 'expired', attempts: number, response: Response | null, resume: () => Promise<Response>, cause?: unknown);
}
/**
 * What a caller of `fetch` expects of an end.
 * @param {Ended} ended
 * @returns {Response}
 */
export declare function handOver(ended: Ended): Response;
/**
 * Sends until it has ended. Throws {@link OutcomeUnknown} and, when `options.signal` fires, its reason; nothing else.
 * @param {Fixed} request
 * @param {Options} options
 * @returns {Promise<Ended>}
 */
export declare function send(request: Fixed, options: Options): Promise<Ended>;
export type Came = {
    outcome: import('./policy.js').Outcome;
    response: Response | null;
    error?: unknown;
};

/**
 * A `fetch` that retries safely, for everything that takes a fetch: ky, axios, generated API clients.
 * @module
 */
export type FetchOptions = {
    /**
     * `given`: only requests that carry a key are retried. `each` (the default): a POST or
     * PATCH without one gets a key of its own, held over the retries of that call
     */
    keys?: 'given' | 'each';
};
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
export declare function safeFetch(options?: FetchOptions & import('./send.js').Options): typeof globalThis.fetch;

/**
 * A `fetch` that retries safely, for everything that takes a fetch: ky, axios, generated API clients.
 * @module
 */

import { fix } from './intent.js';
import { handOver, send } from './send.js';

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
export function safeFetch(options = {}) {
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

/**
 * hapax-client: one key per intent, held over retries, reloads and restarts.
 * @module
 */
export { intent, Intent, IntentPending } from './intent.js';
export { outbox, Outbox } from './outbox.js';
export { safeFetch } from './fetch.js';
export { OutcomeUnknown } from './send.js';
export { memory, session, local, indexedDb } from './storage.js';
export { judge } from './policy.js';
export { backoff, retryAfter, Budget } from './backoff.js';

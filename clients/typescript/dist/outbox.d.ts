/**
 * An outbox: requests that are sent when there is a network, however often the page is closed in between.
 * @module
 */
import { OutcomeUnknown } from './send.js';
export type OutboxOptions = {
    /**
     * IndexedDB
     */
    storage?: import('./storage.js').IntentStorage;
    /**
     * how long a key is good, in milliseconds; 24 h; no longer than the server keeps its records
     */
    ttl?: number;
    /**
     * how long after a failed round the next begins, in milliseconds, give or take a half; 30,000
     */
    retryMs?: number;
    /**
     * a final answer came and the entry is gone. Also for answers that
     * say that nothing ran (401, 429 and the like); then it stays
     */
    onAnswer?: (entry: string, response: Response) => void;
    /**
     * as of an intent, with the entry's name
     */
    record?: (response: Response, entry: string) => void | Promise<void>;
    /**
     * nobody can know yet; the entry stays
     */
    onUnknown?: (entry: string, error: OutcomeUnknown) => void;
};
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
export declare function outbox(name: string, options?: OutboxOptions & import('./send.js').Options): Outbox;
/** See {@link outbox}. Made by it only. */
export declare class Outbox {
    #private;
    name: string;
    options: {
        fetch?: typeof globalThis.fetch;
        header?: string;
        attempts?: number;
        attemptMs?: number;
        deadlineMs?: number;
        signal?: AbortSignal;
        headers?: () => HeadersInit | Promise<HeadersInit>;
        budget?: import('./backoff.js').Budget;
        onAttempt?: (event: import("./send.js").AttemptEvent) => void;
        clock?: import("./send.js").Clock;
        random?: () => number;
        ttl?: number;
        retryMs?: number;
        onAnswer?: (entry: string, response: Response) => void;
        record?: (response: Response, entry: string) => void | Promise<void>;
        onUnknown?: (entry: string, error: OutcomeUnknown) => void;
        storage: import("./storage.js").IntentStorage;
    };
    /** @param {string} name @param {OutboxOptions & import('./send.js').Options} options */
    constructor(name: string, options: OutboxOptions & import('./send.js').Options);
    /**
     * Keeps a request; it is in the storage when this resolves, and sent as soon as can be.
     * @param {string} entry what it is for, such as the cart's id: the same entry is kept once
     * @param {RequestInfo | URL} input
     * @param {RequestInit} [init] as of `fetch`; credentials are not stored: give them in `options.headers`
     * @returns {Promise<string>} the key
     */
    add(entry: string, input: RequestInfo | URL, init?: RequestInit): Promise<string>;
    /** What is not settled yet. @returns {Promise<string[]>} */
    entries(): Promise<string[]>;
    /**
     * Sends what is left, one after the other.
     * @returns {Promise<number>} how many are left
     */
    drain(): Promise<number>;
    /** Gives an entry up: see `Intent.forget`. @param {string} entry */
    forget(entry: string): Promise<void>;
    /** Stops draining. What is kept stays. */
    close(): void;
}

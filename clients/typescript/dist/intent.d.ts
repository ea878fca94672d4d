/**
 * An intent: something the user wants once. Its key and bytes are kept before the first send and forgotten only
 * after a final answer (P41), whatever happens to the network, the tab or the machine in between.
 * @module
 */
export type IntentOptions = {
    /**
     * where it is kept; in memory
     */
    storage?: import('./storage.js').IntentStorage;
    /**
     * how long its key is good, in milliseconds; 24 h. No longer than the server keeps its records: after
     * that a repeat would run again
     */
    ttl?: number;
    /**
     * how long a final answer also serves later calls of `send` with the same name, in milliseconds; 0:
     * only calls that began before the answer was there
     */
    rememberMs?: number;
    /**
     * a random UUID
     */
    newKey?: () => string;
    /**
     * awaited with a final answer before the key is
     * forgotten: keep here what you must not lose. If it rejects, or the page or process dies, the intent stays pending, and the
     * next send gets the same answer
     */
    record?: (response: Response, name: string) => void | Promise<void>;
};
export type Kept = {
    version: 1;
    key: string;
    url: string;
    method: string;
    headers: [string, string][];
    /**
     * base64
     */
    body: string | null;
    init: RequestInit;
    /**
     * milliseconds since 1970
     */
    bornMs: number;
    /**
     * whether an attempt may have run; set before the first send
     */
    maybe: boolean;
    answer: {
        atMs: number;
        status: number;
        headers: [string, string][];
        body: string;
    } | null;
};
export type State = 'vacant' | 'pending' | 'settled';
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
export declare class IntentPending extends Error {
    intent: string;
    /** @param {string} intent its name */
    constructor(intent: string);
}
/**
 * The intent of this name. One name is one thing the user wants: `checkout:cart-42`, not `checkout`.
 * @param {string} name
 * @param {IntentOptions & import('./send.js').Options} [options]
 */
export declare function intent(name: string, options?: IntentOptions & import('./send.js').Options): Intent;
/** See {@link intent}. Made by it only. */
export declare class Intent {
    #private;
    name: string;
    options: IntentOptions & import("./send.js").Options;
    storage: import("./storage.js").IntentStorage;
    slot: string;
    /** @type {[string, string][]} what the caller gave and is not stored */
    credentials: [string, string][];
    /** @param {string} name @param {IntentOptions & import('./send.js').Options} options */
    constructor(name: string, options: IntentOptions & import('./send.js').Options);
    /**
     * Sends the request once, or joins the send under way. Pending from an earlier call, page or tab with the same bytes: resumed
     * with its key. A request is the same when method, URL, content type and content are.
     *
     * Rejects with {@link OutcomeUnknown} (the intent stays), {@link IntentPending}, or the network's error when nothing ran.
     * @param {RequestInfo | URL} input
     * @param {RequestInit} [init] as of `fetch`
     * @returns {Promise<Response>} a final answer, or one to a request that ran nothing (401, 429 and the like: the key stays)
     */
    send(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
    /**
     * Keeps the request without sending it: {@link Intent.resume} or an outbox does.
     * @param {RequestInfo | URL} input
     * @param {RequestInit} [init]
     * @returns {Promise<string>} the key
     */
    prepare(input: RequestInfo | URL, init?: RequestInit): Promise<string>;
    /**
     * Sends what is pending again, with its key and its bytes.
     * @returns {Promise<Response | null>} null if nothing is pending
     */
    resume(): Promise<Response | null>;
    /** `pending`: begun, and no final answer yet. @returns {Promise<State>} */
    state(): Promise<State>;
    /** The pending key, or null. @returns {Promise<string | null>} */
    key(): Promise<string | null>;
    /** Forgets key and bytes. The next send is a new operation, and the earlier one may have run: the caller says that it may. */
    forget(): Promise<void>;
    /** Forgets an answer that serves nobody any more; a pending intent stays. */
    forgetSettled(): Promise<void>;
}
/**
 * Fixes the bytes of a request.
 * @param {RequestInfo | URL} input
 * @param {RequestInit} [init]
 * @returns {Promise<import('./send.js').Fixed>}
 */
export declare function fix(input: RequestInfo | URL, init?: RequestInit): Promise<import('./send.js').Fixed>;

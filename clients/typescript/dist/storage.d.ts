/**
 * Where intents are kept. A storage is four functions over text; what is kept is one JSON text a name.
 * @module
 */
export type IntentStorage = {
    get: (name: string) => Promise<string | null>;
    /**
     * kept when it resolves, as safely as the platform can
     */
    set: (name: string, text: string) => Promise<void>;
    remove: (name: string) => Promise<void>;
    /**
     * names that begin with `prefix`
     */
    names: (prefix: string) => Promise<string[]>;
};
/**
 * @typedef {object} IntentStorage
 * @property {(name: string) => Promise<string | null>} get
 * @property {(name: string, text: string) => Promise<void>} set kept when it resolves, as safely as the platform can
 * @property {(name: string) => Promise<void>} remove
 * @property {(prefix: string) => Promise<string[]>} names names that begin with `prefix`
 */
/** Kept until the page or the process ends: retries only. @returns {IntentStorage} */
export declare function memory(): IntentStorage;
/** Kept over reloads of one tab (`sessionStorage`). @returns {IntentStorage} */
export declare const session: () => IntentStorage;
/** Kept over reloads and restarts, shared by all tabs (`localStorage`). @returns {IntentStorage} */
export declare const local: () => IntentStorage;
/**
 * Kept over restarts, shared by all tabs, for more than a few kilobytes. Writes are flushed before they resolve where
 * the browser can (`durability: "strict"`).
 * @param {string} [database] its name
 * @returns {IntentStorage}
 */
export declare function indexedDb(database?: string): IntentStorage;
/**
 * Runs `work` while nobody else runs under `name`: in any tab where there are Web Locks, else in this page or process.
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export declare function alone<T>(name: string, work: () => Promise<T>): Promise<T>;

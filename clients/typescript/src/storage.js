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
export function memory() {
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
export const session = () => web(() => globalThis.sessionStorage);

/** Kept over reloads and restarts, shared by all tabs (`localStorage`). @returns {IntentStorage} */
export const local = () => web(() => globalThis.localStorage);

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
export function indexedDb(database = 'hapax') {
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
export async function alone(name, work) {
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

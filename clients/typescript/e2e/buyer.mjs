/** Buys N lamps, 16 at a time, each once: URL FOLDER N. Survives being killed: keys in files, a book of orders. */
import { appendFileSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { OutcomeUnknown, intent } from '../dist/hapax-client.js';

const [url, folder, count] = process.argv.slice(2);
const box = join(folder, 'intents');
mkdirSync(box, { recursive: true });
const path = (name) => join(box, encodeURIComponent(name));
const storage = {
  get: async (name) => (existsSync(path(name)) ? readFileSync(path(name), 'utf8') : null),
  set: async (name, text) => {
    writeFileSync(`${path(name)}.draft`, text);
    renameSync(`${path(name)}.draft`, path(name));
  },
  remove: async (name) => rmSync(path(name), { force: true }),
  names: async (prefix) => readdirSync(box).filter((file) => !file.endsWith('.draft')).map(decodeURIComponent).filter((name) => name.startsWith(prefix)),
};

const book = join(folder, 'book');
const known = new Set(existsSync(book) ? readFileSync(book, 'utf8').split('\n').map((line) => line.split(' ')[0]) : []);
const left = Array.from({ length: Number(count) }, (_, at) => String(at)).filter((name) => !known.has(name));

async function buy(name) {
  const purchase = intent(`purchase:${name}`, {
    storage,
    record: async (response) => appendFileSync(book, `${name} ${(await response.json()).id}\n`),
  });
  const request = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ item: 'a lamp', quantity: 1 + (Number(name) % 100) }) };
  for (let round = 0; round < 20; round += 1) {
    try {
      await purchase.send(url, request);
      return;
    } catch (error) {
      if (!(error instanceof OutcomeUnknown)) throw error;
    }
  }
  throw new Error(`purchase ${name} stays unknown`);
}

await Promise.all(
  Array.from({ length: 16 }, async () => {
    for (let name = left.shift(); name !== undefined; name = left.shift()) await buy(name);
  }),
);

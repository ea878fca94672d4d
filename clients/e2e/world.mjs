/** The real thing on free ports: the shop, hapax in front of it, a bad network in front of that. Ends with the test. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { startProxy } from './proxy.mjs';

export const root = new URL('../..', import.meta.url).pathname;
/** Where cargo puts programs: `cargo build -p hapax -p hapax-shop`, `cargo build -p hapax-client --example buyer …`. */
export const built = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'debug');

/** Everything that was started; ends with this process, however that ends. */
const children = [];
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

/** Starts a program and waits for its line `listening NAME http://127.0.0.1:PORT`. */
async function listening(program, args, name, cwd) {
  // hapax takes settings from the environment and refuses those that it does not know.
  const env = Object.fromEntries(Object.entries(process.env).filter(([setting]) => !setting.startsWith('HAPAX_')));
  const child = spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  const said = [];
  child.stderr.on('data', (part) => said.push(part));
  const port = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`${program} ended with ${code}: ${Buffer.concat(said)}`)));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const found = new RegExp(`^listening ${name} http://127\\.0\\.0\\.1:(\\d+)$`).exec(line);
      if (found) resolve(Number(found[1]));
    });
  });
  child.removeAllListeners('exit');
  return { child, port };
}

const ended = (child) =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => child.once('exit', resolve));

/** @param {{ seed: number, hasHapax?: boolean, faults?: Record<string, number> }} options */
export async function startWorld({ seed, hasHapax = true, faults }) {
  const folder = mkdtempSync(join(tmpdir(), 'hapax-clients-'));
  const shop = await listening(join(built, 'hapax-shop'), ['--listen', '127.0.0.1:0'], 'shop', folder);
  const stop = async () => {
    for (const child of children.splice(0)) {
      child.kill('SIGKILL');
      await ended(child);
    }
    rmSync(folder, { recursive: true, force: true });
  };
  const hapax = hasHapax
    ? await listening(
        join(built, 'hapax'),
        ['serve', '--upstream', `http://127.0.0.1:${shop.port}`, '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0', '--store', join(folder, 'store')],
        'gateway',
        folder,
      ).catch(async (error) => {
        await stop();
        throw error;
      })
    : null;
  const proxy = await startProxy(hapax?.port ?? shop.port, seed, faults);
  return {
    folder,
    proxy,
    url: `http://127.0.0.1:${proxy.port}/create-order`,
    /** What was charged, asked over a good network. */
    ledger: async () => (await fetch(`http://127.0.0.1:${shop.port}/ledger`)).json(),
    close: async () => {
      await proxy.close();
      await stop();
    },
  };
}

/**
 * Runs a buyer until it has bought everything, and kills it with SIGKILL whenever its book has as many lines as the next
 * of `kills`. Its arguments: URL, folder, number of orders. It exits 0 when all are in its book.
 */
export async function runBuyer(command, args, world, orders, kills, linesOfBook) {
  let killed = 0;
  for (let runs = 0; runs < 20 + kills.length; runs += 1) {
    const child = spawn(command, [...args, world.url, world.folder, String(orders)], { stdio: ['ignore', 'inherit', 'inherit'] });
    const exit = ended(child).then(() => true);
    let isOver = false;
    while (!isOver) {
      if (killed < kills.length && linesOfBook() >= kills[killed]) {
        child.kill('SIGKILL');
        killed += 1;
        await exit;
        break;
      }
      isOver = await Promise.race([exit, new Promise((resolve) => setTimeout(() => resolve(false), 5))]);
    }
    if (isOver && child.exitCode === 0) return killed;
  }
  throw new Error('the buyer does not come to an end');
}

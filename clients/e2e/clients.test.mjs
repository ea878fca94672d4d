/**
 * Each client against the real shop behind the real hapax, through a network that loses, delays, duplicates and cuts, and
 * killed with SIGKILL in the middle: every intent is one order, and every order is known to the client.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { built, root, runBuyer, startWorld } from './world.mjs';

const ORDERS = Number(process.env.HAPAX_ORDERS ?? 500);
const SEED = Number(process.env.HAPAX_SEED ?? 20240501);

const BUYERS = {
  TypeScript: ['node', [join(root, 'clients/typescript/e2e/buyer.mjs')]],
  'Python with httpx': [process.env.HAPAX_PYTHON ?? 'python3', [join(root, 'clients/python/e2e/buyer.py'), 'httpx']],
  'Python with asyncio': [process.env.HAPAX_PYTHON ?? 'python3', [join(root, 'clients/python/e2e/buyer.py'), 'async']],
  'Python with requests': [process.env.HAPAX_PYTHON ?? 'python3', [join(root, 'clients/python/e2e/buyer.py'), 'requests']],
  Rust: [join(built, 'examples/buyer'), []],
};

/** Lines `intent order` of the client's book. */
function book(world) {
  const path = join(world.folder, 'book');
  const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
  return text.slice(0, text.lastIndexOf('\n') + 1).split('\n').filter(Boolean).map((line) => line.split(' '));
}

for (const [name, [command, args]] of Object.entries(BUYERS)) {
  test(`${name}: ${ORDERS} intents are ${ORDERS} orders, over a bad network and three kills`, { timeout: 300_000 }, async () => {
    const world = await startWorld({ seed: SEED });
    try {
      const kills = [0.2, 0.5, 0.8].map((part) => Math.floor(part * ORDERS));
      const killed = await runBuyer(command, args, world, ORDERS, kills, () => book(world).length);
      const orders = new Map();
      for (const [intent, order] of book(world)) {
        // A killed client may have noted an answer twice; never two orders.
        assert.equal(orders.get(intent) ?? order, order, `intent ${intent} has two orders`);
        orders.set(intent, order);
      }
      const { charges } = await world.ledger();
      console.log(`# ${name}: ${charges} orders, ${orders.size} known, ${killed} kills, faults ${JSON.stringify(world.proxy.fired)}`);
      assert.equal(killed, kills.length);
      assert.equal(orders.size, ORDERS, 'every intent has its answer: none is lost');
      assert.equal(new Set(orders.values()).size, ORDERS, 'no two intents share an order');
      assert.equal(charges, ORDERS, 'one order each');
      for (const [fault, count] of Object.entries(world.proxy.fired)) assert.ok(count > 0, `${fault} never happened`);
    } finally {
      await world.close();
    }
  });
}

test('the same network without hapax makes orders twice: the test can fail', { timeout: 120_000 }, async () => {
  const world = await startWorld({ seed: SEED, hasHapax: false });
  try {
    const [command, args] = BUYERS.TypeScript;
    await runBuyer(command, args, world, 100, [], () => 0);
    const { charges } = await world.ledger();
    console.log(`# without hapax: ${charges} orders for 100 intents`);
    assert.ok(charges > 110, `${charges} orders`);
  } finally {
    await world.close();
  }
});

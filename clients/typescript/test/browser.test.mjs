/**
 * A real browser (Debian's chromium): two tabs, a reload, offline and back. One order each.
 * The page is the built file as it is, with no build step; the server makes an order for every key it does not know, and
 * one for every request without a key.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';

const code = readFileSync(new URL('../dist/hapax-client.js', import.meta.url));
const page_ = `<!doctype html><title>shop</title><script type="module">
  import * as hapax from '/hapax-client.js';
  window.hapax = hapax;
  window.buy = async (cart, options = {}) => {
    const purchase = hapax.intent('purchase:' + cart, { storage: hapax.local(), ...options });
    const response = await purchase.send('/create-order', { method: 'POST', body: JSON.stringify({ cart }) });
    return (await response.json()).order;
  };
</script>`;

/** What was asked, in order: `{ key, body }`. */
let asked = [];
/** Key → order. */
let orders = new Map();
let lost = 0;
let gate = Promise.resolve();
const server = createServer(async (request, response) => {
  if (request.url === '/hapax-client.js') return response.setHeader('content-type', 'text/javascript').end(code);
  if (request.url !== '/create-order') return response.setHeader('content-type', 'text/html').end(page_);
  let body = '';
  for await (const part of request) body += part;
  const key = request.headers['idempotency-key'] ?? `none-${asked.length}`;
  asked.push({ key, body });
  await gate;
  if (!orders.has(key)) orders.set(key, orders.size + 1);
  if (lost > 0) {
    lost -= 1;
    return request.socket.destroy();
  }
  response.setHeader('content-type', 'application/json').end(JSON.stringify({ order: orders.get(key) }));
});

let browser;
let url;
before(async () => {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${server.address().port}/`;
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });
});
after(async () => {
  await browser?.close();
  server.closeAllConnections();
  server.close();
});

async function fresh() {
  asked = [];
  orders = new Map();
  lost = 0;
  gate = Promise.resolve();
  const context = await browser.newContext();
  const open = async () => {
    const page = await context.newPage();
    await page.goto(url);
    await page.waitForFunction(() => window.hapax !== undefined);
    return page;
  };
  return { context, open };
}

async function until(holds, what) {
  const end = Date.now() + 20_000;
  while (!holds()) {
    assert.ok(Date.now() < end, what);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test('two tabs that confirm at the same time send once', async () => {
  const { context, open } = await fresh();
  let go;
  gate = new Promise((resolve) => (go = resolve));
  const tabs = [await open(), await open()];
  const bought = tabs.map((tab) => tab.evaluate(() => window.buy('cart-1')));
  await until(() => asked.length === 1, 'one tab sends');
  // The other one has asked for its turn: the browser says so.
  const waits = async () => (await tabs[0].evaluate(() => navigator.locks.query())).pending.length === 1;
  while (!(await waits()));
  go();
  assert.deepEqual(await Promise.all(bought), [1, 1]);
  assert.equal(asked.length, 1);
  assert.equal(orders.size, 1);
  await context.close();
});

test('a click, a lost answer, a reload, and a click: one order', async () => {
  const { context, open } = await fresh();
  // All of them: the browser sends a POST again by itself when a kept connection breaks.
  lost = Infinity;
  const tab = await open();
  const error = await tab.evaluate(() => window.buy('cart-2', { attempts: 1 }).catch((error) => [error.name, error.why]));
  assert.deepEqual(error, ['OutcomeUnknown', 'attempts']);
  lost = 0;
  await tab.reload();
  await tab.waitForFunction(() => window.hapax !== undefined);
  assert.equal(await tab.evaluate(() => window.buy('cart-2')), 1);
  assert.ok(asked.length >= 2);
  assert.equal(new Set(asked.map(({ key }) => key)).size, 1);
  assert.equal(orders.size, 1);
  await context.close();
});

test('a tab that is closed while it sends leaves its intent to the next', async () => {
  const { context, open } = await fresh();
  let go;
  gate = new Promise((resolve) => (go = resolve));
  const [one, two] = [await open(), await open()];
  void one.evaluate(() => window.buy('cart-3')).catch(() => {});
  await until(() => asked.length === 1, 'the first tab sends');
  await one.close();
  go();
  assert.equal(await two.evaluate(() => window.buy('cart-3')), 1);
  assert.equal(new Set(asked.map(({ key }) => key)).size, 1);
  assert.equal(orders.size, 1);
  await context.close();
});

test('offline, a reload, and back online: the outbox makes one order', async () => {
  const { context, open } = await fresh();
  const tab = await open();
  await context.setOffline(true);
  await tab.evaluate(async () => {
    window.box = window.hapax.outbox('orders', { attempts: 1 });
    await window.box.add('cart-4', '/create-order', { method: 'POST', body: '{"cart":4}' });
    await window.box.drain();
  });
  assert.equal(asked.length, 0);
  assert.deepEqual(await tab.evaluate(() => window.box.entries()), ['cart-4']);
  await context.setOffline(false);
  await until(() => asked.length > 0, 'the browser is online again, and the outbox drains by itself');
  while ((await tab.evaluate(() => window.box.drain())) > 0);
  assert.deepEqual([...new Set(asked.map(({ body }) => body))], ['{"cart":4}']);
  assert.equal(orders.size, 1);
  await context.close();
});

test('an outbox that was closed while offline drains at the next start', async () => {
  const { context, open } = await fresh();
  const tab = await open();
  await context.setOffline(true);
  await tab.evaluate(async () => {
    const box = window.hapax.outbox('orders', { attempts: 1 });
    await box.add('cart-5', '/create-order', { method: 'POST', body: '{"cart":5}' });
    box.close();
  });
  await tab.close();
  await context.setOffline(false);
  const next = await open();
  await next.evaluate(async () => {
    const box = window.hapax.outbox('orders');
    while ((await box.drain()) > 0);
  });
  assert.equal(orders.size, 1);
  assert.equal(new Set(asked.map(({ key }) => key)).size, 1);
  await context.close();
});

test('without the client the same clicks are two orders: the test can fail', async () => {
  const { context, open } = await fresh();
  lost = 1;
  const tab = await open();
  await tab.evaluate(async () => {
    const order = () => fetch('/create-order', { method: 'POST', body: '{}' });
    await order().catch(() => order());
  });
  assert.equal(orders.size, 2);
  await context.close();
});

/** Keys that are held: over retries, reloads, two callers at once. */
import 'fake-indexeddb/auto';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Budget, IntentPending, OutcomeUnknown, indexedDb, intent, memory, outbox, safeFetch } from '../dist/hapax-client.js';
import { clock, disk, made, order, refused, reset, script } from './support.mjs';

const URL_ = 'http://shop.test/create-order';
const unknown = () => new Response('{"type":"urn:hapax:problems#outcome-unknown","retryable":false}', { status: 504, headers: { 'content-type': 'application/problem+json' } });
const options = (server, more = {}) => ({ fetch: server.fetch, clock: clock(), random: () => 0.5, budget: new Budget(), storage: memory(), ...more });

test('key and bytes are kept before the first byte is sent, and forgotten after a final answer', async () => {
  const storage = disk();
  const server = script(() => {
    const kept = JSON.parse(storage.kept.get('hapax:cart-1'));
    assert.equal(atob(kept.body), '{"item":"book"}');
    assert.equal(kept.maybe, true);
    return made();
  });
  const cart = intent('cart-1', options(server, { storage }));
  const response = await cart.send(URL_, order());
  assert.deepEqual(await response.json(), { order: 1 });
  assert.equal(await cart.key(), null);
  assert.notEqual(await cart.state(), 'pending');
});

test('every attempt sends the same key and the same bytes', async () => {
  const server = script(reset(), new Response('', { status: 502 }), made());
  const time = clock();
  const form = new FormData();
  form.append('item', 'book');
  await intent('cart-2', options(server, { clock: time })).send(URL_, { method: 'POST', body: form });
  assert.equal(server.asked.length, 3);
  assert.equal(new Set(server.asked.map((asked) => asked.key)).size, 1);
  assert.equal(new Set(server.asked.map((asked) => asked.body)).size, 1);
  assert.equal(new Set(server.asked.map((asked) => asked.headers.get('content-type'))).size, 1);
  assert.deepEqual(time.waits, [25, 50]);
});

test('an unknown outcome is typed, keeps the intent, and is resumed with the same key', async () => {
  const server = script(reset(), reset(), reset(), made());
  const time = clock();
  const cart = intent('cart-3', options(server, { clock: time }));
  const error = await cart.send(URL_, order()).catch((error) => error);
  assert.ok(error instanceof OutcomeUnknown);
  assert.deepEqual([error.why, error.attempts, error.key], ['attempts', 3, await cart.key()]);
  assert.equal(await cart.state(), 'pending');
  assert.equal((await error.resume()).status, 201);
  assert.equal(new Set(server.asked.map((asked) => asked.key)).size, 1);
  time.pass(1);
  assert.equal(await cart.resume(), null);
});

test('an answer that says unknown is not sent again and keeps the intent', async () => {
  const server = script(unknown());
  const cart = intent('cart-4', options(server));
  const error = await cart.send(URL_, order()).catch((error) => error);
  assert.ok(error instanceof OutcomeUnknown);
  assert.equal(error.response.status, 504);
  assert.equal(server.asked.length, 1);
  assert.equal(await cart.state(), 'pending');
});

test('a reload resumes with the key and the bytes of before', async () => {
  const storage = disk();
  const lost = script(reset());
  await assert.rejects(intent('cart-5', options(lost, { storage, attempts: 1 })).send(URL_, order()), OutcomeUnknown);
  const server = script(made());
  const response = await intent('cart-5', options(server, { storage: disk(storage.kept) })).send(URL_, order());
  assert.equal(response.status, 201);
  assert.equal(server.asked[0].key, lost.asked[0].key);
  assert.equal(server.asked[0].body, lost.asked[0].body);
});

test('other bytes under a pending intent are refused, and a new key is made only when asked for', async () => {
  const server = script(reset(), made());
  const cart = intent('cart-6', options(server, { attempts: 1 }));
  await assert.rejects(cart.send(URL_, order()), OutcomeUnknown);
  await assert.rejects(cart.send(URL_, order('{"item":"two books"}')), IntentPending);
  assert.equal(server.asked.length, 1);
  await cart.forget();
  await cart.send(URL_, order('{"item":"two books"}'));
  assert.notEqual(server.asked[0].key, server.asked[1].key);
});

test('other bytes are fine when nothing ran', async () => {
  const server = script(refused(), refused(), refused(), made());
  const cart = intent('cart-7', options(server));
  await assert.rejects(cart.send(URL_, order()), TypeError);
  assert.equal((await cart.send(URL_, order('{"item":"two books"}'))).status, 201);
});

test('two calls at once send once and get the same answer', async () => {
  const storage = memory();
  let open;
  const gate = new Promise((resolve) => (open = resolve));
  const server = script(async () => (await gate, made()));
  const one = intent('cart-8', options(server, { storage })).send(URL_, order());
  const two = intent('cart-8', options(server, { storage })).send(URL_, order());
  open();
  assert.deepEqual(await (await one).json(), await (await two).json());
  assert.equal(server.asked.length, 1);
});

test('a call after the answer is a new intent, unless answers are remembered', async () => {
  const time = clock();
  const server = script(made());
  const cart = intent('cart-9', options(server, { clock: time }));
  await cart.send(URL_, order());
  time.pass(1);
  await cart.send(URL_, order());
  assert.equal(server.asked.length, 2);
  assert.notEqual(server.asked[0].key, server.asked[1].key);
  const once = intent('cart-9b', options(server, { clock: time, rememberMs: 1000 }));
  await once.send(URL_, order());
  time.pass(1000);
  await once.send(URL_, order());
  assert.equal(server.asked.length, 3);
});

test('a key older than its time is not sent: it could run again', async () => {
  const time = clock();
  const server = script(reset(), made());
  const cart = intent('cart-10', options(server, { clock: time, attempts: 1, ttl: 1000 }));
  await assert.rejects(cart.send(URL_, order()), OutcomeUnknown);
  time.pass(1001);
  await assert.rejects(cart.send(URL_, order()), (error) => error instanceof OutcomeUnknown && error.why === 'expired');
  assert.equal(server.asked.length, 1);
});

test('a key older than its time that never ran is replaced by a new one', async () => {
  const time = clock();
  const server = script(refused(), made());
  const cart = intent('cart-10b', options(server, { clock: time, attempts: 1, ttl: 1000 }));
  await assert.rejects(cart.send(URL_, order()), TypeError);
  time.pass(1001);
  assert.equal((await cart.send(URL_, order())).status, 201);
  assert.notEqual(server.asked[0].key, server.asked[1].key);
});

test('a 401 keeps the key, and the next send has new credentials and the same key', async () => {
  const server = script(new Response('', { status: 401 }), made());
  const storage = disk();
  const cart = intent('cart-11', options(server, { storage }));
  const request = (token) => ({ ...order(), headers: { ...order().headers, authorization: token } });
  assert.equal((await cart.send(URL_, request('Bearer old'))).status, 401);
  assert.equal((await cart.send(URL_, request('Bearer new'))).status, 201);
  assert.equal(server.asked[0].key, server.asked[1].key);
  assert.equal(server.asked[1].headers.get('authorization'), 'Bearer new');
  assert.ok(!JSON.stringify(storage.log).includes('Bearer'), 'credentials are never stored');
});

test('a 401 after an attempt that may have run is unknown', async () => {
  const server = script(reset(), new Response('', { status: 401 }));
  const cart = intent('cart-12', options(server));
  const error = await cart.send(URL_, order()).catch((error) => error);
  assert.ok(error instanceof OutcomeUnknown);
  assert.equal(error.response.status, 401);
});

test('an answer that breaks off in its body is no answer', async () => {
  const cut = () => new Response(new ReadableStream({ pull: (control) => control.error(new Error('cut')) }), { status: 201 });
  let asked = 0;
  const fetch = async () => ((asked += 1) === 1 ? cut() : made());
  const response = await intent('cart-13', options({ fetch })).send(URL_, order());
  assert.equal(response.status, 201);
  assert.equal(asked, 2);
});

test('breaking it off keeps the intent pending', async () => {
  const control = new AbortController();
  const server = script((init) => new Promise((_, reject) => {
    init.signal.addEventListener('abort', () => reject(init.signal.reason));
    control.abort(new Error('the user left'));
  }));
  const cart = intent('cart-14', options(server));
  await assert.rejects(cart.send(URL_, { ...order(), signal: control.signal }), /the user left/);
  await assert.rejects(cart.send(URL_, order('other')), IntentPending);
});

test('a storage that cannot keep the key stops the send', async () => {
  const server = script(made());
  const storage = { ...memory(), set: async () => { throw new Error('quota'); } };
  await assert.rejects(intent('cart-15', options(server, { storage })).send(URL_, order()), /quota/);
  assert.equal(server.asked.length, 0);
});

test('an attempt that takes too long is a time-out, and the answer comes from the next', async () => {
  const hang = (init) => new Promise((_, reject) => init.signal.addEventListener('abort', () => reject(init.signal.reason)));
  const server = script(hang, made());
  const seen = [];
  const cart = intent('cart-16', options(server, { attemptMs: 5, onAttempt: (event) => seen.push(event) }));
  assert.equal((await cart.send(URL_, order())).status, 201);
  assert.deepEqual(seen[0].outcome, { failure: 'timeout' });
  assert.equal(seen[0].decision.do, 'retry');
});

test('credentials that cannot be had after an attempt that may have run leave it unknown', async () => {
  const server = script(reset());
  let asked = 0;
  const headers = () => { if ((asked += 1) > 1) throw new Error('no token'); return {}; };
  const cart = intent('cart-17', options(server, { headers }));
  await assert.rejects(cart.send(URL_, order()), OutcomeUnknown);
  assert.equal(await cart.state(), 'pending');
});

test('an answer is recorded before its key is forgotten, and what was not recorded stays pending', async () => {
  const server = script(made());
  let broken = true;
  const recorded = [];
  const record = async (response, name) => {
    if (broken) throw new Error('the disk is full');
    recorded.push([name, await response.json()]);
  };
  const cart = intent('cart-18', options(server, { record }));
  await assert.rejects(cart.send(URL_, order()), /the disk is full/);
  assert.equal(await cart.state(), 'pending');
  broken = false;
  assert.deepEqual(await (await cart.send(URL_, order())).json(), { order: 1 });
  assert.deepEqual(recorded, [['cart-18', { order: 1 }]]);
  assert.equal(server.asked[0].key, server.asked[1].key);
});

test('safeFetch gives a POST one key over its retries, and sends what has a key of the caller with that', async () => {
  const server = script(reset(), made());
  const fetch = safeFetch(options(server));
  await fetch(URL_, order());
  assert.equal(server.asked.length, 2);
  assert.match(server.asked[0].key, /^[0-9a-f-]{36}$/);
  assert.equal(server.asked[0].key, server.asked[1].key);
  await fetch(URL_, { ...order(), headers: { 'Idempotency-Key': 'mine' } });
  assert.equal(server.asked.at(-1).key, 'mine');
});

test('safeFetch without keys sends a POST once', async () => {
  const server = script(reset(), made());
  await assert.rejects(safeFetch({ ...options(server), keys: 'given' })(URL_, order()), TypeError);
  assert.deepEqual(server.asked.map((asked) => asked.key), [null]);
});

test('an outbox keeps what it was given before it says so, and sends it after a restart', async () => {
  const storage = indexedDb('outbox-test');
  const down = script(refused());
  const one = outbox('orders', options(down, { storage }));
  const key = await one.add('cart-1', URL_, order());
  assert.equal(await one.drain(), 1);
  one.close();
  const server = script(made());
  const answers = [];
  const two = outbox('orders', options(server, { storage: indexedDb('outbox-test'), onAnswer: (entry, response) => answers.push([entry, response.status]) }));
  while ((await two.drain()) > 0);
  assert.deepEqual(answers, [['cart-1', 201]]);
  assert.deepEqual(server.asked.map((asked) => asked.key), [key]);
  assert.deepEqual(await two.entries(), []);
  two.close();
});

test('two outboxes on one storage send an entry once', async () => {
  const storage = indexedDb('outbox-two');
  const down = script(refused());
  const first = outbox('orders', options(down, { storage }));
  for (const entry of ['a', 'b', 'c']) await first.add(entry, URL_, order(`{"entry":"${entry}"}`));
  await first.drain();
  first.close();
  const server = script(made());
  const boxes = [1, 2].map(() => outbox('orders', options(server, { storage })));
  await Promise.all(boxes.map((box) => box.drain()));
  assert.equal(server.asked.length, 3);
  boxes.forEach((box) => box.close());
});

test('an unknown outcome stays in the outbox', async () => {
  const seen = [];
  const box = outbox('orders', options(script(unknown()), { storage: memory(), onUnknown: (entry, error) => seen.push([entry, error.why]) }));
  await box.add('cart-1', URL_, order());
  while (seen.length === 0) await box.drain();
  assert.deepEqual(seen[0], ['cart-1', 'answer']);
  assert.deepEqual(await box.entries(), ['cart-1']);
  box.close();
});

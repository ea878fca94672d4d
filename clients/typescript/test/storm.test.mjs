/** A server that is down is not made worse: what retries add stays within the budget. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Budget, OutcomeUnknown, safeFetch } from '../dist/hapax-client.js';

/** Time of its own for many callers: the next one to wake up is always the one whose time comes first. */
function world() {
  let nowMs = 0;
  const sleeping = [];
  const clock = {
    nowMs: () => nowMs,
    sleep: (ms) => new Promise((wake) => sleeping.push({ atMs: nowMs + ms, wake })),
  };
  const run = async (work) => {
    let isOver = false;
    const done = Promise.all(work).finally(() => (isOver = true));
    while (!isOver) {
      await new Promise((resolve) => setImmediate(resolve));
      sleeping.sort((a, b) => a.atMs - b.atMs);
      const next = sleeping.shift();
      if (!next) continue;
      nowMs = Math.max(nowMs, next.atMs);
      next.wake();
      while (sleeping[0]?.atMs === nowMs) sleeping.shift().wake();
    }
    return done;
  };
  return { clock, run };
}

for (const [name, fail] of [
  ['refuses', () => { throw Object.assign(new TypeError('fetch failed'), { cause: { code: 'ECONNREFUSED' } }); }],
  ['answers 503', () => new Response('', { status: 503 })],
  ['resets', () => { throw new TypeError('fetch failed'); }],
]) {
  test(`200 callers and a server that ${name} for 30 s: at most a tenth more requests`, async () => {
    const { clock, run } = world();
    let seed = 7;
    const random = () => ((seed = (seed * 48271) % 2147483647) / 2147483647);
    let sent = 0;
    let intents = 0;
    const fetch = safeFetch({ clock, random, budget: new Budget(), fetch: async () => ((sent += 1), fail()) });
    const caller = async () => {
      await clock.sleep(random() * 1000);
      while (clock.nowMs() < 30_000) {
        intents += 1;
        await fetch('http://shop.test/create-order', { method: 'POST', body: '{}' }).catch((error) => {
          assert.ok(error instanceof OutcomeUnknown || error instanceof TypeError);
        });
        await clock.sleep(1000);
      }
    };
    await run(Array.from({ length: 200 }, caller));
    const extra = (sent - intents) / intents;
    console.log(`# ${name}: ${intents} intents, ${sent} requests, ${(extra * 100).toFixed(1)} % more`);
    assert.ok(intents > 5000, `${intents} intents`);
    assert.ok(sent > intents, 'retries were made at all');
    assert.ok(extra <= 0.1, `${sent} requests for ${intents} intents`);
  });
}

/** The cases that all three clients share. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Budget, judge } from '../dist/hapax-client.js';

const vectors = JSON.parse(readFileSync(new URL('../../vectors.json', import.meta.url), 'utf8'));

test('the policy decides every case of vectors.json as it says', () => {
  assert.ok(vectors.cases.length >= 80);
  for (const { name, given, then } of vectors.cases) {
    const g = { ...vectors.defaults, ...given };
    const outcome = g.error ? { failure: g.error } : { status: g.status, field: (field) => g.fields[field] ?? null, body: g.body };
    const decision = judge(outcome, {
      method: g.method,
      keyed: g.keyed,
      attempt: g.attempt,
      attempts: g.attempts,
      maybe: g.maybe,
      tokens: g.tokens,
      elapsedMs: g.elapsed_ms,
      deadlineMs: g.deadline_ms,
      nowMs: g.now_ms,
      random: g.random,
    });
    const { after_ms: afterMs, ...rest } = then;
    assert.deepEqual(decision, afterMs === undefined ? rest : { ...rest, afterMs }, name);
  }
});

test('a budget keeps its account as vectors.json says', () => {
  for (const { name, steps } of vectors.budgets) {
    const budget = new Budget();
    for (const step of steps) {
      if ('take' in step) assert.equal(budget.take(step.take), step.granted, name);
      else budget.success(step.success);
      assert.equal(budget.tokens, step.left, name);
    }
  }
});

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { DeterminismViolation, withoutAmbient } from './determinism.ts';
import { simulateRaft } from './raft-sim.ts';

const SHORT_SEEDS = 250;

function savedSeeds(): { readonly seed: number; readonly isCalm: boolean }[] {
  const text = readFileSync(join(import.meta.dirname, 'seeds.txt'), 'utf8');
  return text
    .split('\n')
    .filter((line) => /^\d/.test(line))
    .map((line) => ({ seed: Number.parseInt(line, 10), isCalm: /^\d+ calm /.test(line) }));
}

test(`[R1] [R3] [R4] [R6] [R7] [R12] [R13] ${SHORT_SEEDS} seeds of crashes, partitions, loss and membership changes: all promises hold, then progress`, () => {
  const sums = { committed: 0, leaderTerms: 0, crashes: 0, ioErrors: 0, reads: 0 };
  for (let seed = 1; seed <= SHORT_SEEDS; seed += 1) {
    const result = simulateRaft(seed);
    sums.committed += result.committed;
    sums.leaderTerms += result.leaderTerms;
    sums.crashes += result.crashes;
    sums.ioErrors += result.ioErrors;
    sums.reads += result.reads;
  }
  // A simulation in which nothing happens would pass as well.
  assert.ok(sums.committed > SHORT_SEEDS * 50, JSON.stringify(sums));
  assert.ok(sums.leaderTerms > SHORT_SEEDS * 2, JSON.stringify(sums));
  assert.ok(sums.crashes > SHORT_SEEDS * 5, JSON.stringify(sums));
  assert.ok(sums.ioErrors > SHORT_SEEDS / 4, JSON.stringify(sums));
  assert.ok(sums.reads > SHORT_SEEDS * 10, JSON.stringify(sums));
});

for (const { seed, isCalm } of savedSeeds()) {
  test(`seed ${seed}, which once found something`, () => {
    simulateRaft(seed, isCalm);
  });
}

test('equal seeds give equal runs, other seeds give others', () => {
  assert.deepEqual(simulateRaft(7), simulateRaft(7));
  assert.notEqual(simulateRaft(7).trace, simulateRaft(8).trace);
});

test('clock, timers and ambient randomness are trapped in a simulation, and work after it', () => {
  const attempts: (() => unknown)[] = [
    () => Date.now(),
    () => new Date(),
    () => Math.random(),
    () => performance.now(),
    () => setTimeout(() => undefined, 0),
    () => setImmediate(() => undefined),
    () => queueMicrotask(() => undefined),
    () => process.hrtime(),
    () => crypto.randomUUID(),
  ];
  for (const attempt of attempts) {
    assert.throws(() => withoutAmbient(attempt), DeterminismViolation, String(attempt));
  }
  assert.ok(Date.now() > 0 && Math.random() < 1 && performance.now() > 0);
});

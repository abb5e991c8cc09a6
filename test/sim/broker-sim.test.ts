import assert from 'node:assert/strict';
import { test } from 'node:test';
import { simulateBroker } from './broker-sim.ts';

const SHORT_SEEDS = 60;

test(`${SHORT_SEEDS} seeds of a broker with its clients under faults: all promises hold, then everything comes to its end`, async () => {
  const sums = {
    ...{ acked: 0, delivered: 0, streams: 0 },
    ...{ deaths: 0, dropped: 0, moves: 0, movesGivenUp: 0, trims: 0, lateWrites: 0 },
  };
  for (let seed = 1; seed <= SHORT_SEEDS; seed += 1) {
    const result = await simulateBroker(seed);
    for (const what of Object.keys(sums) as (keyof typeof sums)[]) sums[what] += result[what];
  }
  // A simulation in which nothing happens would pass as well.
  assert.ok(sums.acked > SHORT_SEEDS * 100, JSON.stringify(sums));
  assert.ok(sums.delivered > SHORT_SEEDS * 200, JSON.stringify(sums));
  for (const what of ['deaths', 'dropped', 'moves', 'streams', 'trims'] as const)
    assert.ok(sums[what] > SHORT_SEEDS / 2, JSON.stringify(sums));
  for (const what of ['movesGivenUp', 'lateWrites'] as const) assert.ok(sums[what] > 0, JSON.stringify(sums));
});

test('equal seeds give equal runs of a broker, other seeds give others', async () => {
  assert.deepEqual(await simulateBroker(7), await simulateBroker(7));
  assert.notEqual((await simulateBroker(7)).trace, (await simulateBroker(8)).trace);
});

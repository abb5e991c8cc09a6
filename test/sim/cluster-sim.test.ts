import assert from 'node:assert/strict';
import { test } from 'node:test';
import { simulateCluster } from './cluster-sim.ts';

const SHORT_SEEDS = 300;
test(`[R25] [R26] [R27] [S11] [S12] ${SHORT_SEEDS} seeds of whole nodes, clients and a store under faults: all promises hold, then everything comes to its end`, () => {
  const sums = { acked: 0, voids: 0, crashes: 0, ioErrors: 0, leaderTerms: 0 };
  for (let seed = 1; seed <= SHORT_SEEDS; seed += 1) {
    const result = simulateCluster(seed);
    sums.acked += result.acked;
    sums.voids += result.voids;
    sums.crashes += result.crashes;
    sums.ioErrors += result.ioErrors;
    sums.leaderTerms += result.leaderTerms;
  }
  // A simulation in which nothing happens would pass as well.
  assert.ok(sums.acked > SHORT_SEEDS * 50, JSON.stringify(sums));
  assert.ok(sums.voids > SHORT_SEEDS * 10, JSON.stringify(sums));
  assert.ok(sums.crashes > SHORT_SEEDS, JSON.stringify(sums));
  assert.ok(sums.ioErrors > SHORT_SEEDS / 4, JSON.stringify(sums));
  assert.ok(sums.leaderTerms > SHORT_SEEDS * 2, JSON.stringify(sums));
});

test('equal seeds give equal runs of a cluster, other seeds give others', () => {
  assert.deepEqual(simulateCluster(7), simulateCluster(7));
  assert.notEqual(simulateCluster(7).trace, simulateCluster(8).trace);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { simulateKill } from './gossip-kill.ts';
import { simulateGossip } from './gossip-sim.ts';
import { CALM } from './gossip-world.ts';

const SHORT_SEEDS = 100;

test(`[G1] [G4] ${SHORT_SEEDS} seeds of crashes, moves, stops, cuts and loss: failures are seen, nobody well is called failed, views become equal`, () => {
  const sums = { crashes: 0, stops: 0, declared: 0, refuted: 0, foes: 0 };
  for (let seed = 1; seed <= SHORT_SEEDS; seed += 1) {
    const result = simulateGossip(seed);
    for (const key of Object.keys(sums) as (keyof typeof sums)[]) {
      sums[key] += result[key];
    }
  }
  // A simulation in which nothing happens would pass as well.
  assert.ok(sums.crashes > SHORT_SEEDS * 2, JSON.stringify(sums));
  assert.ok(sums.stops > SHORT_SEEDS * 2, JSON.stringify(sums));
  assert.ok(sums.declared > SHORT_SEEDS * 5, JSON.stringify(sums));
  assert.ok(sums.refuted > SHORT_SEEDS * 5, JSON.stringify(sums));
  assert.ok(sums.foes > SHORT_SEEDS * 500, JSON.stringify(sums));
});

test('[G1] 1,000 flaps (stopped for 6 s, with loss and datagrams blocked now and then): every view comes back', () => {
  let flaps = 0;
  for (let seed = 1; flaps < 1_000; seed += 1) {
    const result = simulateGossip(seed, {
      nodes: [3, 5][seed % 2] as number,
      weather: { ...CALM, lossPercent: [0, 5, 20][seed % 3] as number, delayMsMax: 20 },
      faults: ['flap', 'udp'],
      foe: null,
      faultSteps: 400,
    });
    flaps += result.flaps;
    assert.ok(result.flaps > 0 && seed < 200, JSON.stringify(result));
  }
});

test('[G5] event loops blocked for 5 s each minute: nobody who is blocked declares a healthy peer failed', () => {
  for (let seed = 1; seed <= 10; seed += 1) {
    const result = simulateGossip(seed, {
      nodes: [3, 5, 9][seed % 3] as number,
      weather: { ...CALM, delayMsMax: 5 },
      faults: ['block'],
      foe: null,
      driftPercent: 0,
      faultSteps: 600,
    });
    assert.ok(result.stops >= 10, JSON.stringify(result));
    assert.equal(result.wronged, 0, JSON.stringify(result));
  }
});

for (const foe of ['forge', 'replay'] as const) {
  const packets = 50_000;
  test(`[G6] ${packets} packets, ${foe === 'forge' ? 'forged' : 'replayed'}, without a key to keep them out: views heal, no node is lost for good`, () => {
    let sent = 0;
    for (let seed = 1; sent < packets; seed += 1) {
      const result = simulateGossip(seed, { nodes: 5, faults: ['stop'], foe, packetsAStep: 200, faultSteps: 60 });
      sent += result.foes;
      assert.ok(result.foes > 0, JSON.stringify(result));
    }
  });
}

test('a failure among 100 is seen by all as early as by memberlist: docs/gossip.md has its figures', () => {
  const memberlistMedianMs = 10_234;
  const lasts = [1, 2, 3, 4, 5].map((seed) => simulateKill(seed, 100).lastMs).sort((a, b) => a - b);
  assert.ok((lasts[2] as number) < 1.5 * memberlistMedianMs, String(lasts));
});

test('equal seeds give equal runs, other seeds give others', () => {
  assert.deepEqual(simulateGossip(7), simulateGossip(7));
  assert.notEqual(simulateGossip(7).trace, simulateGossip(8).trace);
});

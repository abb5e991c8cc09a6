/** Slots change their shard under load: nobody notices, and nothing is lost whoever dies in the middle. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DEATHS, KILLS, killedResize, resizeStorm } from './resize-campaign.ts';

const LONG = process.env.BROKER_TEST_LONG === '1';

/** Slots are dealt evenly and each is there once. */
function assertDealt(slots: readonly number[], shards: number): void {
  assert.equal(slots.length, shards);
  assert.equal(
    slots.reduce((sum, count) => sum + count, 0),
    1_024,
  );
  assert.ok(Math.max(...slots) - Math.min(...slots) <= 1, `slots ${slots}`);
}

describe('shards are added and taken away under load', () => {
  it('[R25, R27, W8] 1 -> 4 -> 2 -> 3 -> 1: no client is told of an error, subscribers see each id once and in order', async (t) => {
    const result = await resizeStorm([4, 2, 3, 1], null, 21);
    t.diagnostic(JSON.stringify({ acked: result.acked, changes: result.changes }));
    assert.deepEqual(result.violations, []);
    assert.deepEqual(result.errors, []);
    assert.deepEqual(
      result.changes.map(({ error, slotsMoved, slotsTotal }) => [error, slotsMoved === slotsTotal]),
      [
        ['', true],
        ['', true],
        ['', true],
        ['', true],
      ],
    );
    assertDealt(result.slots, 1);
    assert.ok(result.acked > 50, 'the load was no load');
  });

  for (const death of LONG ? DEATHS : [DEATHS[5]]) {
    if (death === undefined) continue;
    it(`[W1, W8, R25] ${death.name}: the change goes on with the replacement, and nothing is lost`, async (t) => {
      const result = await resizeStorm([3, 2], death, 31);
      t.diagnostic(JSON.stringify({ deaths: result.deaths, acked: result.acked, errors: result.errors }));
      assert.deepEqual(result.violations, []);
      assert.deepEqual(
        result.changes.map(({ error }) => error),
        ['', ''],
      );
      assertDealt(result.slots, 2);
      assert.ok(result.deaths > 0, 'nobody died');
    });
  }

  for (const kill of LONG ? KILLS : [KILLS[1]]) {
    if (kill === undefined) continue;
    it(`[S11, R25] ${kill.name}: the next start deals the slots anew, and nothing is lost`, async () => {
      const result = await killedResize(kill, 41);
      assert.deepEqual(result.violations, []);
      assertDealt(result.slots, 2);
      assert.ok(result.acked > 10, 'the load was no load');
    });
  }
});

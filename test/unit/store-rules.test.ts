import assert from 'node:assert/strict';
import { describe, it, mock } from 'node:test';
import { STORE_RETRY_MS, StoreRules } from '../../src/workers/shard/store-rules.ts';

describe('what a shard asks of a store that took nothing', () => {
  /** A store that refused a group at 0 ms, and what is refused `ms` later. */
  function refusedAfter(ms: number, { hasMarks = false, isFull = false } = {}): string | null {
    const clock = mock.method(performance, 'now', () => 0);
    try {
      const rules = new StoreRules(null, () => isFull);
      assert.equal(rules.refusal(false), null, 'nothing was refused yet');
      assert.ok(rules.tookNothing('STORE_FULL', false, STORE_RETRY_MS));
      clock.mock.mockImplementation(() => ms);
      // The marks of what it did not take.
      if (!hasMarks) rules.took();
      return rules.refusal(hasMarks);
    } finally {
      clock.mock.restore();
    }
  }

  it('is tried with new messages after a while', () => {
    assert.equal(refusedAfter(STORE_RETRY_MS - 1), 'STORE_FULL');
    assert.equal(refusedAfter(STORE_RETRY_MS), null);
  });

  it('is not before the void marks of those that it did not take are stored', () => {
    assert.equal(refusedAfter(STORE_RETRY_MS, { hasMarks: true }), 'STORE_FULL');
  });

  it('[S8] is not as long as it says itself that it is full: each try would take ids', () => {
    assert.equal(refusedAfter(STORE_RETRY_MS, { isFull: true }), 'STORE_FULL');
  });
});

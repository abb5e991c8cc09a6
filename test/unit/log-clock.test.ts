import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CLOCK_AHEAD_MAX_MS, LogClock } from '../../src/workers/raft/log-clock.ts';

const EPOCH_MS = fc.integer({ min: 0, max: 4e12 });

test('[S10] log time never falls, whatever the wall clock and the entries of others do, and follows the clock where it can', () => {
  const step = fc.oneof(fc.record({ wall: EPOCH_MS }), fc.record({ entry: EPOCH_MS }));
  fc.assert(
    fc.property(EPOCH_MS, fc.array(step, { maxLength: 50 }), (start, steps) => {
      const clock = new LogClock(start);
      let highest = start;
      for (const one of steps) {
        const before = clock.last;
        if ('wall' in one) {
          highest = Math.max(highest, one.wall);
          assert.equal(clock.next(one.wall), clock.last);
        } else {
          highest = Math.max(highest, one.entry);
          clock.saw(one.entry);
        }
        assert.ok(clock.last >= before);
        assert.equal(clock.last, highest);
      }
    }),
  );
});

test('a clock is too far ahead from 24 h and a millisecond on, never against an empty log, and never when it is behind', () => {
  const last = Date.UTC(2026, 0, 1);
  const clock = new LogClock(last);
  assert.equal(CLOCK_AHEAD_MAX_MS, 86_400_000);
  assert.equal(clock.isTooFarAhead(last + CLOCK_AHEAD_MAX_MS), false);
  assert.equal(clock.isTooFarAhead(last + CLOCK_AHEAD_MAX_MS + 1), true);
  assert.equal(clock.isTooFarAhead(last - 10 * CLOCK_AHEAD_MAX_MS), false);
  assert.equal(new LogClock(0).isTooFarAhead(last), false);
});

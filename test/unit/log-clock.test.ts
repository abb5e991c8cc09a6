import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { CLOCK_AHEAD_MAX_MS, LogClock } from '../../src/replica/log-clock.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { type OpenedNode, openNode, openSubjects } from './raft-node-rig.ts';

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

const HOUR = 3_600_000;
const START = Date.UTC(2026, 0, 1);

/** A folder for nodes whose wall clock the test sets. */
function folderWithClock(t: TestContext): string {
  t.mock.timers.enable({ apis: ['Date'], now: START });
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, 'raft'));
  return folder;
}

/** Ends it as a crash would, but for the files that it has open; what it has made durable is there. */
function close({ node }: OpenedNode): void {
  node.close();
}

test('[S10] while the wall clock of a node is behind its log, log time stands; it goes on when the clock has come up to it', async (t) => {
  const opened = await openNode(t, folderWithClock(t));
  const timeAt = (wall: number, subject: number): number => {
    t.mock.timers.setTime(wall);
    openSubjects(opened.node, subject, subject + 1);
    const { logTime } = opened.node.status();
    assert.equal(opened.node.machine.time, logTime, 'what is applied has it');
    return logTime;
  };
  assert.equal(timeAt(START + HOUR, 0), START + HOUR);
  assert.equal(timeAt(START, 1), START + HOUR);
  assert.equal(timeAt(START + HOUR - 1, 2), START + HOUR);
  assert.equal(timeAt(START + HOUR + 1, 3), START + HOUR + 1);
  // A jump ahead is believed while it serves: nobody can say that it is wrong.
  assert.equal(timeAt(START + 100 * HOUR, 4), START + 100 * HOUR);
  assert.equal(timeAt(START, 5), START + 100 * HOUR);
  close(opened);
});

for (const [what, snapshotEntries] of [
  ['of log entries', 1_000_000],
  ['of a snapshot with nothing behind it', 100],
] as const) {
  test(`[S10] a restart goes on with the log time ${what}, though the wall clock is behind it`, async (t) => {
    const folder = folderWithClock(t);
    const first = await openNode(t, folder, { snapshotEntries });
    t.mock.timers.setTime(START + HOUR);
    // With what a start writes, the last one makes a hundred.
    const born = first.node.status();
    openSubjects(first.node, 0, 100 - (born.lastIndex - born.snapshotIndex));
    // The snapshot is written beside it, as fast as the disk is.
    for (
      const since = performance.now();
      first.node.status().snapshotIndex === 1 && performance.now() - since < 20_000;
    ) {
      first.node.work();
      await new Promise((resolve) => setImmediate(resolve));
      if (snapshotEntries > 100) break;
    }
    const { snapshotIndex, applied } = first.node.status();
    assert.equal(snapshotIndex, snapshotEntries === 100 ? applied : 1);
    close(first);
    t.mock.timers.setTime(START - HOUR);
    const second = await openNode(t, folder);
    assert.equal(second.node.status().logTime, START + HOUR);
    openSubjects(second.node, 300, 301);
    assert.equal(second.node.machine.time, START + HOUR);
    close(second);
  });
}

test('[S10] a start more than 24 h ahead of the log is refused and leaves log time as it was; accepted, log time follows', async (t) => {
  const folder = folderWithClock(t);
  close(await openNode(t, folder));
  t.mock.timers.setTime(START + 24 * HOUR + 1);
  for (let attempt = 0; attempt < 2; attempt++) await assert.rejects(openNode(t, folder), { code: 'CLOCK_AHEAD' });
  t.mock.timers.setTime(START + 24 * HOUR);
  const inTime = await openNode(t, folder);
  assert.equal(inTime.node.status().logTime, START + 24 * HOUR);
  close(inTime);
  t.mock.timers.setTime(START + 1_000 * HOUR);
  const accepted = await openNode(t, folder, { acceptClock: true });
  assert.equal(accepted.node.status().logTime, START + 1_000 * HOUR);
  close(accepted);
});

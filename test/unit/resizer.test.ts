/** How a resize ends that cannot go on: what was to be expected is in its state, a defect is not kept back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AssertionError } from '../../src/base/assert.ts';
import { Exclusive } from '../../src/base/exclusive.ts';
import { Resizer } from '../../src/workers/slots/resizer.ts';
import type { Moved, SlotMover } from '../../src/workers/slots/slot-mover.ts';
import { SlotTable } from '../../src/workers/slots/slot-table.ts';

/** It moves slot 0 of shard 0 to shard 1. */
function moving(move: () => Promise<Moved>): Resizer {
  const resizer = new Resizer({
    table: new SlotTable(2),
    pool: { members: [0, 1], grow: async () => null, retire: async () => undefined, whenReady: async () => undefined },
    mover: { move, stop: () => undefined } as unknown as SlotMover,
    turns: new Exclusive(),
    shardsMax: 2,
    log: () => undefined,
  });
  resizer.move(0, 1);
  return resizer;
}

test('a defect met while slots are held reaches whoever ends the process', async () => {
  const begun = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<Moved>();
  const resizer = moving(() => {
    begun.resolve();
    return answer.promise;
  });
  await begun.promise;
  const stopped = resizer.stop();
  answer.reject(new AssertionError('a drain was answered by something else'));
  await assert.rejects(stopped, AssertionError);
});

test('a piece that is given up again and again ends the resize, which says why', async () => {
  const resizer = moving(async () => ({ outcome: 'a shard died', pauseMs: 0 }));
  while (resizer.state.isRunning) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(resizer.state.error, 'a shard died (5 times)');
  await resizer.stop();
});

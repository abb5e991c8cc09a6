/** When the Raft node of a lone broker takes a snapshot: a log that nobody cuts grows for ever, and a start holds what lies behind the snapshot in memory. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import type { RaftThreadData } from '../../src/workers/messages.ts';
import type { RaftNode } from '../../src/workers/raft/raft-node.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { openNode, openSubjects } from './raft-node-rig.ts';

const NEVER = 2 ** 40;
/** Of an entry of `openSubjects`, at least and at most. */
const [ENTRY_BYTES_MIN, ENTRY_BYTES_MAX] = [50, 200];
const WAIT_MS_MAX = 20_000;

function folderOf(t: TestContext): string {
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, 'raft'));
  return folder;
}

const behindSnapshot = (node: RaftNode): number => {
  const { lastIndex, snapshotIndex } = node.status();
  return lastIndex - snapshotIndex;
};

/** A snapshot is written beside the work, as fast as the disk is. */
async function snapshotTaken(node: RaftNode): Promise<void> {
  const before = node.status().snapshotIndex;
  const since = performance.now();
  while (node.status().snapshotIndex === before) {
    assert.ok(performance.now() - since < WAIT_MS_MAX, 'no snapshot is taken');
    node.work();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe('a snapshot', () => {
  for (const [what, limit] of [
    ['so many entries', { snapshotEntries: 100, snapshotBytes: NEVER }],
    ['so many bytes', { snapshotEntries: NEVER, snapshotBytes: 100 * ENTRY_BYTES_MAX }],
  ] as const satisfies readonly (readonly [string, Partial<RaftThreadData>])[]) {
    const entriesMax = limit.snapshotBytes === NEVER ? 100 : (100 * ENTRY_BYTES_MAX) / ENTRY_BYTES_MIN;

    it(`is taken after ${what}, not before, and again and again`, async (t) => {
      // Closing writes to the folder: before it goes.
      let close = (): void => undefined;
      t.after(() => close());
      const { node } = await openNode(t, folderOf(t), limit);
      close = () => node.close();
      const born = node.status().snapshotIndex;
      openSubjects(node, 0, 80);
      for (let round = 0; round < 20; round++) {
        assert.equal(node.work(), 0);
        await new Promise((resolve) => setImmediate(resolve));
      }
      assert.equal(node.status().snapshotIndex, born, 'nothing is due yet');
      for (let from = 80, taken = 0; taken < 3; taken++) {
        openSubjects(node, from, from + entriesMax);
        from += entriesMax;
        await snapshotTaken(node);
        assert.ok(behindSnapshot(node) <= entriesMax);
      }
    });

    it(`is taken after ${what} of a broker that never lives so long: what a start has replayed counts`, async (t) => {
      const folder = folderOf(t);
      const life = Math.ceil(entriesMax / 4);
      let taken = 0;
      for (let lives = 0; lives < 20 && taken < 2; lives++) {
        const { node } = await openNode(t, folder, limit);
        const before = node.status().snapshotIndex;
        openSubjects(node, lives * life, (lives + 1) * life);
        if (behindSnapshot(node) > entriesMax) {
          if (node.status().snapshotIndex === before) await snapshotTaken(node);
        } else {
          // It may be due by now, or not.
          while (node.work() > 0);
        }
        if (node.status().snapshotIndex > before) taken += 1;
        node.close();
      }
      assert.equal(taken, 2);
    });
  }
});

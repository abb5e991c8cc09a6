/** The end of a snapshot: whatever goes wrong is told, once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SnapshotWriter as StateWriter } from '../../src/allot/snapshot-writer.ts';
import type { SnapshotWriter as FileWriter } from '../../src/storage/raft-wal/types.ts';
import { SnapshotJob } from '../../src/workers/raft/snapshot-job.ts';

const EMPTY = { nextChunk: () => null, abandon: () => undefined } as unknown as StateWriter;

function fileThat(finish: () => Promise<{ path: string }>, told: string[]): FileWriter {
  return { flush: async () => undefined, finish, abort: () => told.push('aborted') } as unknown as FileWriter;
}

/** What is told until nothing more can come. */
async function run(finish: () => Promise<{ path: string }>, onDone: (path: string) => void): Promise<string[]> {
  const told: string[] = [];
  const ended = Promise.withResolvers<void>();
  const job = new SnapshotJob(
    EMPTY,
    fileThat(finish, told),
    (path) => {
      setImmediate(ended.resolve);
      onDone(path);
      told.push(`done: ${path}`);
    },
    (error) => {
      setImmediate(ended.resolve);
      told.push(`failed: ${(error as Error).message}`);
    },
  );
  job.work();
  await ended.promise;
  return told;
}

test('what fails after the file is published is told, and the file stays', async () => {
  const told = await run(
    async () => ({ path: 'a' }),
    () => {
      throw new Error('half compacted');
    },
  );
  assert.deepEqual(told, ['failed: half compacted']);
});

test('a file that cannot be published is taken away, and why is told', async () => {
  const told = await run(
    () => Promise.reject(new Error('no disk')),
    () => undefined,
  );
  assert.deepEqual(told, ['aborted', 'failed: no disk']);
});

test('a file that is published is handed over', async () => {
  const told = await run(
    async () => ({ path: 'a' }),
    () => undefined,
  );
  assert.deepEqual(told, ['done: a']);
});

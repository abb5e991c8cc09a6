/** The Raft log against a model: append, overwrite, roll, snapshot, reopen. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { RaftWal } from '../../src/storage/raft-wal/raft-wal.ts';
import type { WalEntry, WalHardState } from '../../src/storage/raft-wal/types.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { entry, newestSegment, openWal, outcome, plain, segmentNames } from './raft-wal-support.ts';

const NONE = { term: 0, vote: '', commit: 0 };

test('a new log is empty and a closed one comes back as it was', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const first = openWal(dir);
  assert.deepEqual(first.state, { hardState: NONE, entries: [], snapshot: null });
  first.wal.append([entry(1, 'a'), entry(2, ''), entry(3, 'c')], { term: 1, vote: 'node-ä', commit: 2 });
  first.wal.append([{ ...entry(4, 'd'), type: 255 }], null);
  first.wal.sync();
  first.wal.close();
  const second = openWal(dir);
  assert.deepEqual(plain(second.state.entries), ['1@1/0:a', '2@1/0:', '3@1/0:c', '4@1/255:d']);
  assert.deepEqual(second.state.hardState, { term: 1, vote: 'node-ä', commit: 2 });
  assert.equal(second.wal.lastIndex, 4);
  second.wal.close();
});

test('an overwritten suffix is gone after a reopen, across segments and dropped segments too', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const options = { segmentBytes: 2048 };
  const { wal } = openWal(dir, options);
  for (let i = 1; i <= 20; i++) wal.append([entry(i, 200)], null);
  wal.append([entry(10, 'x', 2), entry(11, 'y', 2)], { term: 2, vote: '', commit: 9 });
  assert.equal(wal.lastIndex, 11);
  wal.close();
  const again = openWal(dir, options);
  assert.deepEqual(
    again.state.entries.map(({ index, term }) => `${index}@${term}`),
    [...Array.from({ length: 9 }, (_, i) => `${i + 1}@1`), '10@2', '11@2'],
  );
  again.wal.close();
});

test('[R7] a commit beyond the last entry is neither written nor believed', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir);
  wal.append([entry(1)], { term: 1, vote: '', commit: 1 });
  assert.throws(() => wal.append([entry(2)], { term: 1, vote: '', commit: 3 }), /commit 3 is beyond the last entry 2/);
  assert.throws(() => wal.append([entry(1, 'other', 2)], null), /overwrite what is committed/);
  assert.throws(() => wal.append([entry(4)], null), /gap/);
  wal.append([entry(2)], { term: 1, vote: '', commit: 2 });
  wal.sync();
  wal.close();
  const again = openWal(dir);
  assert.equal(again.state.hardState.commit, 2);
  assert.equal(again.state.entries.length, 2);
  again.wal.close();
});

test('[R7] entries and the commit that speaks of them are on the disk together or not at all, cut at any byte', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir, { preallocateBytes: 0 });
  wal.append([entry(1, 60)], { term: 1, vote: 'a', commit: 0 });
  wal.sync();
  const start = readFileSync(newestSegment(dir)).length;
  wal.append([entry(2, 60), entry(3, 60)], { term: 2, vote: 'b', commit: 3 });
  wal.close();
  const good = readFileSync(newestSegment(dir));
  for (let size = start; size <= good.length; size++) {
    writeFileSync(newestSegment(dir), good.subarray(0, size));
    const { wal, state } = openWal(dir);
    wal.close();
    const whole = size === good.length;
    assert.equal(state.entries.length, whole ? 3 : 1);
    assert.deepEqual(state.hardState, whole ? { term: 2, vote: 'b', commit: 3 } : { term: 1, vote: 'a', commit: 0 });
  }
});

test('[R29] indexes, terms and commits are exact up to 2^53-2 and refused beyond', async (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const top = Number.MAX_SAFE_INTEGER - 1;
  const { wal } = openWal(dir);
  const writer = wal.beginSnapshot({ index: top - 8, term: top, meta: new Uint8Array(0) });
  writer.write(Buffer.from('state'));
  await writer.finish('installed');
  for (let index = top - 7; index <= top; index++) {
    wal.append([entry(index, 8, top)], { term: top, vote: '', commit: index });
  }
  assert.throws(() => wal.append([entry(top + 1, 8, top)], null), /beyond 2\^53-2/);
  assert.throws(() => wal.append([entry(2 ** 63 - 10, 8, top)], null));
  wal.sync();
  wal.close();
  const again = openWal(dir);
  assert.equal(again.state.hardState.commit, top);
  assert.equal(again.state.hardState.term, top);
  assert.equal(again.state.entries[0]?.index, top - 7);
  assert.equal(again.state.entries.at(-1)?.index, top);
  again.wal.close();
});

test('a record larger than a segment gets through, and the write buffer is given back', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir, { segmentBytes: 64 * 1024 });
  for (const [i, bytes] of [100, 1024 * 1024, 100, 6 * 1024 * 1024, 100].entries())
    wal.append([entry(i + 1, bytes)], null);
  wal.sync();
  wal.close();
  const entries = outcome(dir) as string[];
  assert.equal(entries.length, 5);
  assert.deepEqual(entries[3], plain([entry(4, 6 * 1024 * 1024)])[0]);
});

test('[S3] what is synced asynchronously does not cover what was appended during the sync', async (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir, { segmentBytes: 4096 });
  wal.append([entry(1)], null);
  const pending = wal.syncAsync();
  wal.append([entry(2)], null);
  await pending;
  assert.equal(wal.isSynced, false);
  await wal.syncAsync();
  assert.equal(wal.isSynced, true);
  // A roll while a sync is under way.
  wal.append([entry(3)], null);
  const other = wal.syncAsync();
  for (let i = 4; i <= 40; i++) wal.append([entry(i, 300)], null);
  await other;
  await wal.syncAsync();
  wal.close();
  assert.equal(outcome(dir).length, 40);
});

type Step =
  | {
      readonly kind: 'append';
      readonly count: number;
      readonly bytes: number;
      readonly back: number;
      readonly hard: boolean;
    }
  | { readonly kind: 'reopen' }
  | { readonly kind: 'snapshot'; readonly ago: number };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 12,
      arbitrary: fc.record({
        kind: fc.constant('append' as const),
        count: fc.integer({ min: 0, max: 5 }),
        bytes: fc.integer({ min: 0, max: 900 }),
        back: fc.oneof(
          { weight: 4, arbitrary: fc.constant(0) },
          { weight: 1, arbitrary: fc.integer({ min: 0, max: 9 }) },
        ),
        hard: fc.boolean(),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('reopen' as const) }) },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant('snapshot' as const), ago: fc.integer({ min: 0, max: 6 }) }),
    },
  ),
  { minLength: 1, maxLength: 40 },
);

/** What the log must say. */
class Model {
  hardState: WalHardState = NONE;
  log: WalEntry[] = [];
  snapshot = 0;
  term = 1;

  after(index: number): WalEntry[] {
    return this.log.filter((one) => one.index > index);
  }
}

async function play(wal: RaftWal, model: Model, step: Step): Promise<void> {
  if (step.kind === 'append') {
    const floor = Math.max(model.hardState.commit, model.snapshot);
    const keep = Math.max(floor, model.log.length - step.back);
    if (step.back > 0) model.term += 1;
    const entries = Array.from({ length: step.count }, (_, i) => entry(keep + 1 + i, step.bytes, model.term));
    if (entries.length > 0) model.log = [...model.log.slice(0, keep), ...entries];
    const commit = Math.max(model.hardState.commit, Math.floor(model.log.length / 2));
    const hardState = step.hard ? { term: model.term, vote: `n${model.term % 3}`, commit } : null;
    wal.append(entries, hardState);
    if (hardState !== null) model.hardState = hardState;
  } else if (step.kind === 'snapshot') {
    const index = Math.max(0, model.hardState.commit - step.ago);
    if (index <= model.snapshot) return;
    const writer = wal.beginSnapshot({ index, term: model.log[index - 1]?.term ?? 0, meta: Buffer.from('meta') });
    writer.write(Buffer.from(`state at ${index}`));
    await writer.finish('local');
    model.snapshot = index;
  }
}

test('random appends, overwrites, rolls, snapshots and reopens agree with a model', async (t) => {
  const folder = temporaryFolder(t);
  let run = 0;
  const options = { segmentBytes: 3000, preallocateBytes: 1024 };
  await fc.assert(
    fc.asyncProperty(steps, async (list) => {
      const dir = join(folder, `run-${run++}`);
      const model = new Model();
      let { wal } = openWal(dir, options);
      for (const step of [...list, { kind: 'reopen' } as const]) {
        if (step.kind !== 'reopen') {
          await play(wal, model, step);
          continue;
        }
        wal.close();
        const opened = openWal(dir, options);
        wal = opened.wal;
        assert.deepEqual(plain(opened.state.entries), plain(model.after(model.snapshot)));
        assert.deepEqual(opened.state.hardState, model.hardState);
        assert.equal(opened.state.snapshot?.index ?? 0, model.snapshot);
        assert.equal(wal.lastIndex, model.log.length);
      }
      wal.close();
    }),
    { numRuns: Number(process.env.BROKER_TEST_RUNS ?? 60) },
  );
});

test('a random cut of the file leaves a prefix of the records, never anything else', (t) => {
  const folder = temporaryFolder(t);
  const dir = join(folder, 'raft');
  const { wal } = openWal(dir, { preallocateBytes: 0 });
  const ends: number[] = [readFileSync(newestSegment(dir)).length];
  for (let i = 1; i <= 12; i++) {
    wal.append([entry(i, (i * 97) % 800)], null);
    ends.push(readFileSync(newestSegment(dir)).length);
  }
  wal.close();
  const good = readFileSync(newestSegment(dir));
  fc.assert(
    fc.property(
      fc.integer({ min: ends[0] as number, max: good.length }),
      fc.integer({ min: 0, max: 5000 }),
      (size, zeros) => {
        writeFileSync(newestSegment(dir), Buffer.concat([good.subarray(0, size), Buffer.alloc(zeros)]));
        const got = outcome(dir);
        const whole = ends.filter((end) => end <= size).length - 1;
        // With zeros behind the cut it is not the end of the file but a half-written sector, which no disk leaves.
        if (typeof got === 'string') assert.ok(zeros > 0 && !ends.includes(size), got);
        else assert.deepEqual(got, plain(Array.from({ length: whole }, (_, i) => entry(i + 1, ((i + 1) * 97) % 800))));
      },
    ),
    { numRuns: 200 },
  );
});

test('segments wholly below the older of two snapshots are dropped, nothing else', async (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir, { segmentBytes: 2048 });
  for (let i = 1; i <= 60; i++) {
    wal.append([entry(i, 300)], { term: 1, vote: '', commit: i });
    if (i % 20 !== 0) continue;
    const writer = wal.beginSnapshot({ index: i, term: 1, meta: new Uint8Array(0) });
    writer.write(Buffer.from('state'));
    await writer.finish('local');
  }
  wal.close();
  const names = readdirSync(dir);
  assert.deepEqual(
    names.filter((name) => name.startsWith('snap-')),
    ['snap-0000000000000040-0000000000000001.snap', 'snap-0000000000000060-0000000000000001.snap'],
  );
  const oldest = segmentNames(names)[0] as string;
  const firstIndex = Number(oldest.slice(4, 20));
  assert.ok(firstIndex > 30 && firstIndex <= 41, oldest);
});

test('entries keep their bytes when the log is longer than what is read at a time', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const options = { instanceId: '00112233445566778899aabbccddeeff' };
  const first = openWal(dir, options);
  const data = (index: number): Buffer => Buffer.alloc(300_000, `${index},`);
  for (let index = 1; index <= 20; index++) first.wal.append([{ term: 1, index, type: 0, data: data(index) }], null);
  first.wal.sync();
  first.wal.close();
  const second = openWal(dir, options);
  assert.equal(second.state.entries.length, 20);
  for (const { index, data: bytes } of second.state.entries)
    assert(data(index).equals(bytes), `entry ${index} has other bytes`);
  second.wal.close();
});

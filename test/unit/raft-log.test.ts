import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RaftLog } from '../../src/raft/log.ts';
import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import { type Entry, INDEX_MAX } from '../../src/raft/messages.ts';
import { NO_TERM } from '../../src/raft/storage.ts';
import { Unstable } from '../../src/raft/unstable.ts';
import { entriesOf } from './raft-group.ts';

function logOf(...terms: number[]): { log: RaftLog; storage: MemoryRaftStorage } {
  const storage = new MemoryRaftStorage();
  storage.append(entriesOf(1, ...terms));
  return { log: new RaftLog(storage, 0), storage };
}

function termsOf(log: RaftLog): number[] {
  const terms: number[] = [];
  for (let index = log.firstIndex(); index <= log.lastIndex(); index += 1) {
    terms.push(log.term(index));
  }
  return terms;
}

/** Log before, position and term before the append, its terms -> matched position (-1: refused) and log after. */
const APPENDS: readonly [before: number[], at: [number, number], append: number[], matched: number, after: number[]][] =
  [
    [[1, 2, 3], [3, 3], [], 3, [1, 2, 3]],
    [[1, 2, 3], [3, 3], [4], 4, [1, 2, 3, 4]],
    [[1, 2, 3], [3, 2], [4], -1, [1, 2, 3]],
    [[1, 2, 3], [4, 4], [4], -1, [1, 2, 3]],
    [[1, 2, 3], [0, 0], [1, 2], 2, [1, 2, 3]],
    [[1, 2, 3], [1, 1], [2, 3, 3], 4, [1, 2, 3, 3]],
    [[1, 2, 3], [1, 1], [4], 2, [1, 4]],
    [[1, 2, 3], [2, 2], [4, 4], 4, [1, 2, 4, 4]],
    [[1, 2, 3], [0, 0], [5], 1, [5]],
    [[1, 1, 1, 1], [2, 1], [1], 3, [1, 1, 1, 1]],
  ];

test('[R5] an append cuts the log only at a conflict, and says what it proves to match', () => {
  for (const [before, [index, term], append, matched, after] of APPENDS) {
    const { log } = logOf(...before);
    assert.equal(
      log.tryAppend(index, term, entriesOf(index + 1, ...append)),
      matched,
      `${before} + ${append} after ${index}/${term}`,
    );
    assert.deepEqual(termsOf(log), after, `${before} + ${append} after ${index}/${term}`);
  }
});

test('an append that conflicts with a committed entry is a broken invariant', () => {
  const { log } = logOf(1, 1, 1);
  log.commitTo(2);
  assert.throws(() => log.tryAppend(1, 1, entriesOf(2, 2)));
  assert.equal(log.tryAppend(2, 1, entriesOf(3, 2)), 3);
});

test('the commit index never falls and never passes the end', () => {
  const { log } = logOf(1, 1, 1);
  assert.equal(log.commitTo(2), true);
  assert.equal(log.commitTo(1), false);
  assert.equal(log.committed, 2);
  assert.throws(() => log.commitTo(4), /lost/);
});

test('the conflict hint passes over whole terms', () => {
  const { log } = logOf(1, 3, 3, 5, 5, 5);
  const table: [number, number, number][] = [
    [6, 5, 6],
    [6, 6, 6],
    [6, 4, 3],
    [6, 3, 3],
    [6, 2, 1],
    [6, 0, 0],
    [3, 3, 3],
    [3, 2, 1],
    [0, 9, 0],
  ];
  for (const [index, term, expected] of table) {
    assert.equal(log.findConflictByTerm(index, term), expected, `${index}/${term}`);
  }
});

test('[R8] a log of a snapshot and nothing else still knows its last term', () => {
  const storage = new MemoryRaftStorage();
  storage.applySnapshot({ index: 10, term: 4, config: { voters: ['a'], learners: [] }, ref: '' });
  const log = new RaftLog(storage, 10);
  assert.deepEqual([log.firstIndex(), log.lastIndex(), log.lastTerm()], [11, 10, 4]);
  assert.equal(log.isUpToDate(10, 3), false);
  assert.equal(log.isUpToDate(9, 4), false);
  assert.equal(log.isUpToDate(10, 4), true);
  assert.equal(log.isUpToDate(1, 5), true);
  assert.equal(log.tryAppend(10, 4, entriesOf(11, 5)), 11);
});

test('[R7] what is committed is handed out only as far as it is durable here', () => {
  const { log, storage } = logOf(1);
  log.tryAppend(1, 1, entriesOf(2, 1, 1));
  log.commitTo(3);
  assert.deepEqual(
    log.nextCommitted(1_000).map((entry) => entry.index),
    [1],
  );
  const write = log.beginWrite();
  assert.deepEqual(
    log.nextCommitted(1_000).map((entry) => entry.index),
    [1],
    'being written is not written',
  );
  storage.append(entriesOf(2, 1, 1));
  log.endWrite(write);
  assert.deepEqual(
    log.nextCommitted(1_000).map((entry) => entry.index),
    [1, 2, 3],
  );
  assert.deepEqual(log.nextCommitted(1).length, 1, 'at least one');
});

test('[R6] the end of a write proves nothing of what was replaced since, even with the same version', () => {
  const unstable = new Unstable(1);
  const version = (term: number) => entriesOf(1, term);
  unstable.truncateAndAppend(version(1), 0);
  const first = unstable.beginWrite();
  unstable.truncateAndAppend(version(2), 0);
  const second = unstable.beginWrite();
  unstable.truncateAndAppend(version(1), 0);
  const third = unstable.beginWrite();
  unstable.endWrite(first);
  assert.equal(unstable.offset, 1);
  unstable.endWrite(second);
  assert.equal(unstable.offset, 1);
  unstable.endWrite(third);
  assert.equal(unstable.offset, 2);
});

test('writes are reported in order', () => {
  const unstable = new Unstable(1);
  unstable.push(entriesOf(1, 1)[0] as Entry);
  unstable.beginWrite();
  unstable.push(entriesOf(2, 1)[0] as Entry);
  const second = unstable.beginWrite();
  assert.throws(() => unstable.endWrite(second));
});

test('[R6] at any time everything below the durable mark is on disk in the version of the log', () => {
  type Step = { kind: 'append'; at: number; count: number } | { kind: 'begin' } | { kind: 'end' };
  const step = fc.oneof(
    fc.record({ kind: fc.constant('append' as const), at: fc.nat({ max: 12 }), count: fc.integer({ min: 1, max: 4 }) }),
    fc.constant({ kind: 'begin' as const }),
    fc.constant({ kind: 'end' as const }),
  );
  fc.assert(
    fc.property(fc.array<Step>(step, { maxLength: 60 }), fc.integer({ min: 1, max: 3 }), (steps, versions) => {
      const unstable = new Unstable(1);
      const log: Entry[] = [];
      const disk: Entry[] = [];
      const writes: { write: ReturnType<Unstable['beginWrite']>; entries: readonly Entry[] }[] = [];
      let term = 0;
      for (const next of steps) {
        if (next.kind === 'append') {
          const at = Math.min(next.at, log.length);
          // Few terms, so that old versions come back.
          term = (term % versions) + 1;
          const added = Array.from({ length: next.count }, (_, i) => entriesOf(at + 1 + i, term)[0] as Entry);
          log.splice(at, log.length, ...added);
          unstable.truncateAndAppend(added, 0);
        } else if (next.kind === 'begin') {
          const entries = unstable.unwrittenEntries();
          writes.push({ write: unstable.beginWrite(), entries });
        } else {
          const done = writes.shift();
          if (done !== undefined) {
            const first = done.entries[0];
            if (first !== undefined) {
              disk.splice(first.index - 1, disk.length, ...done.entries);
            }
            unstable.endWrite(done.write);
          }
        }
        // Also under every write that is still on its way, in order.
        const later = [...disk];
        for (let under = 0; under <= writes.length; under += 1) {
          for (let index = 1; index < unstable.offset; index += 1) {
            assert.equal(later[index - 1]?.term, log[index - 1]?.term, `position ${index}, ${under} writes later`);
          }
          const first = writes[under]?.entries[0];
          if (first !== undefined) {
            later.splice(first.index - 1, later.length, ...(writes[under]?.entries ?? []));
          }
        }
      }
    }),
    { numRuns: 500 },
  );
});

test('a snapshot replaces the log at once; what it covers is not handed out', () => {
  const { log, storage } = logOf(1, 1);
  const snapshot = { index: 5, term: 2, config: { voters: ['a'], learners: [] }, ref: 'r' };
  log.restore(snapshot);
  assert.deepEqual([log.firstIndex(), log.lastIndex(), log.committed, log.term(5), log.term(2)], [6, 5, 5, 2, NO_TERM]);
  assert.equal(log.hasCommitted, false);
  log.tryAppend(5, 2, entriesOf(6, 2));
  const write = log.beginWrite();
  storage.applySnapshot(snapshot);
  storage.append(entriesOf(6, 2));
  log.endWrite(write);
  log.appliedTo(5);
  assert.equal(log.hasSnapshot, false);
  log.commitTo(6);
  assert.deepEqual(
    log.nextCommitted(1_000).map((entry) => entry.index),
    [6],
  );
});

test('entries come joined from disk and memory, in order, cut by size', () => {
  const { log } = logOf(1, 1, 1);
  log.tryAppend(3, 1, entriesOf(4, 2, 2));
  const pick = (bytesMax: number) => log.entriesFrom(2, bytesMax)?.map((entry) => entry.index);
  assert.deepEqual(pick(1_000), [2, 3, 4, 5]);
  assert.deepEqual(pick(27 * 3), [2, 3, 4]);
  assert.deepEqual(pick(0), [2]);
  assert.deepEqual(log.entriesFrom(6, 1_000), []);
});

test('[R29] positions up to 2^53 - 2 are exact, and the next one is refused', () => {
  const storage = new MemoryRaftStorage();
  const index = INDEX_MAX - 2;
  storage.applySnapshot({ index, term: INDEX_MAX - 5, config: { voters: ['a'], learners: [] }, ref: '' });
  const log = new RaftLog(storage, index);
  for (const next of [INDEX_MAX - 1, INDEX_MAX]) {
    log.push({ term: INDEX_MAX - 4, index: next, type: 0, data: new Uint8Array(0) });
    assert.equal(log.lastIndex(), next);
    assert.equal(log.term(next), INDEX_MAX - 4);
  }
  assert.throws(() => log.push({ term: INDEX_MAX - 4, index: INDEX_MAX + 1, type: 0, data: new Uint8Array(0) }));
});

test('memory storage: overwriting, compaction, and what it refuses', () => {
  const storage = new MemoryRaftStorage();
  storage.append(entriesOf(1, 1, 1, 1));
  storage.append(entriesOf(2, 2));
  assert.deepEqual([storage.lastIndex(), storage.term(2), storage.term(3)], [2, 2, NO_TERM]);
  assert.throws(() => storage.append(entriesOf(4, 2)), /gap/);
  assert.throws(() => storage.compact(1), /snapshot/);
  storage.createSnapshot(2, { voters: ['a'], learners: [] }, 'r');
  storage.compact(1);
  assert.deepEqual([storage.firstIndex(), storage.term(1), storage.term(0)], [2, 1, NO_TERM]);
  assert.equal(storage.entries(1, 3, 1_000), null);
  assert.equal(storage.entries(2, 3, 1_000)?.length, 1);
  assert.throws(() => storage.append(entriesOf(1, 3)));
});

test('memory storage: forgotten entries take no memory and their terms stay known until they are compacted', () => {
  const storage = new MemoryRaftStorage();
  storage.append(entriesOf(1, 1, 1, 2, 2, 4));
  const whole = storage.byteLength();
  storage.forget(2);
  storage.forget(1);
  storage.forget(4);
  assert.equal(storage.byteLength(), whole / 5);
  assert.deepEqual([storage.firstIndex(), storage.lastIndex()], [5, 5]);
  assert.deepEqual(
    [0, 1, 2, 3, 4, 5, 6].map((index) => storage.term(index)),
    [0, 1, 1, 2, 2, 4, NO_TERM],
  );
  assert.equal(storage.entries(4, 6, 1_000), null);
  assert.equal(storage.entries(5, 6, 1_000)?.[0]?.index, 5);
  assert.throws(() => storage.append(entriesOf(4, 5)), /applied/);
  assert.throws(() => storage.forget(6), /beyond/);

  const snapshot = storage.createSnapshot(3, { voters: ['a'], learners: [] }, 'r');
  assert.equal(snapshot.term, 2);
  storage.compact(3);
  assert.deepEqual(
    [2, 3, 4, 5].map((index) => storage.term(index)),
    [NO_TERM, 2, 2, 4],
  );
  storage.forget(5);
  storage.append(entriesOf(6, 4, 4));
  assert.deepEqual([storage.lastIndex(), storage.term(5), storage.term(7)], [7, 4, 4]);
  storage.createSnapshot(7, { voters: ['a'], learners: [] }, 'r');
  storage.compact(7);
  assert.deepEqual([storage.firstIndex(), storage.term(7), storage.term(6)], [8, 4, NO_TERM]);
});

test('a hard state whose commit is beyond the log is damage, told at the start', () => {
  const storage = new MemoryRaftStorage();
  storage.append(entriesOf(1, 1));
  storage.setHardState({ term: 1, vote: '', commit: 2 });
  assert.throws(() => new RaftLog(storage, 0), /log lost/);
});

test('[R21] what stays behind a snapshot for peers that lack a little is bounded by count and by bytes', () => {
  const storage = new MemoryRaftStorage();
  storage.append(entriesOf(1, 1, 1, 1, 1, 1));
  const one = storage.byteLength() / 5;
  assert.equal(storage.newestWithin(4, 10, 1_000_000), 4);
  assert.equal(storage.newestWithin(4, 3, 1_000_000), 3);
  assert.equal(storage.newestWithin(4, 10, 2 * one), 2);
  assert.equal(storage.newestWithin(4, 10, one - 1), 0);
  storage.forget(3);
  assert.equal(storage.newestWithin(4, 10, 1_000_000), 1);
});

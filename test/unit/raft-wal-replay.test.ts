/** Records with right checksums that contradict each other: a file is missing or a writer was defective, so none of it is believed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TYPE_APPEND, TYPE_POINTER } from '../../src/storage/raft-wal/format.ts';
import { RecordBuilder, RecordMalformed } from '../../src/storage/raft-wal/record.ts';
import { Replay } from '../../src/storage/raft-wal/replay.ts';
import type { WalEntry, WalHardState } from '../../src/storage/raft-wal/types.ts';
import { entry } from './raft-wal-support.ts';

function payload(put: (builder: RecordBuilder) => void): Uint8Array {
  const builder = new RecordBuilder();
  put(builder);
  builder.seal({ epoch: 1, previous: 0, position: 0, synced: 0 });
  return builder.bytes.subarray(32, 32 + builder.bytes.readUInt32LE(8));
}

function append(replay: Replay, entries: readonly WalEntry[], hardState: WalHardState | null = null): void {
  replay.record(
    TYPE_APPEND,
    payload((builder) => builder.putAppend(entries, hardState)),
  );
}

function point(replay: Replay, index: number, term: number, installed = false): void {
  replay.record(
    TYPE_POINTER,
    payload((builder) => builder.putPointer({ index, term, bytes: 1, crc: 1, installed })),
  );
}

const hard = (term: number, commit: number): WalHardState => ({ term, vote: '', commit });

/** Entries 1 to 5 of term 1, 3 of them committed. */
function started(): Replay {
  const replay = new Replay(1, 0);
  append(
    replay,
    [1, 2, 3, 4, 5].map((index) => entry(index)),
    hard(1, 3),
  );
  return replay;
}

const CONTRADICTIONS: readonly [string, (replay: Replay) => void][] = [
  ['[R7] a commit beyond the last entry', (replay) => append(replay, [], hard(1, 6))],
  ['[R7] an overwritten entry that was committed', (replay) => append(replay, [entry(3, 8, 2)])],
  ['a gap between entries', (replay) => append(replay, [entry(7)])],
  ['a term that falls', (replay) => append(replay, [], hard(0, 3))],
  ['a commit that falls', (replay) => append(replay, [], hard(1, 2))],
  ['a snapshot beyond the last entry', (replay) => point(replay, 6, 1)],
  ['a snapshot whose entry has another term', (replay) => point(replay, 3, 2)],
];

for (const [what, contradict] of CONTRADICTIONS) {
  test(`${what} is refused`, () => {
    assert.throws(() => contradict(started()), RecordMalformed);
  });
}

test('an entry at or below a snapshot is refused, the next one is not', () => {
  const replay = started();
  point(replay, 9, 2, true);
  assert.throws(() => append(replay, [entry(9, 8, 2)]), RecordMalformed);
  append(replay, [entry(10, 8, 2)], hard(2, 9));
  assert.equal(replay.lastIndex, 10);
});

test('a log whose older segments were dropped may overwrite entries before its first one', () => {
  const replay = new Replay(95, 0);
  append(replay, [entry(95), entry(96)], null);
  append(replay, [entry(90, 8, 2), entry(91, 8, 2)], null);
  assert.equal(replay.base, 89);
  assert.deepEqual(
    replay.entries.map(({ index, term }) => [index, term]),
    [
      [90, 2],
      [91, 2],
    ],
  );
});

/** The pure parts of the embedded store: index, caches, retention, slot transfer. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ClockSteps } from '../../src/base/clock-steps.ts';
import { subjectHash } from '../../src/base/subject.ts';
import { FreeSpace } from '../../src/storage/embedded/free-space.ts';
import { ReadArena } from '../../src/storage/embedded/read-arena.ts';
import { decideRetention, type RetentionInput } from '../../src/storage/embedded/retention.ts';
import { segmentId } from '../../src/storage/embedded/segment-format.ts';
import type { SegmentSummary } from '../../src/storage/embedded/sidecar.ts';
import { EntryCursor, EntryKind, type IndexEntry, newEntry } from '../../src/storage/embedded/slot-index.ts';
import { SubjectIndex } from '../../src/storage/embedded/subject-index.ts';
import { TailCache } from '../../src/storage/embedded/tail-cache.ts';
import { subjectRef } from './batch-support.ts';
import { MemoryDisk } from './embedded-memory-disk.ts';

const COUNT = 5;

function entryAt(base: number, kind: number, segment: number): IndexEntry {
  const check = base % 2 ** 27;
  return {
    base,
    publishedAt: base % 2 ** 45,
    count: COUNT,
    segment,
    kind,
    offset: (base % 9973) * 8,
    length: 64,
    check,
  };
}

test('the index keeps what a sorted map keeps: any order of puts, trims and dropped segments', () => {
  const names = ['a', 'b', 'c.d', 'e'.repeat(255)];
  const put = fc.record({
    kind: fc.constant('put' as const),
    subject: fc.nat(3),
    at: fc.oneof(fc.nat(40), fc.nat(400), fc.integer({ min: 1.8e15, max: 1.8e15 + 5 })),
    entryKind: fc.constantFrom(EntryKind.DATA, EntryKind.DATA, EntryKind.VOID, EntryKind.DAMAGED),
    segment: fc.integer({ min: 1, max: 3 }),
  });
  const fill = fc.record({
    kind: fc.constant('fill' as const),
    subject: fc.nat(3),
    count: fc.integer({ min: 1, max: 90 }),
  });
  const trim = fc.record({ kind: fc.constant('trim' as const), subject: fc.nat(3), at: fc.nat(500) });
  const drop = fc.record({ kind: fc.constant('drop' as const), segment: fc.integer({ min: 1, max: 3 }) });
  const step = fc.oneof(
    { weight: 10, arbitrary: put },
    { weight: 2, arbitrary: fill },
    { weight: 1, arbitrary: trim },
    { weight: 1, arbitrary: drop },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const index = new SubjectIndex();
      const model = names.map(() => new Map<number, IndexEntry>());
      const putBoth = (subject: number, entry: IndexEntry): void => {
        const map = model[subject] as Map<number, IndexEntry>;
        const holder = map.get(entry.base);
        const wins =
          holder === undefined ||
          (entry.kind !== holder.kind && (entry.kind === EntryKind.VOID || holder.kind === EntryKind.DAMAGED));
        if (wins) map.set(entry.base, entry);
        assert.equal(index.put(subjectRef(names[subject] as string), entry), wins);
      };
      for (const one of steps) {
        if (one.kind === 'put') putBoth(one.subject, entryAt(one.at * COUNT + 1, one.entryKind, one.segment));
        else if (one.kind === 'fill') {
          for (let i = 0; i < one.count; i++) putBoth(one.subject, entryAt(i * COUNT + 1, EntryKind.DATA, 1 + (i % 3)));
        } else if (one.kind === 'trim') {
          const map = model[one.subject] as Map<number, IndexEntry>;
          index.trim(subjectRef(names[one.subject] as string), one.at);
          for (const base of [...map.keys()]) if (base + COUNT <= one.at) map.delete(base);
        } else {
          index.dropSegments(new Set([one.segment]));
          for (const map of model)
            for (const [base, { segment }] of [...map]) if (segment === one.segment) map.delete(base);
        }
      }
      let batches = 0;
      for (const [i, name] of names.entries()) {
        const expected = [...(model[i] as Map<number, IndexEntry>).values()].sort((a, b) => a.base - b.base);
        const cursor = index.find(subjectRef(name));
        const found = Array.from({ length: cursor.length }, (_, at) => {
          const entry = newEntry();
          cursor.copyTo(at, entry);
          return entry;
        });
        assert.deepEqual(found, expected);
        for (const id of [1, 17, 100, 333, 9e15]) {
          const at = expected.findIndex(({ base }) => base + COUNT > id);
          assert.equal(cursor.holding(id), at < 0 ? expected.length : at);
        }
        batches += expected.length;
      }
      assert.equal(index.batches, batches);
    }),
    { numRuns: 150 },
  );
});

test('a cursor on an unknown subject is empty', () => {
  const cursor = new SubjectIndex().find(subjectRef('x'));
  assert.ok(cursor instanceof EntryCursor);
  assert.deepEqual([cursor.length, cursor.holding(1), cursor.atOrAfter(0)], [0, 0, 0]);
});

test('a subject with one batch costs less than 75 bytes beside its name', (t) => {
  const index = new SubjectIndex();
  const count = 100_000;
  let names = 0;
  for (let i = 0; i < count; i++) {
    const bytes = Buffer.from(`device.${i}.state`);
    names += bytes.length;
    index.put({ bytes, hash: subjectHash(bytes, 0, bytes.length) }, entryAt(1, EntryKind.DATA, 1));
  }
  const each = (index.byteLength() - names) / count;
  t.diagnostic(`${each.toFixed(1)} bytes`);
  assert.ok(each < 75, `${each.toFixed(1)} bytes`);
});

test('a slot moves: what another index imports is what was exported', async () => {
  const { transferablesOf } = await import('../../src/storage/embedded/slot-transfer.ts');
  const source = new SubjectIndex();
  const target = new SubjectIndex();
  const before = new SubjectIndex();
  // Small blocks of every size, and lists of their own.
  const fill = (index: SubjectIndex, from: number, to: number): void => {
    for (let i = from; i < to; i++) {
      index.put(subjectRef(`s.${i % 700}`), entryAt(i * COUNT + 1, i % 3, 1 + (i % 5)));
      index.put(subjectRef(`many.${i % 5}`), entryAt(i * COUNT + 1, i % 3, 1 + (i % 5)));
    }
  };
  fill(source, 0, 3_000);
  fill(before, 0, 3_000);
  const noted = source.rowFor(Buffer.from('s.1'), 0, 3, subjectRef('s.1').hash).slot.table;
  for (let slot = 0; slot < 1024; slot++) {
    const columns = source.takeSlot(slot);
    if (columns === null) continue;
    // As a message does it: the memory changes hands and is not copied.
    const received = structuredClone(columns, { transfer: transferablesOf([columns]) });
    assert.equal(columns.slab.length, 0, 'the sender keeps nothing');
    target.giveSlot(slot, received);
  }
  assert.equal(source.batches, 0);
  assert.ok(noted.find(Buffer.from('s.1'), 0, 3, subjectRef('s.1').hash) >= 0, 'notes of a segment point to its names');
  // It can be written on.
  fill(target, 3_000, 4_000);
  fill(before, 3_000, 4_000);
  assert.equal(target.batches, before.batches);
  before.forEach((name, hash, cursor) => {
    const other = target.find({ bytes: Buffer.from(name), hash });
    assert.equal(other.length, cursor.length);
    const [a, b] = [newEntry(), newEntry()];
    for (let i = 0; i < cursor.length; i++) {
      cursor.copyTo(i, a);
      other.copyTo(i, b);
      assert.deepEqual(b, a);
    }
  });
});

test('the tail cache finds every byte of what it still holds, and never anything else', () => {
  const step = fc.record({ sectors: fc.integer({ min: 1, max: 9 }), isAborted: fc.boolean(), rolls: fc.nat(9) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
      const cache = new TailCache(3, 16 * 512 + 100);
      const written: { segment: number; position: number; length: number; mark: number }[] = [];
      let number = 1;
      let position = 512;
      for (const [i, { sectors, isAborted, rolls }] of steps.entries()) {
        if (rolls === 0) {
          number += 1;
          position = 512;
        }
        const length = sectors * 512;
        const at = cache.stage(length);
        assert.equal(at < 0, sectors > 8);
        if (at >= 0) cache.bytes.fill(i & 0xff, at, at + length);
        if (at >= 0 && isAborted) cache.abort();
        if (isAborted) continue;
        if (at >= 0) cache.commit(segmentId(3, number), position);
        written.push({ segment: segmentId(3, number), position, length, mark: i & 0xff });
        position += length;
      }
      for (const [i, group] of written.entries()) {
        const at = cache.find(group.segment, group.position + group.length - 8);
        if (at >= 0) assert.equal(cache.bytes[at], group.mark, `group ${i} of ${written.length}`);
        assert.equal(cache.find(group.segment + (1 << 20), group.position), -1, 'of another lane');
      }
      const last = written.at(-1);
      if (last !== undefined && last.length <= 8 * 512)
        assert.ok(cache.find(last.segment, last.position) >= 0 || steps.at(-1)?.isAborted);
    }),
    { numRuns: 100 },
  );
});

test('the read arena gives back what was put last under a key, or nothing', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(12), fc.integer({ min: 1, max: 500 })), { maxLength: 300 }), (reads) => {
      const arena = new ReadArena(1000);
      const last = new Map<number, { length: number; mark: number }>();
      for (const [i, [key, length]] of reads.entries()) {
        const at = arena.claim(length);
        arena.bytes.fill(i & 0xff, at, at + length);
        arena.put(key, at, length);
        last.set(key, { length, mark: i & 0xff });
        for (const [other, { length: size, mark }] of last) {
          const found = arena.get(other, size);
          assert.ok(found === null || (found.length === size && found.every((byte) => byte === mark)));
          assert.equal(arena.get(other, size + 1), null);
        }
        assert.ok(arena.get(key, length) !== null);
      }
    }),
    { numRuns: 60 },
  );
});

const DAY = 86_400_000;
const NOW = 1_700_000_000_000;

function summary(number: number, more: Partial<SegmentSummary> = {}): SegmentSummary {
  return {
    segment: segmentId(0, number),
    nonce: 1,
    length: 100,
    newest: NOW - (10 - number) * DAY,
    oldest: 1,
    expiresAt: 0,
    batchBytes: 50,
    subjects: 1,
    batches: 1,
    chain: 0,
    damaged: 0,
    ...more,
  };
}

function drops(input: Partial<RetentionInput>): string[] {
  const decided = decideRetention({
    segments: [3, 1, 2].map((number) => summary(number)),
    openBytes: 50,
    policy: { maxAgeMs: 0, maxBytes: 0 },
    logTime: NOW,
    wallTime: NOW,
    clockStepped: false,
    ...input,
  });
  return decided.map(({ segment, reason }) => `${segment.segment} ${reason}`);
}

test('[S10] retention by age goes by log time and wall clock, whichever is earlier', () => {
  const policy = { maxAgeMs: 8 * DAY, maxBytes: 0 };
  assert.deepEqual(drops({}), [], 'no policy, nothing goes');
  assert.deepEqual(drops({ policy }), ['1 max_age', '2 max_age']);
  assert.deepEqual(
    drops({ policy, wallTime: NOW + 3650 * DAY }),
    ['1 max_age', '2 max_age'],
    'wall clock 10 years ahead',
  );
  assert.deepEqual(drops({ policy, logTime: NOW + 3650 * DAY }), ['1 max_age', '2 max_age'], 'log time 10 years ahead');
  assert.deepEqual(drops({ policy, wallTime: NOW - DAY }), ['1 max_age']);
  assert.deepEqual(drops({ policy, logTime: NOW - 2 * DAY }), []);
  assert.deepEqual(drops({ policy, clockStepped: true }), [], 'not after a step of the clock');
});

test('retention by size drops the oldest while all together are larger', () => {
  for (const [maxBytes, expected] of [
    [350, []],
    [349, ['1 max_bytes']],
    [250, ['1 max_bytes']],
    [150, ['1 max_bytes', '2 max_bytes']],
    [1, ['1 max_bytes', '2 max_bytes', '3 max_bytes']],
  ] as const) {
    assert.deepEqual(drops({ policy: { maxAgeMs: 0, maxBytes } }), expected, `${maxBytes}`);
    assert.deepEqual(drops({ policy: { maxAgeMs: 0, maxBytes }, clockStepped: true }), expected, 'no clock is asked');
  }
});

test('retention by size drops nothing for which there is room once what has expired is gone', () => {
  const segments = [summary(1), summary(2, { expiresAt: NOW - 60_000 }), summary(3)];
  for (const [maxBytes, expected] of [
    [349, ['2 expired']],
    [250, ['2 expired']],
    [249, ['1 max_bytes', '2 expired']],
  ] as const) {
    assert.deepEqual(drops({ segments, policy: { maxAgeMs: 0, maxBytes } }), expected, `${maxBytes}`);
  }
});

test('[S10] a segment goes when all in it has expired, with a minute to spare by both clocks; one that never expires stays', () => {
  const segments = [summary(1, { expiresAt: NOW - 60_000 }), summary(2, { expiresAt: NOW - 59_999 }), summary(3)];
  assert.deepEqual(drops({ segments }), ['1 expired']);
  assert.deepEqual(drops({ segments, logTime: NOW - 1 }), []);
  assert.deepEqual(drops({ segments, wallTime: NOW - 1 }), []);
  assert.deepEqual(drops({ segments, wallTime: NOW + 3650 * DAY }), ['1 expired']);
  assert.deepEqual(drops({ segments, clockStepped: true }), []);
});

test('[S10] a step of the clock by more than a minute, either way, keeps deletion quiet for ten minutes; drift does not', () => {
  for (const step of [61_000, -61_000, 3650 * DAY, -3_600_000]) {
    const watch = new ClockSteps(NOW, 0);
    assert.equal(watch.observe(NOW + 30_000, 30_000), false);
    assert.equal(watch.observe(NOW + 60_000 + step, 60_000), true);
    assert.equal(watch.observe(NOW + 659_000 + step, 659_000), true);
    assert.equal(watch.observe(NOW + 660_000 + step, 660_000), false);
  }
  const watch = new ClockSteps(NOW, 0);
  for (let minute = 1; minute < 100; minute++)
    assert.equal(watch.observe(NOW + minute * 61_000, minute * 60_000), false);
});

test('free space is asked for once a second at most, and what was written since is taken off', () => {
  const disk = new MemoryDisk();
  let now = 0;
  disk.free = 1000;
  const space = new FreeSpace(disk, '/', 300, () => now);
  assert.equal(space.isShortOf(700), false);
  assert.equal(space.isShortOf(701), true);
  space.used(400);
  disk.free = 0;
  assert.equal(space.isShortOf(300), false);
  assert.equal(space.isShortOf(301), true);
  assert.equal(disk.freeAsked, 1);
  now = 999;
  assert.equal(space.isShortOf(300), false);
  now = 1000;
  assert.equal(space.isShortOf(1), true);
  assert.equal(disk.freeAsked, 2);
});

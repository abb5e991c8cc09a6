/** The contract's part on reading a range from its end. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { MessageStore, ReadResult, SealedBatch, SubjectRef } from '../../src/storage/store.ts';
import { dataBatch, plain, subjectRef, voidBatch } from '../unit/batch-support.ts';
import { ALL, readAll, type Shown, type StoreTest, shown, TIME, texts } from './store-support.ts';

/** Everything from `until` down to the first id, answer by answer. */
async function readAllBack(
  store: MessageStore,
  subject: SubjectRef,
  { until, maxBytes }: { readonly until: number; readonly maxBytes: number },
): Promise<Shown[]> {
  const all: Shown[] = [];
  for (let next = until; next >= 1; ) {
    const answer: ReadResult = await store.readBack(subject, 1, next, maxBytes);
    all.push(...shown(subject, answer.items));
    assert.ok(answer.next < next && answer.next >= 0, 'a read moves on');
    next = answer.next;
  }
  return all;
}

export function readBackTests(storeTest: StoreTest): void {
  storeTest('a range read downwards returns the same from the other end', async ({ store, reopen }) => {
    const subject = subjectRef('ranges.back');
    const batches: SealedBatch[] = [];
    // Over ids that a store may file apart (1,024), with batches that lie on both sides, and beyond what it may fetch at a time (256 batches).
    for (let i = 0; i < 420; i++) {
      const base = i < 400 ? 800 + i * 3 : 4_000 + (i - 400) * 700;
      const count = i < 400 ? 3 : 700;
      if (i % 11 === 7) continue;
      batches.push(i % 4 === 3 ? voidBatch(subject, base, count) : dataBatch(subject, texts(`${i}`, count), { base }));
    }
    for (let at = 0; at < batches.length; at += 100) await store.append(batches.slice(at, at + 100));
    const end = 4_000 + 20 * 700;
    const range = fc.record({
      from: fc.oneof(fc.integer({ min: 1, max: 2_200 }), fc.integer({ min: 1, max: end + 10 })),
      span: fc.oneof(fc.nat(40), fc.nat(1_300), fc.nat(end)),
      maxBytes: fc.oneof(fc.nat(2_000), fc.nat(1 << 20)),
    });
    for (const next of [() => store, reopen]) {
      const under = await next();
      await fc.assert(
        fc.asyncProperty(range, async ({ from, span, maxBytes }) => {
          const until = from + span;
          const wanted = batches.filter(({ base, count }) => base <= until && base + count > from).toReversed();
          const { items, next } = await under.readBack(subject, from, until, maxBytes);
          const got = shown(subject, items).map(({ from: first, kind }) => `${kind}@${first}`);
          assert.deepEqual(
            got,
            wanted.slice(0, got.length).map(({ base, kind }) => `${kind}@${base}`),
          );
          assert.ok(wanted.length === 0 || got.length > 0, 'at least one');
          const rest = wanted[got.length];
          if (rest === undefined) assert.ok(next >= from - 1 && next < Math.max(from, wanted.at(-1)?.base ?? from));
          else assert.ok(next < (wanted[got.length - 1]?.base ?? 0) && next >= rest.base + rest.count - 1);
          if (got.length === 0) assert.equal(next, from - 1);
          const bytes = wanted
            .slice(0, Math.max(0, got.length - 1))
            .reduce((sum, batch) => sum + batch.bytes.length, 0);
          assert.ok(got.length < 2 || bytes < Math.max(1, maxBytes), 'about maxBytes');
        }),
        { numRuns: 60 },
      );
      const upwards = await readAll(under, subject);
      for (const maxBytes of [1, 3_000, 1 << 20]) {
        assert.deepEqual((await readAllBack(under, subject, { until: end + 5, maxBytes })).toReversed(), upwards);
      }
    }
  });

  storeTest('[P8] in both directions: damage is told, marks are marks, what is gone is a hole', async (under) => {
    const { store } = under;
    const subject = subjectRef('hurt');
    const batches = Array.from({ length: 12 }, (_, i) =>
      dataBatch(subject, texts(`hurt ${i}`, 3), { base: i * 3 + 1 }),
    );
    const mark = voidBatch(subject, 16, 3);
    // Expired long ago: a store keeps it, or has dropped it, or does not take it any more.
    const gone = dataBatch(subject, [plain('a', 1), plain('b', 1), plain('c', 1)], { base: 25, publishedAt: TIME });
    const group = batches.map((batch) => (batch.base === mark.base ? mark : batch.base === gone.base ? gone : batch));
    await store.append(group);
    const hurt = group[2] as SealedBatch;
    const again = await under.damage(hurt, hurt.bytes.indexOf('hurt'));
    const upwards = await readAll(again, subject);
    const kinds = upwards.filter(({ from }) => from !== gone.base).map(({ kind, from, to }) => `${kind} ${from}-${to}`);
    const told = group.filter(({ base }) => base !== gone.base);
    const kindOf = (batch: SealedBatch): string => (batch === hurt ? 'damaged' : batch.kind);
    assert.deepEqual(
      kinds,
      told.map((batch) => `${kindOf(batch)} ${batch.base}-${batch.base + batch.count}`),
    );
    for (const maxBytes of [1, 300, 1 << 20]) {
      assert.deepEqual((await readAllBack(again, subject, { until: ALL, maxBytes })).toReversed(), upwards);
    }
    assert.ok((await again.stats()).damaged > 0);
    const answer = await again.readBack(subject, gone.base, gone.base + 2, 1_000);
    assert.equal(answer.next, gone.base - 1);
  });
}

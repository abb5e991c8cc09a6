/** What every MessageStore must do: one suite, run over each implementation. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BrokerError } from '../../src/base/errors.ts';
import { Prng } from '../../src/base/prng.ts';
import { BatchView } from '../../src/batch/batch-view.ts';
import { EmbeddedStore } from '../../src/storage/embedded/embedded-store.ts';
import {
  type BeyondHead,
  type DatabaseStore,
  type MessageStore,
  type ReadMemory,
  type SealedBatch,
  StoreUncertain,
  type SubjectRef,
} from '../../src/storage/store.ts';
import { dataBatch, type Message, plain, subjectRef, voidBatch } from '../unit/batch-support.ts';
import { readBackTests } from './read-back.ts';
import {
  type OpenStore,
  readAll,
  type Shown,
  type StoreTest,
  type StoreUnderTest,
  shown,
  TIME,
  texts,
} from './store-support.ts';

export { readAll, type Shown, type StoreUnderTest };

/** Batches of a group, and every how manieth is read back, where there are many subjects. */
const GROUP = 1_000;
const SAMPLE = 499;

/** Memory that is given out from its beginning again and again. */
class Lent implements ReadMemory {
  readonly #bytes: Buffer;
  used = 0;

  constructor(length: number) {
    this.#bytes = Buffer.alloc(length);
  }

  take(length: number): Buffer {
    if (this.used + length > this.#bytes.length) return Buffer.alloc(length);
    this.used += length;
    return this.#bytes.subarray(this.used - length, this.used);
  }
}

/** As the publish path does it: the same group again, until the store says what became of it. */
export async function appendUntilKnown(store: MessageStore, group: readonly SealedBatch[]): Promise<number> {
  for (let attempts = 1; ; attempts++) {
    try {
      await store.append(group);
      return attempts;
    } catch (error) {
      const isWorthIt =
        error instanceof StoreUncertain || (error instanceof BrokerError && error.reason === 'STORE_UNAVAILABLE');
      if (!isWorthIt || attempts > 2_000) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

function sorted(heads: ReadonlyMap<string, number>): [string, number][] {
  return [...heads].sort(([a], [b]) => (a < b ? -1 : 1));
}

function nameOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}

/** What a start finds that is beyond the heads of its log, by name. */
async function beyond(store: MessageStore, given: ReadonlyMap<string, number>): Promise<BeyondHead | null> {
  const headOf = (subject: Uint8Array): number => given.get(nameOf(subject)) ?? 0;
  if (!(store instanceof EmbeddedStore)) {
    assert.ok('beyond' in store, 'neither embedded nor a database');
    return await (store as DatabaseStore).beyond(async (subjects) => subjects.map(headOf));
  }
  let found: BeyondHead | null = null;
  store.heads((name, _hash, lastId) => {
    const head = headOf(name);
    if (lastId > head) found = { subject: Uint8Array.from(name), lastId, head };
  });
  return found;
}

/** What `cluster recover` finds: the last id of every subject by name, and the newest time. */
async function newest(store: MessageStore): Promise<{ heads: Map<string, number>; time: number }> {
  const heads = new Map<string, number>();
  const visit = (subject: Uint8Array, lastId: number): void => {
    assert.ok(!heads.has(nameOf(subject)), 'a subject comes twice');
    heads.set(nameOf(subject), lastId);
  };
  if (!(store instanceof EmbeddedStore)) return { time: await (store as DatabaseStore).newest(visit), heads };
  let time = 0;
  store.heads((name, _hash, lastId, publishedAt) => {
    time = Math.max(time, publishedAt);
    visit(name, lastId);
  });
  return { heads, time };
}

export async function bodiesOf(store: MessageStore, subject: SubjectRef): Promise<string[]> {
  return (await readAll(store, subject)).flatMap(({ bodies }) => bodies ?? []);
}

/** `subjectsMany`: subjects that the store takes within a few seconds, up to 100,000; in the long form it is always that. */
export function messageStoreSuite(name: string, open: OpenStore, subjectsMany = 100_000): void {
  const storeTest: StoreTest = (title, body) => {
    test(`${name}: ${title}`, async (t) => {
      const under = await open(t);
      await body(under, t);
    });
  };

  storeTest('what was appended is read back, in base order, and again after a restart', async ({ store, reopen }) => {
    const subject = subjectRef('orders.eu');
    await store.append([dataBatch(subject, texts('a', 3), { base: 1 })]);
    await store.append([
      dataBatch(subject, texts('c', 2), { base: 6, publishedAt: TIME + 2 }),
      dataBatch(subject, texts('b', 2), { base: 4, publishedAt: TIME + 1 }),
    ]);
    const bodies = ['a-0', 'a-1', 'a-2', 'b-0', 'b-1', 'c-0', 'c-1'];
    assert.deepEqual(await bodiesOf(store, subject), bodies);
    assert.equal(await store.lastId(subject), 7);
    const again = await reopen();
    assert.deepEqual(await bodiesOf(again, subject), bodies);
    assert.equal(await again.lastId(subject), 7);
  });

  storeTest(
    'an append is idempotent under (subject, base): alone, in one group, after a restart',
    async ({ store, reopen }) => {
      const subject = subjectRef('again');
      const batch = dataBatch(subject, texts('m', 3));
      const other = dataBatch(subject, texts('n', 2), { base: 4 });
      await store.append([batch]);
      await store.append([batch]);
      await store.append([other, batch, other]);
      const stored = [
        { kind: 'data', from: 1, to: 4, bodies: ['m-0', 'm-1', 'm-2'] },
        { kind: 'data', from: 4, to: 6, bodies: ['n-0', 'n-1'] },
      ];
      assert.deepEqual(await readAll(store, subject), stored);
      const again = await reopen();
      await again.append([other]);
      assert.deepEqual(await readAll(again, subject), stored);
      assert.equal((await again.subjectStats(subject)).batches, 2);
    },
  );

  for (const order of [
    'mark first',
    'data first',
    'one group, mark first',
    'one group, data first',
    'at the same time',
  ] as const) {
    storeTest(`a void mark beats data: ${order}`, async ({ store, reopen }) => {
      const subject = subjectRef('marks');
      const data = dataBatch(subject, texts('late', 2), { base: 5 });
      const mark = voidBatch(subject, 5, 2);
      const pair = order.endsWith('mark first') ? [mark, data] : [data, mark];
      if (order.startsWith('one group')) await store.append(pair);
      else if (order === 'at the same time') await Promise.all(pair.map((batch) => store.append([batch])));
      else for (const batch of pair) await store.append([batch]);
      assert.deepEqual(await readAll(store, subject), [{ kind: 'void', from: 5, to: 7 }]);
      assert.equal(await store.lookup(subject, 5), 'void');
      const again = await reopen();
      assert.deepEqual(await readAll(again, subject), [{ kind: 'void', from: 5, to: 7 }]);
      await again.append([data]);
      assert.equal(await again.lookup(subject, 5), 'void');
      assert.equal(await again.lastId(subject), 6);
    });
  }

  storeTest(
    '[S11] lookup tells data, void mark and nothing apart, by base, and so it stays',
    async ({ store, reopen }) => {
      const subject = subjectRef('lookups');
      await store.append([dataBatch(subject, texts('m', 3)), voidBatch(subject, 4, 2)]);
      for (const next of [() => store, reopen]) {
        const under = await next();
        const found = await Promise.all([1, 2, 3, 4, 5, 6].map((base) => under.lookup(subject, base)));
        assert.deepEqual(found, ['data', 'absent', 'absent', 'void', 'absent', 'absent']);
        assert.equal(await under.lookup(subjectRef('other'), 1), 'absent');
      }
    },
  );

  storeTest('a range read returns what intersects it, and says how far it went', async ({ store, reopen }) => {
    const subject = subjectRef('ranges');
    const batches: SealedBatch[] = [];
    for (let i = 0; i < 20; i++) {
      const base = i * 5 + 1;
      if (i === 7) continue;
      batches.push(i % 4 === 3 ? voidBatch(subject, base, 5) : dataBatch(subject, texts(`${i}`, 5), { base }));
    }
    await store.append(batches);
    for (const next of [() => store, reopen]) {
      const under = await next();
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 1, max: 110 }), fc.nat(40), fc.nat(2000), async (from, span, maxBytes) => {
          const until = from + span;
          const wanted = batches.filter(({ base, count }) => base <= until && base + count > from);
          const { items, next } = await under.read(subject, from, until, maxBytes);
          const got = shown(subject, items).map(({ from: first, kind }) => `${kind}@${first}`);
          assert.deepEqual(
            got,
            wanted.slice(0, got.length).map(({ base, kind }) => `${kind}@${base}`),
          );
          assert.ok(wanted.length === 0 || got.length > 0, 'at least one');
          if (got.length < wanted.length) assert.ok(next > from && next <= (wanted[got.length]?.base ?? 0));
          else assert.equal(next, until + 1);
          const bytes = wanted
            .slice(0, Math.max(0, got.length - 1))
            .reduce((sum, batch) => sum + batch.bytes.length, 0);
          assert.ok(got.length < 2 || bytes < Math.max(1, maxBytes), 'about maxBytes');
        }),
        { numRuns: 60 },
      );
    }
  });

  readBackTests(storeTest);

  storeTest('reading an unknown subject finds nothing and creates nothing', async ({ store }) => {
    const before = (await store.stats()).subjects;
    const unknown = subjectRef('never.published');
    assert.deepEqual(await store.read(unknown, 1, 100, 1000), { items: [], next: 101 });
    assert.deepEqual(await store.readBack(unknown, 3, 100, 1000), { items: [], next: 2 });
    assert.equal(await store.lastId(unknown), 0);
    assert.equal(await store.findTime(unknown, 0), null);
    await store.trim(unknown, 10);
    assert.deepEqual(await store.subjectStats(unknown), { batches: 0, bytes: 0 });
    assert.equal((await store.stats()).subjects, before);
  });

  storeTest(
    'reads by time: the first message published at or after it; marks are skipped',
    async ({ store, reopen }) => {
      const subject = subjectRef('times');
      const times = [10, 10, 20, 30, 30, 30, 50];
      const isMark = [false, true, false, true, false, true, false];
      const group = times.map((time, i) =>
        isMark[i] === true
          ? voidBatch(subject, i * 2 + 1, 2, i === 3 ? 0 : TIME + time)
          : dataBatch(subject, texts(`${i}`, 2), { base: i * 2 + 1, publishedAt: TIME + time }),
      );
      await store.append(group);
      for (const next of [() => store, reopen]) {
        const under = await next();
        // Around each time: a store far away takes some ten questions for each.
        for (const ms of [0, 9, 10, 11, 19, 20, 21, 29, 30, 31, 49, 50, 51, 55]) {
          const at = times.findIndex((time, i) => time >= ms && isMark[i] === false);
          assert.equal(await under.findTime(subject, TIME + ms), at < 0 ? null : at * 2 + 1, `${ms}`);
        }
      }
    },
  );

  storeTest('readers that lend memory get the same, also when several read at once', async ({ store, reopen }) => {
    const subject = subjectRef('lent');
    const bodies = Array.from({ length: 40 }, (_, i) => plain(`${i} `.repeat(4_000)));
    const batches = bodies.map((message, i) => dataBatch(subject, [message], { base: i + 1 }));
    for (let i = 0; i < batches.length; i += 4) await store.append(batches.slice(i, i + 4));
    for (const next of [() => store, reopen]) {
      const under = await next();
      // At once and from the thread pool; with room for all, and with none.
      for (const [maxBytes, memoryBytes] of [
        [1, 1 << 20],
        [400_000, 1 << 20],
        [400_000, 0],
      ] as const) {
        const readers = [1, 8, 15].map(async (from) => {
          const memory = new Lent(memoryBytes);
          for (let at = from; at <= from + 20; ) {
            memory.used = 0;
            const answer = under.read(subject, at, from + 20, maxBytes, memory);
            const { items, next: reached } = answer instanceof Promise ? await answer : answer;
            assert.deepEqual(
              shown(subject, items).map((item) => item.bodies),
              bodies.slice(at - 1, reached - 1).map(({ body }) => [Buffer.from(body).toString('latin1')]),
            );
            at = reached;
          }
          for (let at = from + 20; at >= from; ) {
            memory.used = 0;
            const answer = under.readBack(subject, from, at, maxBytes, memory);
            const { items, next: reached } = answer instanceof Promise ? await answer : answer;
            assert.deepEqual(
              shown(subject, items).map((item) => item.bodies),
              bodies
                .slice(reached, at)
                .map(({ body }) => [Buffer.from(body).toString('latin1')])
                .toReversed(),
            );
            at = reached;
          }
        });
        await Promise.all(readers);
      }
    }
  });

  storeTest('[P8] expiry is stored and left to the reader, also after a restart', async ({ store, reopen }) => {
    const subject = subjectRef('expiring');
    const batch = dataBatch(subject, [plain('soon', 1), plain('never'), plain('later', 3600)], { publishedAt: 1_000 });
    await store.append([batch]);
    for (const next of [() => store, reopen]) {
      const under = await next();
      const { items } = await under.read(subject, 1, 3, 1);
      const [item] = items;
      assert.ok(item?.kind === 'data');
      const view = new BatchView();
      assert.equal(view.wrap(item.bytes, 0), null);
      const ends: number[] = [];
      while (view.next()) ends.push(view.expiresAt);
      assert.deepEqual(ends, [2_000, Number.POSITIVE_INFINITY, 3_601_000]);
    }
  });

  storeTest(
    'trim forgets the batches below, keeps the one that straddles, and is harmless twice',
    async ({ store }) => {
      const subject = subjectRef('trimmed');
      const other = subjectRef('kept');
      const group = Array.from({ length: 100 }, (_, i) => dataBatch(subject, texts(`${i}`, 10), { base: i * 10 + 1 }));
      await store.append([...group, dataBatch(other, texts('o', 1))]);
      for (const [first, oldest] of [
        [5, 1],
        [11, 11],
        [11, 11],
        [345, 341],
        [340, 341],
        [981, 981],
      ] as const) {
        await store.trim(subject, first);
        assert.equal((await readAll(store, subject))[0]?.from, oldest);
      }
      assert.equal(await store.lookup(subject, 971), 'absent');
      await store.trim(subject, 1001);
      assert.deepEqual(await readAll(store, subject), []);
      assert.deepEqual(await bodiesOf(store, other), ['o-0']);
      await store.append([dataBatch(subject, texts('new', 1), { base: 1001 })]);
      assert.deepEqual(await bodiesOf(store, subject), ['new-0']);
    },
  );

  storeTest('[P4] bodies of every byte value and of 1 MiB come back unchanged', async ({ store, reopen }) => {
    const subject = subjectRef('bytes');
    const every = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    const large = Buffer.alloc(1024 * 1024, every);
    const zeros = Buffer.alloc(70_000);
    const message = (body: Buffer): Message => ({ body, headers: [{ key: 'k', value: every }], expirationSeconds: 0 });
    await store.append([dataBatch(subject, [every, large, zeros, Buffer.alloc(0)].map(message))]);
    await store.append([dataBatch(subject, [large].map(message), { base: 5 })]);
    const expected = [every, large, zeros, Buffer.alloc(0), large].map((body) => body.toString('latin1'));
    assert.deepEqual(await bodiesOf(store, subject), expected);
    assert.deepEqual(await bodiesOf(await reopen(), subject), expected);
  });

  storeTest(
    '[P4] subjects of every allowed shape, with quotes, dollars, backslashes, are kept apart',
    async ({ store, reopen }) => {
      const names = [
        "o'neill",
        'a"b',
        '$1',
        '\\x00',
        '%s',
        ';drop table',
        'ü.ö',
        'A.b',
        'a.b',
        'a.B',
        'x'.repeat(255),
        '日本.語',
      ];
      const subjects = names.map(subjectRef);
      await store.append(subjects.map((subject, i) => dataBatch(subject, [plain(`for ${i}`)])));
      const again = await reopen();
      for (const [i, subject] of subjects.entries())
        assert.deepEqual(await bodiesOf(again, subject), [`for ${i}`], names[i]);
    },
  );

  storeTest(
    '[P4] concurrent groups to many subjects: each is whole, none disturbs another',
    async ({ store, reopen }) => {
      const subjects = Array.from({ length: 8 }, (_, i) => subjectRef(`concurrent.${i}`));
      const groups = Array.from({ length: 40 }, (_, round) =>
        subjects.map((subject, i) => dataBatch(subject, texts(`${i}/${round}`, 3), { base: round * 3 + 1 })),
      );
      await Promise.all(groups.map((group) => store.append(group)));
      const again = await reopen();
      for (const [i, subject] of subjects.entries()) {
        const expected = groups.flatMap((_, round) => [0, 1, 2].map((n) => `${i}/${round}-${n}`));
        assert.deepEqual(await bodiesOf(again, subject), expected);
      }
    },
  );

  storeTest('a group is visible as a whole when its append resolves', async ({ store }) => {
    const subject = subjectRef('visible');
    const other = subjectRef('visible.too');
    for (let base = 1; base < 60; base += 2) {
      await store.append([dataBatch(subject, texts('m', 2), { base }), dataBatch(other, texts('n', 2), { base })]);
      const [mine, its] = await Promise.all([subject, other].map((each) => store.lastId(each)));
      assert.deepEqual([mine, its], [base + 1, base + 1]);
      assert.equal((await store.read(subject, base, base + 1, 1000)).items.length, 1);
    }
  });

  storeTest('ids up to 2^53-1 are exact', async ({ store, reopen }) => {
    const subject = subjectRef('far');
    const base = Number.MAX_SAFE_INTEGER - 3;
    await store.append([dataBatch(subject, texts('m', 2), { base }), voidBatch(subject, base + 2, 2)]);
    for (const next of [() => store, reopen]) {
      const under = await next();
      assert.equal(await under.lastId(subject), Number.MAX_SAFE_INTEGER);
      const { items } = await under.read(subject, base + 1, Number.MAX_SAFE_INTEGER - 1, 10_000);
      assert.deepEqual(
        items.map(({ kind, from, to }) => [kind, from, to]),
        [
          ['data', base, base + 2],
          ['void', base + 2, base + 4],
        ],
      );
      assert.equal(await under.lookup(subject, base + 2), 'void');
      const back = await under.readBack(subject, base + 1, Number.MAX_SAFE_INTEGER, 10_000);
      assert.deepEqual(
        back.items.map(({ kind, from }) => [kind, from]),
        [
          ['void', base + 2],
          ['data', base],
        ],
      );
      assert.equal(back.next, base);
    }
  });

  const count = process.env.BROKER_TEST_LONG === '1' ? 100_000 : subjectsMany;
  storeTest(`${count.toLocaleString('en')} subjects with a message each`, async ({ store, reopen }) => {
    const subjects = Array.from({ length: count }, (_, i) => subjectRef(`device.${i}.state`));
    let next = 0;
    const writer = async (): Promise<void> => {
      while (next < count) {
        const from = next;
        next += GROUP;
        await store.append(subjects.slice(from, next).map((subject, n) => dataBatch(subject, [plain(`${from + n}`)])));
      }
    };
    // Two, so that the batches of one group are made while the other is written.
    await Promise.all([writer(), writer()]);
    assert.equal((await store.stats()).subjects, count);
    const again = await reopen();
    assert.equal((await again.stats()).subjects, count);
    for (let i = 0; i < count; i += SAMPLE)
      assert.deepEqual(await bodiesOf(again, subjects[i] as SubjectRef), [`${i}`]);
  });

  storeTest('a subject with many batches is read from anywhere', async ({ store, reopen }) => {
    const subject = subjectRef('long');
    for (let round = 0; round < 10; round++) {
      const base = (i: number): number => round * 300 + i * 3 + 1;
      await store.append(
        Array.from({ length: 100 }, (_, i) => dataBatch(subject, texts(`${base(i)}`, 3), { base: base(i) })),
      );
    }
    for (const next of [() => store, reopen]) {
      const under = await next();
      for (let id = 1; id <= 3000; id += 37) {
        const { items } = await under.read(subject, id, id, 1);
        const base = id - ((id - 1) % 3);
        assert.deepEqual(shown(subject, items), [
          { kind: 'data', from: base, to: base + 3, bodies: [`${base}-0`, `${base}-1`, `${base}-2`] },
        ]);
      }
      assert.equal((await bodiesOf(under, subject)).length, 3000);
    }
  });

  storeTest(
    'whatever older copy of its log it meets, it names something that this log has not given',
    async ({ reopen }) => {
      const prng = new Prng(5);
      const subjects = Array.from({ length: 6 }, (_, i) => subjectRef(`history.${i}`));
      // What the log gave, in its order; several at a time, as one entry gives them.
      const log: { readonly subject: SubjectRef; readonly batch: SealedBatch | null; readonly lastId: number }[] = [];
      const heads = new Map<SubjectRef, number>();
      let publishedAt = TIME;
      for (let i = 0; i < 120; i++) {
        if (prng.chance(1, 3)) publishedAt += prng.nextBelow(3);
        const subject = subjects[prng.nextBelow(subjects.length)] as SubjectRef;
        const base = (heads.get(subject) ?? 0) + 1;
        const count = 1 + prng.nextBelow(3);
        heads.set(subject, base + count - 1);
        const data = dataBatch(subject, texts(`${i}`, count), { base, publishedAt });
        const batch = prng.chance(1, 5) ? voidBatch(subject, base, count, publishedAt) : data;
        // Some were never stored.
        log.push({ subject, batch: prng.chance(1, 5) ? null : batch, lastId: base + count - 1 });
      }
      const ends = new Map([...heads].map(([subject, id]) => [nameOf(subject.bytes), id]));
      assert.equal(await beyond(await reopen(), new Map()), null);
      const stored = log.flatMap(({ batch }) => batch ?? []);
      for (let i = stored.length - 1; i > 0; i--) {
        const other = prng.nextBelow(i + 1);
        [stored[i], stored[other]] = [stored[other] as SealedBatch, stored[i] as SealedBatch];
      }
      const again = await reopen();
      for (let at = 0; at < stored.length; at += 7) await again.append(stored.slice(at, at + 7));
      for (const next of [async () => again, reopen]) {
        const under = await next();
        const given = new Map<string, number>();
        for (let length = 0; length <= log.length; length++) {
          const found = await beyond(under, given);
          const isMore = log.slice(length).some(({ batch }) => batch !== null);
          assert.equal(found !== null, isMore, `${length} of ${log.length} allotments`);
          if (found !== null) {
            assert.equal(found.head, given.get(nameOf(found.subject)) ?? 0);
            assert.ok(found.lastId > found.head && found.lastId <= (ends.get(nameOf(found.subject)) ?? 0));
          }
          const allotted = log[length];
          if (allotted !== undefined) given.set(nameOf(allotted.subject.bytes), allotted.lastId);
        }
      }
    },
  );

  storeTest(
    'a recovery finds the last id of every subject, marks count, and the newest time',
    async ({ store, reopen }) => {
      assert.deepEqual(await newest(store), { heads: new Map(), time: 0 });
      const expected = new Map<string, number>();
      const group: SealedBatch[] = [];
      // Pages of a database are of 500 and 1,000.
      for (let i = 0; i < 1_000; i++) {
        const subject = subjectRef(`many.${i}.é`);
        expected.set(nameOf(subject.bytes), 2);
        group.push(dataBatch(subject, texts('m', 2), { publishedAt: TIME + (i % 7) }));
      }
      const long = subjectRef('long');
      group.push(dataBatch(long, texts('m', 3), { publishedAt: TIME + 20 }));
      group.push(dataBatch(long, texts('m', 3), { base: 5_000, publishedAt: TIME + 21 }));
      group.push(voidBatch(long, 5_003, 4, TIME + 22));
      expected.set('long', 5_006);
      for (let at = 0; at < group.length; at += 100) await store.append(group.slice(at, at + 100));
      for (const next of [async () => store, reopen]) {
        const under = await next();
        assert.deepEqual(sorted((await newest(under)).heads), sorted(expected));
        assert.equal((await newest(under)).time, TIME + 22);
      }
    },
  );

  storeTest('stats count what is stored', async ({ store }) => {
    const subject = subjectRef('counted');
    const group = [
      dataBatch(subject, texts('m', 3)),
      voidBatch(subject, 4, 1),
      dataBatch(subjectRef('other'), texts('n', 1)),
    ];
    await store.append(group);
    const { batches, subjects, bytes, damaged } = await store.stats();
    assert.deepEqual([batches, subjects, damaged], [3, 2, 0]);
    const encoded = (group[0] as SealedBatch).bytes.length + (group[1] as SealedBatch).bytes.length;
    assert.deepEqual(await store.subjectStats(subject), { batches: 2, bytes: encoded });
    assert.ok(bytes >= encoded);
  });

  storeTest(
    '[P8] a mark of an expiring batch meets it, with the time and expiry of their allotment',
    async ({ store }) => {
      const subject = subjectRef('short.lived');
      const publishedAt = Date.now();
      for (const [i, seconds] of [30, 5_000, 100_000, 10_000_000, 2 ** 31 - 1].entries()) {
        const base = i * 2 + 1;
        const data = dataBatch(subject, [plain('a', seconds), plain('b', 1)], { base, publishedAt });
        const mark = { ...voidBatch(subject, base, 2, publishedAt), expiresMax: seconds };
        await store.append([data]);
        assert.equal(await store.lookup(subject, base), 'data');
        await store.append(i % 2 === 0 ? [mark] : [data, mark, data]);
        await store.append([data]);
        assert.equal(await store.lookup(subject, base), 'void', `${seconds}`);
      }
      assert.deepEqual(
        (await readAll(store, subject)).map(({ kind, from, to }) => [kind, from, to]),
        [1, 3, 5, 7, 9].map((base) => ['void', base, base + 2]),
      );
    },
  );

  storeTest(
    '[S12] writers on one key: one batch, and where one of them marks, the mark',
    async ({ store, another }) => {
      const other = (await another?.()) ?? store;
      const subject = subjectRef('contended');
      const keys = Array.from({ length: 60 }, (_, i) => i * 2 + 1);
      const writes = keys.flatMap((base, i) => {
        const batch = dataBatch(subject, texts(`${base}`, 2), { base });
        const second = i % 3 === 0 ? voidBatch(subject, base, 2) : batch;
        const neighbours = [batch, dataBatch(subject, texts(`${base + 2}`, 2), { base: base + 2 })];
        return [store.append(neighbours.toReversed()), other.append([second]), other.append(neighbours)];
      });
      await Promise.all(writes);
      const found = await Promise.all(keys.map((base) => store.lookup(subject, base)));
      assert.deepEqual(
        found,
        keys.map((_, i) => (i % 3 === 0 ? 'void' : 'data')),
      );
      assert.equal((await readAll(store, subject)).length, 61);
    },
  );

  storeTest(
    'close finishes what was appended before it, refuses what comes after, and may be repeated',
    async ({ store, reopen }) => {
      const subject = subjectRef('closing');
      const appends = [1, 3, 5].map((base) => store.append([dataBatch(subject, texts(`${base}`, 2), { base })]));
      const closed = store.close();
      await Promise.all(appends);
      await closed;
      await assert.rejects(store.append([dataBatch(subject, texts('late', 1), { base: 7 })]), {
        reason: 'SHUTTING_DOWN',
      });
      await store.close();
      assert.equal((await bodiesOf(await reopen(), subject)).length, 6);
    },
  );
}

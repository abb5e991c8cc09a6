/** Lookups in a database: bounded, shared by those who want the same batch, and served from memory where that has it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { BrokerError } from '../../src/base/errors.ts';
import { InFlight } from '../../src/storage/in-flight.ts';
import type { ReadResult, StoredItem, SubjectRef } from '../../src/storage/store.ts';
import { RecentBatches } from '../../src/workers/shard/recent-batches.ts';
import { type FetchCall, StoredLookups } from '../../src/workers/shard/stored-lookups.ts';
import { ActiveSubject } from '../../src/workers/shard/subjects.ts';
import { dataBatch, plain, subjectRef } from './batch-support.ts';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Ids of a batch of the store below. */
const BATCH = 10;
const READS_MAX = 3;
/** What a shard lets wait at most. */
const WAITING_MAX = 2_048;

class Rig {
  readonly subject = new ActiveSubject(subjectRef('looked.up'));
  readonly recent: RecentBatches;
  /** Ids of the reads that are on their way, and how to end them. */
  readonly reads = new Map<number, { end: (answer: ReadResult) => void; fail: (error: unknown) => void }>();
  begun = 0;
  isBlocked = false;
  /** What each call got: ids of the batch, or why not. */
  readonly answers: string[] = [];
  readonly lookups: StoredLookups;

  constructor(cacheBytes = 1 << 16, waitMs = Number.POSITIVE_INFINITY) {
    this.recent = new RecentBatches(cacheBytes);
    this.lookups = new StoredLookups({
      store: { read: (_subject, from) => this.#read(from) },
      recent: this.recent,
      readsMax: READS_MAX,
      waitMs,
      answer: ({ call }, item, absent) => {
        this.answers[call] = item === undefined ? 'none' : `${item.kind} ${item.from}-${item.to - 1}`;
        if (item === undefined) absent({} as FetchCall);
      },
      refuse: ({ call }, reason) => {
        this.answers[call] = reason;
      },
      isBlocked: () => this.isBlocked,
      onProgress: () => undefined,
    });
  }

  #read(id: number): Promise<ReadResult> {
    this.begun += 1;
    assert.ok(!this.reads.has(id), `id ${id} is read twice at a time`);
    return new Promise((end, fail) => this.reads.set(id, { end, fail }));
  }

  ask(call: number, id: number, deadline = Number.POSITIVE_INFINITY): void {
    this.lookups.ask({ subject: this.subject, id, call, deadline }, () => undefined);
    this.lookups.work();
  }

  async end(id: number, answer = this.batchOf(id)): Promise<void> {
    this.reads.get(id)?.end(answer);
    this.reads.delete(id);
    await turn();
    this.lookups.work();
  }

  async fail(id: number, error: unknown): Promise<void> {
    this.reads.get(id)?.fail(error);
    this.reads.delete(id);
    await turn();
    this.lookups.work();
  }

  batchOf(id: number): ReadResult {
    const base = id - ((id - 1) % BATCH);
    const messages = Array.from({ length: BATCH }, () => plain('m'));
    const { bytes } = dataBatch(this.subject.ref, messages, { base });
    return { items: [{ kind: 'data', from: base, to: base + BATCH, base, bytes }], next: id + 1 };
  }
}

describe('lookups in a database', () => {
  it('read a bounded number at a time, in order, and refuse what is too many', async () => {
    const rig = new Rig();
    for (let call = 0; call < WAITING_MAX + 5; call++) rig.ask(call, 1 + call * BATCH);
    assert.deepEqual([...rig.reads.keys()], [1, 1 + BATCH, 1 + 2 * BATCH]);
    assert.deepEqual(
      rig.answers.filter((answer) => answer !== undefined),
      Array(5).fill('QUEUE_FULL'),
    );
    for (let call = 0; call < WAITING_MAX; call++) {
      assert.ok(rig.reads.size <= READS_MAX);
      assert.equal(rig.reads.has(1 + call * BATCH), true);
      await rig.end(1 + call * BATCH);
      assert.equal(rig.answers[call], `data ${1 + call * BATCH}-${(call + 1) * BATCH}`);
    }
    assert.equal(rig.begun, WAITING_MAX);
    assert.equal(rig.lookups.waiting, 0);
  });

  it('of one batch share one read, also those that come while it is on its way; and later ones need none', async () => {
    const rig = new Rig();
    rig.ask(0, 1);
    await rig.end(1);
    for (let call = 1; call <= BATCH; call++) rig.ask(call, BATCH + call);
    assert.deepEqual([...rig.reads.keys()], [BATCH + 1]);
    await rig.end(BATCH + 1);
    assert.equal(rig.begun, 2);
    assert.deepEqual(rig.answers, ['data 1-10', ...Array(BATCH).fill('data 11-20')]);
    rig.ask(99, 2 * BATCH);
    assert.equal(rig.answers[99], 'data 11-20');
    assert.equal(rig.begun, 2);
  });

  it('that waited for a read which brought another batch are read for themselves', async () => {
    const rig = new Rig(0);
    rig.ask(0, 5);
    await rig.end(5);
    rig.ask(1, BATCH);
    rig.ask(2, BATCH + 1);
    assert.deepEqual([...rig.reads.keys()], [BATCH]);
    await rig.end(BATCH);
    assert.deepEqual([...rig.reads.keys()], [BATCH + 1]);
    rig.ask(3, BATCH + 2);
    await rig.end(BATCH + 1);
    assert.deepEqual(rig.answers, ['data 1-10', 'data 1-10', 'data 11-20', 'data 11-20']);
  });

  it('that wait in line behind reads of other batches are answered by the first that has them', async () => {
    const rig = new Rig(0);
    for (let call = 0; call < READS_MAX; call++) rig.ask(call, 1 + call * BATCH);
    rig.ask(READS_MAX, 2);
    rig.ask(READS_MAX + 1, 3);
    await rig.end(1);
    assert.equal(rig.begun, READS_MAX);
    assert.deepEqual(rig.answers.slice(READS_MAX), ['data 1-10', 'data 1-10']);
  });

  it('that find nothing are told so, and so are others of the same id; a read that fails refuses its own only', async () => {
    const rig = new Rig();
    rig.ask(0, 1);
    rig.ask(1, 1);
    rig.ask(2, 1 + BATCH);
    await rig.end(1, { items: [], next: 2 });
    await rig.fail(1 + BATCH, new BrokerError('STORE_UNAVAILABLE'));
    assert.deepEqual(rig.answers, ['none', 'none', 'STORE_UNAVAILABLE']);
    rig.ask(3, 1 + BATCH);
    await rig.end(1 + BATCH);
    assert.equal(rig.answers[3], 'data 11-20');
  });

  it('whose deadline passed are not read', async () => {
    const rig = new Rig();
    for (let call = 0; call < READS_MAX; call++) rig.ask(call, 1 + call * BATCH);
    rig.ask(READS_MAX, 1_001, Date.now() + 60_000);
    rig.ask(READS_MAX + 1, 1_101, 1);
    rig.lookups.expire(2);
    assert.deepEqual(rig.answers.slice(READS_MAX + 1), ['DEADLINE_PASSED']);
    assert.equal(rig.lookups.waiting, 1);
    rig.ask(READS_MAX + 2, 1_201, 1);
    await rig.end(1);
    await rig.end(1 + BATCH);
    assert.equal(rig.answers[READS_MAX + 2], 'DEADLINE_PASSED');
    assert.deepEqual([...rig.reads.keys()], [1 + 2 * BATCH, 1_001]);
  });

  it('that waited for as long as a read may take are refused, whatever the reads before them do', async () => {
    const rig = new Rig(0, 1);
    for (let call = 0; call < READS_MAX + 2; call++) rig.ask(call, 1 + call * BATCH);
    const began = performance.now();
    while (performance.now() - began < 1) await turn();
    rig.lookups.expire(0);
    assert.deepEqual(rig.answers.slice(READS_MAX), ['OVERLOADED', 'OVERLOADED']);
    assert.equal(rig.lookups.waiting, 0);
    assert.equal(rig.begun, READS_MAX);
  });

  it('are answered no faster than the ring to main takes it', async () => {
    const rig = new Rig();
    rig.ask(0, 1);
    rig.ask(1, 1);
    rig.isBlocked = true;
    await rig.end(1);
    rig.ask(2, 1 + BATCH);
    assert.deepEqual(rig.answers, []);
    assert.equal(rig.reads.size, 0);
    rig.isBlocked = false;
    rig.lookups.work();
    assert.deepEqual(rig.answers, ['data 1-10', 'data 1-10']);
    assert.deepEqual([...rig.reads.keys()], [1 + BATCH]);
  });
});

describe('tasks in flight', () => {
  it('are refused beyond what may wait, and when their turn comes too late', async () => {
    const inFlight = new InFlight(1, { tasks: 2, ms: 0 });
    const gate = Promise.withResolvers<void>();
    const first = inFlight.run(() => gate.promise);
    const late = [1, 2].map(() => inFlight.run(() => assert.fail('it ran')));
    assert.equal(inFlight.waiting, 2);
    await assert.rejects(
      inFlight.run(() => assert.fail('it ran')),
      { reason: 'QUEUE_FULL' },
    );
    const began = performance.now();
    while (performance.now() - began === 0) await turn();
    gate.resolve();
    await first;
    for (const each of late) await assert.rejects(each, { reason: 'OVERLOADED' });
    assert.equal(await inFlight.run(() => 'free again'), 'free again');
    assert.equal(inFlight.waiting, 0);
  });
});

/** All batches of a subject in their order, byte for byte; what the cache may answer from them. */
function assertOf(stored: ReadonlyMap<number, Buffer>, read: ReadResult, from: number, until: number): void {
  let next = from;
  for (const [i, item] of read.items.entries()) {
    assert.equal(item.kind, 'data');
    const { base, bytes, to } = item as StoredItem & { kind: 'data' };
    assert.ok(i === 0 ? base <= from && from < to : base === next, 'a gap');
    assert.ok(stored.get(base)?.equals(bytes), `batch ${base} is not what was added`);
    next = to;
  }
  assert.ok(read.items.length > 0);
  assert.equal(read.next, Math.min(next, until + 1));
}

describe('recent batches', () => {
  it('are what was added, at every size of the memory, and the newest is there if it fits', () => {
    const step = fc.record({
      name: fc.nat({ max: 2 }),
      slot: fc.nat({ max: 30 }),
      length: fc.integer({ min: 1, max: 400 }),
    });
    const run = (steps: readonly { name: number; slot: number; length: number }[], capacity: number): void => {
      const recent = new RecentBatches(capacity);
      const subjects: SubjectRef[] = ['a', 'b', 'c'].map((name) => subjectRef(name));
      const stored = subjects.map(() => new Map<number, Buffer>());
      for (const [i, { name, slot, length }] of steps.entries()) {
        const subject = subjects[name] as SubjectRef;
        const base = 1 + slot * BATCH;
        // A batch never changes.
        const bytes = stored[name]?.get(base) ?? Buffer.alloc(length, i);
        stored[name]?.set(base, bytes);
        recent.add(subject, base, BATCH, bytes);
        const newest = recent.read(subject, base + 3, base + 3, 1);
        assert.equal(newest !== null, bytes.length <= capacity / 2);
        for (const [at, other] of subjects.entries()) {
          for (let from = 1; from < 320; from += 7) {
            const read = recent.read(other, from, from + 25, 500);
            if (read !== null) assertOf(stored[at] as Map<number, Buffer>, read, from, from + 25);
          }
        }
      }
    };
    fc.assert(fc.property(fc.array(step, { maxLength: 60 }), fc.integer({ min: 0, max: 3_000 }), run), { numRuns: 60 });
  });

  it('are forgotten when the memory gets another size, and bounded in number', () => {
    const recent = new RecentBatches(1 << 20);
    const subject = subjectRef('many');
    const byte = Buffer.alloc(1);
    for (let base = 1; base <= 20_000; base++) recent.add(subject, base, 1, byte);
    assert.equal(recent.size, 16_384);
    assert.equal(recent.read(subject, 1, 1, 1), null);
    assert.notEqual(recent.read(subject, 20_000, 20_000, 1), null);
    recent.resize(4_096);
    recent.add(subject, 20_001, 1, byte);
    assert.equal(recent.size, 1);
    assert.equal(recent.read(subject, 20_000, 20_000, 1), null);
  });
});

/** Delivery of a shard over real rings: what a reader's credit is spent on, and what happens when the ring has no room. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import type { MessageStore, ReadResult, StoredItem } from '../../src/storage/store.ts';
import { type Run, takeRun } from '../../src/workers/front/run.ts';
import { Credit, Encoding, ToMain } from '../../src/workers/link.ts';
import { Delivery } from '../../src/workers/shard/delivery.ts';
import { MainPort } from '../../src/workers/shard/main-port.ts';
import { ActiveSubject } from '../../src/workers/shard/subjects.ts';
import { dataBatch, type Message, plain, subjectRef } from './batch-support.ts';

const SUBJECT = subjectRef('delivery.test');
const SUBSCRIPTION = 7;
const GROUP = 3;

interface RigOptions {
  readonly ringBytes: number;
  readonly credit: number;
  readonly batches: readonly (readonly Message[])[];
  readonly publishedAt?: number;
}

/** A subject with the given batches in its store, one subscriber from id 1, and the main thread's end of the ring. */
class Rig {
  readonly #items: StoredItem[] = [];
  readonly #main: MainPort;
  readonly #ring: RingConsumer;
  readonly delivery: Delivery;
  readonly ids: number[] = [];
  head = 0;
  reads = 0;
  longestRun = 0;
  isRefunding = true;
  #next = 1;

  constructor({ ringBytes, credit, batches, publishedAt = Date.now() }: RigOptions) {
    for (const messages of batches) {
      const from = this.head + 1;
      this.head += messages.length;
      const { bytes } = dataBatch(SUBJECT, messages, { base: from, publishedAt });
      this.#items.push({ kind: 'data', from, to: this.head + 1, base: from, bytes });
    }
    const payload = createRing(ringBytes);
    this.#main = new MainPort(createRing(1 << 16), payload, createDoorbell());
    this.#ring = new RingConsumer(payload);
    const store = { read: this.#read } as unknown as MessageStore;
    this.delivery = new Delivery(
      store,
      this.#main,
      () => undefined,
      () => assert.fail('nothing is damaged'),
    );
    const subject = new ActiveSubject(SUBJECT);
    subject.learn({ head: this.head, settled: this.head, first: 1, everExpires: true });
    this.delivery.join(subject, { subscription: SUBSCRIPTION, group: GROUP, encoding: Encoding.MESSAGES, credit }, 1);
  }

  readonly #read = (_subject: unknown, from: number, until: number): ReadResult => {
    this.reads += 1;
    const item = this.#items.find((entry) => entry.to > from && entry.from <= until);
    return { items: item === undefined ? [] : [item], next: item?.to ?? until + 1 };
  };

  /** The main thread takes what is on the ring, and gives its credit back. */
  takeRuns(): number {
    return this.#ring.drain((type, offset, length) => {
      assert.equal(type, ToMain.READER_RUN);
      const run: Run = takeRun(this.#ring.bytes, this.#ring.view, offset, length);
      assert.equal(run.from, this.#next, 'a run does not continue the one before');
      this.#next = run.to;
      this.longestRun = Math.max(this.longestRun, length);
      this.ids.push(...run.ids);
      if (this.isRefunding) this.delivery.credit(SUBSCRIPTION, Credit.MORE, 0, run.cost);
    }, 1_000);
  }

  /** Both sides at work until neither has anything to do. */
  settle(): void {
    let rounds = 0;
    while (this.delivery.work() + this.takeRuns() > 0) {
      rounds += 1;
      assert(rounds < 100_000, 'it never ends');
    }
  }
}

const range = (to: number): number[] => Array.from({ length: to }, (_, i) => i + 1);
const batchesOf = (count: number, size: number, message: Message): Message[][] =>
  Array.from({ length: count }, () => Array.from({ length: size }, () => message));

describe('what a shard says of its subscriptions', () => {
  it('counts those that are not at the tail, and the most messages that one has before it', () => {
    const rig = new Rig({
      ringBytes: 1 << 20,
      credit: 16 << 10,
      batches: batchesOf(40, 100, plain('x'.repeat(1_000))),
    });
    assert.deepEqual(rig.delivery.behind(), { readers: 1, lagMax: 4_000 });
    rig.isRefunding = false;
    rig.settle();
    const sent = rig.ids.length;
    assert.ok(sent > 0 && sent < 4_000);
    assert.deepEqual(rig.delivery.behind(), { readers: 1, lagMax: 4_000 - sent });
    // Its stream does not drain: it stands where its client is, whatever was read for it.
    rig.delivery.credit(SUBSCRIPTION, Credit.PAUSE, 11, 0);
    assert.deepEqual(rig.delivery.behind(), { readers: 1, lagMax: 3_990 });
    rig.isRefunding = true;
    rig.delivery.credit(SUBSCRIPTION, Credit.RESUME, sent + 1, 16 << 10);
    rig.settle();
    assert.equal(rig.ids.length, 4_000);
    assert.deepEqual(rig.delivery.behind(), { readers: 0, lagMax: 0 });
    rig.delivery.leave(SUBSCRIPTION);
    assert.deepEqual(rig.delivery.behind(), { readers: 0, lagMax: 0 });
  });
});

describe('credit of a reader', () => {
  const rows = [
    { what: 'batches of one small message', batches: batchesOf(4_000, 1, plain('x')) },
    { what: 'batches of many small messages', batches: batchesOf(40, 500, plain('x')) },
    { what: 'messages larger than the credit', batches: batchesOf(20, 2, plain('y'.repeat(40_000))) },
    { what: 'a batch of many runs', batches: batchesOf(2, 300, plain('z'.repeat(1_000))) },
  ];
  for (const { what, batches } of rows) {
    it(`[F3, P6] of 16 KiB is never used up while it is given back: ${what}`, () => {
      const rig = new Rig({ ringBytes: 1 << 20, credit: 16 << 10, batches });
      rig.settle();
      assert.deepEqual(rig.ids, range(rig.head));
    });
  }

  it('[F3, P6] is not spent on messages that have expired', () => {
    const expired = batchesOf(50, 20, plain('e'.repeat(1_000), 1));
    const rig = new Rig({ ringBytes: 1 << 20, credit: 16 << 10, batches: expired, publishedAt: Date.now() - 60_000 });
    rig.settle();
    assert.deepEqual(rig.ids, []);
    assert.equal(rig.delivery.work(), 0);
  });

  it('[F2] bounds what is sent when none is given back, to one run more', () => {
    const rig = new Rig({
      ringBytes: 1 << 20,
      credit: 64 << 10,
      batches: batchesOf(40, 100, plain('x'.repeat(1_000))),
    });
    rig.isRefunding = false;
    rig.settle();
    const sent = rig.ids.length * 1_000;
    assert(sent >= 64 << 10 && sent <= (64 << 10) + rig.longestRun, `${sent} bytes were sent`);
  });
});

describe('a ring without room', () => {
  it('[W7] is waited for without reading the store again, and nothing is lost', () => {
    const rig = new Rig({ ringBytes: 1 << 17, credit: 1 << 20, batches: batchesOf(30, 10, plain('x'.repeat(3_000))) });
    while (rig.delivery.work() > 0);
    assert(rig.delivery.waiting, 'the ring is not full');
    const { reads } = rig;
    for (let round = 0; round < 100; round++) assert.equal(rig.delivery.work(), 0, 'it claims to have done something');
    assert.equal(rig.reads, reads, 'it read the store for nothing');
    rig.settle();
    assert.deepEqual(rig.ids, range(rig.head));
  });

  for (const ringBytes of [1 << 16, 1 << 17, 1 << 18]) {
    it(`of ${ringBytes >> 10} KiB gets runs that fit`, () => {
      const rig = new Rig({ ringBytes, credit: 1 << 20, batches: batchesOf(2, 3_000, plain('small')) });
      rig.settle();
      assert.deepEqual(rig.ids, range(rig.head));
      assert(rig.longestRun <= ringBytes / 2);
    });
  }
});

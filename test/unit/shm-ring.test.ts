import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AssertionError } from '../../src/base/assert.ts';
import { createRingAt, DATA_OFFSET, recordFootprint, TAIL_INDEX } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { createRing, RingProducer } from '../../src/shm/ring-producer.ts';

interface Taken {
  readonly type: number;
  readonly bytes: Buffer;
}

/** What a ring is: a queue whose records take their footprint, and sometimes a gap before the region's end. */
class Model {
  readonly queue: (Taken & { readonly footprint: number })[] = [];
  readonly capacity: number;
  #tail: number;
  used = 0;

  constructor(capacity: number, position: number) {
    this.capacity = capacity;
    this.#tail = position % capacity;
  }

  gapBefore(footprint: number): number {
    const toEnd = this.capacity - this.#tail;
    return footprint <= toEnd ? 0 : toEnd;
  }

  fits(length: number): boolean {
    const footprint = recordFootprint(length);
    return this.used + this.gapBefore(footprint) + footprint <= this.capacity;
  }

  push(type: number, bytes: Buffer, claimedLength: number): void {
    const footprint = this.gapBefore(recordFootprint(claimedLength)) + recordFootprint(bytes.length);
    this.#tail = (this.#tail + footprint) % this.capacity;
    this.used += footprint;
    this.queue.push({ type, bytes, footprint });
  }

  shift(): Taken {
    const record = this.queue.shift();
    assert.ok(record !== undefined, 'the ring gave a record that the model does not have');
    this.used -= record.footprint;
    return record;
  }
}

function drainAll(consumer: RingConsumer, limit: number): Taken[] {
  const taken: Taken[] = [];
  let count = 0;
  do {
    count = consumer.drain((type, offset, length) => {
      taken.push({ type, bytes: Buffer.from(consumer.bytes.slice(offset, offset + length)) });
    }, limit);
  } while (count > 0);
  return taken;
}

const step = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('publish' as const),
      type: fc.integer({ min: 1, max: 65_535 }),
      length: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 504 })),
      shrinkBy: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 504 })),
      seed: fc.nat(255),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('abort' as const), length: fc.integer({ min: 0, max: 504 }) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('drain' as const), limit: fc.integer({ min: 1, max: 20 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reattach' as const) }) },
);

const position = fc.oneof(
  fc.constantFrom(0, 2 ** 31 - 8, 2 ** 31 - 512, 2 ** 32 - 8, 2 ** 32 - 512),
  fc.nat(2 ** 29 - 1).map((n) => n * 8),
);

test('[W4] a ring behaves as a queue of bounded bytes, from any start position, 1 and 2 KiB', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(1_024, 2_048),
      position,
      fc.array(step, { maxLength: 120 }),
      (capacity, start, steps) => {
        const shared = createRingAt(capacity, start);
        let producer = new RingProducer(shared);
        let consumer = new RingConsumer(shared);
        const model = new Model(capacity, start);
        for (const s of steps) {
          if (s.kind === 'reattach') {
            producer = new RingProducer(shared);
            consumer = new RingConsumer(shared);
          } else if (s.kind === 'drain') {
            const got = consumer.drain((type, offset, length) => {
              assert.equal(offset % 8, 0);
              const expected = model.shift();
              assert.equal(type, expected.type);
              assert.deepEqual(Buffer.from(consumer.bytes.slice(offset, offset + length)), expected.bytes);
            }, s.limit);
            assert.ok(got <= s.limit);
            assert.ok(got > 0 || model.queue.length === 0, 'drain gave nothing of a ring that is not empty');
          } else if (s.length > producer.recordBytesMax) {
            assert.throws(() => producer.claim(1, s.length), AssertionError);
          } else {
            const offset = producer.claim(s.kind === 'abort' ? 9 : s.type, s.length);
            assert.equal(offset >= 0, model.fits(s.length), 'full when it is not, or not full when it is');
            if (offset >= 0 && s.kind === 'abort') producer.abort();
            if (offset >= 0 && s.kind === 'publish') {
              const body = Buffer.alloc(Math.max(0, s.length - s.shrinkBy), s.seed);
              producer.bytes.set(body, offset);
              producer.commit(body.length);
              model.push(s.type, body, s.length);
            }
          }
          assert.equal(producer.usedBytes(), model.used);
          assert.equal(producer.freeBytes(), capacity - model.used);
          assert.equal(consumer.usedBytes(), model.used);
          assert.equal(consumer.isEmpty(), model.queue.length === 0);
        }
        assert.deepEqual(
          drainAll(consumer, 3),
          model.queue.map(({ type, bytes }) => ({ type, bytes })),
        );
        assert.equal(producer.freeBytes(), capacity);
      },
    ),
    { numRuns: 2_000 },
  );
});

test('the longest record fits at every position of a drained ring, 1 KiB', () => {
  for (let place = 0; place < 1_024; place += 8) {
    const shared = createRingAt(1_024, place);
    const producer = new RingProducer(shared);
    assert.equal(producer.recordBytesMax, 504);
    assert.ok(producer.claim(1, 504) >= 0, `place ${place}`);
    producer.commit();
    assert.equal(drainAll(new RingConsumer(shared), 10).length, 1);
  }
});

test('[W7] a full ring answers -1 until the consumer gives space back, and then takes as much again', () => {
  const shared = createRing(1_024);
  const producer = new RingProducer(shared);
  const consumer = new RingConsumer(shared);
  for (let round = 0; round < 3; round += 1) {
    let records = 0;
    while (producer.claim(1, 56) >= 0) {
      producer.commit();
      records += 1;
    }
    assert.equal(records, 16);
    assert.equal(producer.claim(1, 0), -1);
    assert.equal(producer.freeBytes(), 0);
    assert.equal(consumer.usedBytes(), 1_024);
    assert.equal(
      consumer.drain(() => undefined, 100),
      16,
    );
  }
});

test('[W3] nothing of a record is to be seen before commit', () => {
  const shared = createRing(1_024);
  const producer = new RingProducer(shared);
  const consumer = new RingConsumer(shared);
  const offset = producer.claim(5, 16);
  producer.bytes.fill(1, offset, offset + 16);
  assert.equal(consumer.isEmpty(), true);
  assert.equal(
    consumer.drain(() => assert.fail('a record that was not committed'), 10),
    0,
  );
  producer.commit();
  assert.equal(
    consumer.drain(() => undefined, 10),
    1,
  );
});

test('space comes back once per drain, also when the handler throws, and no record is handed over twice', () => {
  const shared = createRing(1_024);
  const producer = new RingProducer(shared);
  const consumer = new RingConsumer(shared);
  for (let type = 1; type <= 5; type += 1) {
    producer.claim(type, 8);
    producer.commit();
  }
  const seen: number[] = [];
  const handler = (type: number): void => {
    seen.push(type);
    assert.equal(producer.usedBytes(), 80, 'space was given back in the middle of a drain');
    if (type === 3) throw new Error('handler');
  };
  assert.throws(() => consumer.drain(handler, 10), /handler/);
  assert.equal(producer.usedBytes(), 32);
  consumer.drain((type) => seen.push(type), 10);
  assert.deepEqual(seen, [1, 2, 3, 4, 5]);
});

test('misuse is an assertion: claim twice, commit without claim, grow, type 0, drain inside drain, a buffer that is no ring', () => {
  const shared = createRing(1_024);
  const producer = new RingProducer(shared);
  const consumer = new RingConsumer(shared);
  assert.throws(() => producer.commit(), AssertionError);
  assert.throws(() => producer.abort(), AssertionError);
  assert.throws(() => producer.claim(0, 8), AssertionError);
  assert.throws(() => producer.claim(65_536, 8), AssertionError);
  assert.throws(() => producer.claim(1, -1), AssertionError);
  assert.throws(() => producer.claim(1, producer.recordBytesMax + 1), AssertionError);
  producer.claim(1, 8);
  assert.throws(() => producer.claim(1, 8), AssertionError);
  assert.throws(() => producer.commit(9), AssertionError);
  producer.commit();
  assert.throws(() => consumer.drain(() => consumer.drain(() => undefined, 1), 1), AssertionError);
  assert.throws(() => new RingProducer(new SharedArrayBuffer(2_048)), AssertionError);
  assert.throws(() => new RingConsumer(new SharedArrayBuffer(8)), AssertionError);
  for (const capacity of [0, 512, 1_000, 1_536, 2 ** 31]) assert.throws(() => createRing(capacity), AssertionError);
  assert.throws(() => createRingAt(1_024, 4), AssertionError);
});

test('the consumer refuses a damaged header: length 0 or negative, over tail, over the end, a gap that ends early, an unknown type', () => {
  const damages: [string, number, number][] = [
    ['length 0', 0, 7],
    ['not committed', -24, 7],
    ['over tail', 64, 7],
    ['over the end', 4_096, 7],
    ['gap that ends early', 24, 0],
    ['type too large', 24, 65_536],
    ['type negative', 24, -1],
  ];
  for (const [name, length, type] of damages) {
    const shared = createRing(1_024);
    const producer = new RingProducer(shared);
    producer.claim(7, 16);
    producer.commit();
    new Int32Array(shared, DATA_OFFSET).set([length, type]);
    assert.throws(() => new RingConsumer(shared).drain(() => assert.fail(name), 1), AssertionError, name);
  }
  const shared = createRing(1_024);
  const consumer = new RingConsumer(shared);
  new Int32Array(shared)[TAIL_INDEX] = 1_032;
  assert.throws(() => consumer.isEmpty(), AssertionError, 'tail further than the capacity');
});

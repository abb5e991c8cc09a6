/** The small parts of flow control: tables over their rules. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { type SealState, shouldSeal } from '../../src/batch/seal-policy.ts';
import { CLOCK_AHEAD_MAX_MS, LogClock } from '../../src/replica/log-clock.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { RingProducer } from '../../src/shm/ring-producer.ts';
import { OverloadGuard } from '../../src/workers/front/admission.ts';
import { CallTable, Method } from '../../src/workers/front/call-table.ts';
import { Outbox } from '../../src/workers/outbox.ts';

describe('overload guard (CoDel)', () => {
  /** Waits seen in steps of 100 ms with a target of 50 ms and an interval of 500 ms; null = nothing taken up. */
  const rows: { what: string; waits: (number | null)[]; idleAt?: number; overloaded: boolean }[] = [
    { what: 'waits below the target', waits: [10, 20, 30, 40, 10, 20], overloaded: false },
    { what: 'waits above it for a whole interval', waits: [90, 80, 70, 60, 90, 80], overloaded: true },
    { what: 'one short wait among long ones', waits: [900, 900, 40, 900, 900, 900], overloaded: false },
    { what: 'a wait of exactly the target', waits: [50, 50, 50, 50, 50, 50], overloaded: false },
    { what: 'a queue that was empty once', waits: [900, 900, 900, 900, 900, 900], idleAt: 3, overloaded: false },
    { what: 'nothing taken up', waits: [null, null, null, null, null, null], overloaded: false },
    { what: 'few taken up, all late', waits: [null, null, 900, null, null, null], overloaded: true },
  ];
  for (const { what, waits, idleAt, overloaded } of rows) {
    it(`[F9] ${what}: ${overloaded ? 'overloaded' : 'not overloaded'}`, () => {
      const guard = new OverloadGuard({ targetMs: 50, intervalMs: 500 });
      guard.observe(null, 0, true);
      waits.forEach((wait, i) => {
        guard.observe(wait, (i + 1) * 100, i !== idleAt);
      });
      assert.equal(guard.overloaded, overloaded);
    });
  }

  it('[F9] refuses for an interval, then judges anew', () => {
    const guard = new OverloadGuard({ targetMs: 50, intervalMs: 500 });
    guard.observe(900, 0, true);
    assert(guard.overloaded);
    for (let now = 100; now < 500; now += 100) {
      guard.observe(10, now, true);
      assert(guard.overloaded, `let go after ${now} ms`);
    }
    guard.observe(10, 500, true);
    assert(!guard.overloaded);
  });
});

describe('call table', () => {
  const done = (): void => undefined;

  it('gives every open call a number of its own and answers the right one, in any order of ends', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 20 }), { maxLength: 200, size: 'max' }), (steps) => {
        const table = new CallTable(8);
        const open = new Map<number, { done: () => void; bytes: number; shard: number }>();
        for (const value of steps) {
          if (value < 12 && !table.full) {
            const call = { done: () => void value, bytes: value * 10, shard: value % 3 };
            const number = table.open(call.done, value % 5, call.shard, call.bytes, value);
            assert(!open.has(number), 'a number was given twice');
            assert.equal(table.method(number), value % 5);
            assert.equal(table.startedAt(number), value);
            open.set(number, call);
          } else if (open.size > 0) {
            const number = [...open.keys()][value % open.size] as number;
            assert.equal(table.close(number), open.get(number)?.done);
            open.delete(number);
          }
          assert.equal(table.inFlight, open.size);
          assert.equal(table.full, open.size === 8);
          assert.equal(
            table.bytesInFlight,
            [...open.values()].reduce((sum, { bytes }) => sum + bytes, 0),
          );
          for (const shard of [0, 1, 2]) {
            const wanted = [...open].filter(([, call]) => call.shard === shard).map(([number]) => number);
            assert.deepEqual(
              table.callsOfShard(shard),
              wanted.toSorted((a, b) => a - b),
            );
          }
        }
      }),
      { numRuns: 200 },
    );
  });

  it('[W8] a call is answered once: a second answer, or one to a number that is not open, is a defect', () => {
    const table = new CallTable(2);
    const call = table.open(done, Method.PUBLISH, 0, 1, 0);
    table.close(call);
    assert.throws(() => table.close(call));
    assert.throws(() => table.close(1));
  });

  it('more calls than it has room for are a defect of the caller, who must ask first', () => {
    const table = new CallTable(1);
    table.open(done, Method.FETCH, 0, 1, 0);
    assert(table.full);
    assert.throws(() => table.open(done, Method.FETCH, 0, 1, 0));
  });
});

describe('when waiting messages become a group', () => {
  const limits = { groupsInFlight: 2, lingerMs: 5, fullBytes: 1_000 };
  const calm: SealState = {
    groupsInFlight: 0,
    waitingBytes: 10,
    waitingMessages: 1,
    oldestMs: 0,
    isSourceBusy: false,
  };
  const rows: { what: string; state: Partial<SealState>; leaves: boolean }[] = [
    { what: 'a lone message with nothing on its way', state: {}, leaves: true },
    { what: 'nothing at all', state: { waitingMessages: 0, waitingBytes: 0, oldestMs: 99 }, leaves: false },
    { what: 'a young one behind a group', state: { groupsInFlight: 1, oldestMs: 4 }, leaves: false },
    { what: 'an old one behind a group', state: { groupsInFlight: 1, oldestMs: 5 }, leaves: true },
    { what: 'a large one behind a group', state: { groupsInFlight: 1, waitingBytes: 1_000 }, leaves: true },
    {
      what: 'a large old one behind all groups',
      state: { groupsInFlight: 2, waitingBytes: 9_999, oldestMs: 99 },
      leaves: false,
    },
    { what: 'a young one from a busy source', state: { isSourceBusy: true, oldestMs: 4 }, leaves: false },
    { what: 'an old one from a busy source', state: { isSourceBusy: true, oldestMs: 5 }, leaves: true },
    { what: 'a large one from a busy source', state: { isSourceBusy: true, waitingBytes: 1_000 }, leaves: true },
  ];
  for (const { what, state, leaves } of rows) {
    it(`${what} ${leaves ? 'leaves' : 'waits'}`, () => assert.equal(shouldSeal({ ...calm, ...state }, limits), leaves));
  }

  it('with nothing in flight whatever waits leaves within the linger: no state waits for ever', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1 }), fc.boolean(), (waitingBytes, waitingMessages, isSourceBusy) => {
        const state = { groupsInFlight: 0, waitingBytes, waitingMessages, oldestMs: limits.lingerMs, isSourceBusy };
        return shouldSeal(state, limits);
      }),
    );
  });
});

describe('outbox', () => {
  it('[W7] keeps every record and their order over a ring that is full again and again', () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 120, size: 'max' });
    const drains = fc.array(fc.boolean(), { minLength: 120, maxLength: 120 });
    fc.assert(
      fc.property(lengths, drains, (sizes, drainAfter) => {
        const ring = createRing(1_024);
        const outbox = new Outbox(new RingProducer(ring));
        const consumer = new RingConsumer(ring);
        const got: number[] = [];
        const take = (type: number, offset: number, length: number): void => {
          assert.equal(length, sizes[got.length]);
          for (let i = 0; i < length; i++) assert.equal(consumer.bytes[offset + i], type % 251);
          got.push(type);
        };
        sizes.forEach((size, i) => {
          const at = outbox.begin(i + 1, size);
          outbox.bytes.fill((i + 1) % 251, at, at + size);
          outbox.end();
          if (!drainAfter[i]) return;
          consumer.drain(take, 1);
          outbox.flush();
        });
        while (!outbox.flush() || !consumer.isEmpty()) consumer.drain(take, 100);
        assert(!outbox.blocked);
        assert.deepEqual(
          got,
          sizes.map((_, i) => i + 1),
        );
      }),
      { numRuns: 100 },
    );
  });

  it('says that it is blocked from the first record that found no room until the last one has moved', () => {
    const ring = createRing(1_024);
    const outbox = new Outbox(new RingProducer(ring));
    const consumer = new RingConsumer(ring);
    const write = (): void => {
      outbox.begin(1, 400);
      outbox.end();
    };
    write();
    write();
    assert(!outbox.blocked);
    write();
    assert(outbox.blocked);
    assert.equal(outbox.flush(), false);
    consumer.drain(() => undefined, 1);
    assert.equal(outbox.flush(), true);
    assert(!outbox.blocked);
  });

  it('keeps what waits and nothing of what has moved, however long something waits', () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const ring = createRing(1_024);
    const outbox = new Outbox(new RingProducer(ring));
    const consumer = new RingConsumer(ring);
    const write = (): void => {
      outbox.begin(1, 400);
      outbox.end();
    };
    for (let i = 0; i < 4; i++) write();
    collect();
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 50_000; i++) {
      write();
      consumer.drain(() => undefined, 1);
      assert.equal(outbox.flush(), false);
    }
    collect();
    const grown = process.memoryUsage().arrayBuffers - before;
    assert.ok(grown < 1 << 20, `${grown} bytes`);
  });
});

describe('log time', () => {
  it('never falls, whatever the wall clock and the applied entries say', () => {
    const step = fc.record({ isEntry: fc.boolean(), ms: fc.double({ min: 0, max: 1e12, noNaN: true }) });
    fc.assert(
      fc.property(fc.nat(), fc.array(step), (first, steps) => {
        const clock = new LogClock(first);
        let last = first;
        for (const { isEntry, ms } of steps) {
          if (isEntry) clock.saw(Math.floor(ms));
          const time = isEntry ? clock.last : clock.next(ms);
          assert(Number.isSafeInteger(time));
          assert.equal(time, Math.max(last, Math.floor(ms)));
          assert.equal(clock.last, time);
          last = time;
        }
      }),
    );
  });

  const rows: { what: string; last: number; ahead: number; refused: boolean }[] = [
    { what: 'a log without a time', last: 0, ahead: 1e12, refused: false },
    { what: 'a clock exactly 24 h ahead', last: 1e12, ahead: CLOCK_AHEAD_MAX_MS, refused: false },
    { what: 'a clock more than that ahead', last: 1e12, ahead: CLOCK_AHEAD_MAX_MS + 1, refused: true },
    { what: 'a clock behind', last: 1e12, ahead: -1e9, refused: false },
  ];
  for (const { what, last, ahead, refused } of rows) {
    it(`${what} is ${refused ? 'refused' : 'accepted'}`, () => {
      assert.equal(new LogClock(last).isTooFarAhead(last + ahead), refused);
    });
  }
});

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { BaseDelay } from '../../src/publish/base-delay.ts';
import { DeliveryRate } from '../../src/publish/delivery-rate.ts';
import { SendWindow, type WindowLimits } from '../../src/publish/send-window.ts';

const KIB = 1024;
const LIMITS: WindowLimits = { bytesMin: 64 * KIB, bytesStart: 1024 * KIB, bytesMax: 8192 * KIB, targetMs: 10 };

/**
 * A sender that always has something to send, within what it is allowed, and a broker that answers in order at `bytesAMs` with a delay of
 * `baseMs` on top of the queue. Returns the window's size and the greatest delay of the last third.
 */
function simulate(options: {
  bytesAMs: number;
  baseMs: number;
  batch?: number;
  ms?: number;
  limits?: WindowLimits;
  /** The base from the end of the first third on. */
  laterMs?: number;
}) {
  const { bytesAMs, baseMs, batch = 4 * KIB, ms = 3_000, limits = LIMITS, laterMs = baseMs } = options;
  const window = new SendWindow(limits, new BaseDelay());
  const queue: { bytes: number; at: number; doneAt: number }[] = [];
  let sent = 0;
  let messages = 0;
  let busyUntil = 0;
  let answered = 0;
  let lately = 0;
  let slowest = 0;
  for (let now = 0; now < ms; now++) {
    while ((queue[0]?.doneAt ?? Number.POSITIVE_INFINITY) <= now) {
      const { bytes, at } = queue.shift() as { bytes: number; at: number };
      window.answered(bytes, 16, now - at, now);
      answered += bytes;
      if (now > (ms * 2) / 3) lately += bytes;
      if (now > (ms * 2) / 3) slowest = Math.max(slowest, now - at);
    }
    while (queue.length === 0 || (sent + batch <= window.bytesLimit && messages + 16 <= window.messagesLimit)) {
      assert.ok(window.allows(batch, 16));
      window.received(batch, 16);
      sent += batch;
      messages += 16;
      busyUntil = Math.max(busyUntil, now) + batch / bytesAMs;
      queue.push({ bytes: batch, at: now, doneAt: busyUntil + (now < ms / 3 ? baseMs : laterMs) });
    }
  }
  return { size: window.size, slowest, rate: answered / ms, laterRate: lately / (ms / 3) };
}

describe('the window of a publish stream', () => {
  for (const bytesAMs of [10 * KIB, 50 * KIB, 200 * KIB, 500 * KIB]) {
    it(`[F9] against a broker of ${bytesAMs / KIB} KiB/ms: it carries 90 % of that, and the queue stays within some targets`, () => {
      const { rate, slowest } = simulate({ bytesAMs, baseMs: 2 });
      assert.ok(rate > 0.9 * bytesAMs, `${rate / KIB} KiB/ms`);
      // The window can be no smaller than its least size, whatever the broker carries.
      const floor = LIMITS.bytesMin / bytesAMs + 2;
      assert.ok(slowest <= Math.max(3 * LIMITS.targetMs, 2 * floor), `${slowest} ms`);
    });
  }

  it('[F9] a slow broker narrows it to its least size, a fast one widens it up to the greatest', () => {
    assert.equal(simulate({ bytesAMs: KIB, baseMs: 5, ms: 20_000 }).size, LIMITS.bytesMin);
    assert.equal(simulate({ bytesAMs: 100_000 * KIB, baseMs: 1 }).size, LIMITS.bytesMax);
  });

  for (const share of [0.3, 0.51, 0.6, 0.74, 0.9]) {
    it(`[F9] a sender in pieces of ${share} of the window fills it as far as they fit, and that counts: it widens`, () => {
      const batch = Math.round(LIMITS.bytesStart * share);
      assert.equal(simulate({ bytesAMs: 100_000 * KIB, baseMs: 1, batch }).size, LIMITS.bytesMax);
    });
  }

  for (const baseMs of [1, 15, 60]) {
    it(`a store that takes ${baseMs} ms for a batch without a queue gets what it can carry all the same`, () => {
      const bytesAMs = 100 * KIB;
      const { rate } = simulate({ bytesAMs, baseMs, ms: 10_000 });
      assert.ok(rate > 0.85 * bytesAMs, `${rate / KIB} KiB/ms`);
    });
  }

  it('a delay that is no queue, while others have the cores, leaves a good part of what was carried before', () => {
    const bytesAMs = 100 * KIB;
    for (const [laterMs, share] of [
      [13, 0.5],
      [20, 0.35],
    ] as const) {
      const { laterRate } = simulate({ bytesAMs, baseMs: 1, laterMs, ms: 20_000 });
      assert.ok(laterRate > share * bytesAMs, `${laterRate / KIB} KiB/ms with ${laterMs} ms`);
    }
  });

  it('the base is the smallest of the last 30 to 60 s, over all streams', () => {
    const base = new BaseDelay();
    assert.equal(base.ms, 0);
    base.note(7, 1_000);
    base.note(3, 2_000);
    base.note(9, 3_000);
    assert.equal(base.ms, 3);
    base.note(8, 32_000);
    assert.equal(base.ms, 3, 'the period before counts');
    base.note(8, 63_000);
    assert.equal(base.ms, 8);
    base.note(20, 500_000);
    assert.equal(base.ms, 20, 'nothing of long ago counts');
  });

  it('an idle sender is not given more than it began with', () => {
    const window = new SendWindow(LIMITS, new BaseDelay());
    for (let now = 0; now < 10_000; now += 10) {
      window.received(4 * KIB, 16);
      window.answered(4 * KIB, 16, 1, now);
    }
    assert.equal(window.size, LIMITS.bytesStart);
  });

  it('small messages are bounded by their number', () => {
    const window = new SendWindow(LIMITS, new BaseDelay());
    let messages = 0;
    while (window.allows(1, 1)) {
      window.received(1, 1);
      messages += 1;
    }
    assert.equal(messages, LIMITS.bytesStart / 64);
  });

  it('one batch of any size is allowed when nothing is in flight, and no second one', () => {
    const window = new SendWindow(LIMITS, new BaseDelay());
    assert.ok(window.allows(1 << 30, 5));
    window.received(1 << 30, 5);
    assert.equal(window.allows(1, 1), false);
    window.answered(1 << 30, 5, 3, 100);
    assert.ok(window.allows(LIMITS.bytesMin, 1));
  });

  it('whatever happens, limits never move back, and nothing in flight beyond the window was allowed', () => {
    const step = fc.oneof(
      fc.record({
        do: fc.constant('send' as const),
        bytes: fc.integer({ min: 1, max: 512 * KIB }),
        messages: fc.integer({ min: 1, max: 5_000 }),
      }),
      fc.record({ do: fc.constant('answer' as const), tookMs: fc.integer({ min: 0, max: 200 }), judged: fc.boolean() }),
    );
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 500, size: 'max' }), (steps) => {
        const window = new SendWindow(LIMITS, new BaseDelay());
        const flying: { bytes: number; messages: number }[] = [];
        let now = 0;
        let [sent, sentMessages] = [0, 0];
        for (const each of steps) {
          now += 3;
          const before = [window.bytesLimit, window.messagesLimit] as const;
          if (each.do === 'send') {
            const isWithin =
              sent + each.bytes <= window.bytesLimit && sentMessages + each.messages <= window.messagesLimit;
            assert.equal(window.allows(each.bytes, each.messages), flying.length === 0 || isWithin);
            if (flying.length > 0 && !isWithin) continue;
            window.received(each.bytes, each.messages);
            flying.push(each);
            sent += each.bytes;
            sentMessages += each.messages;
          } else {
            const batch = flying.shift();
            if (batch === undefined) continue;
            if (each.judged) window.answered(batch.bytes, batch.messages, each.tookMs, now);
            else window.returned(batch.bytes, batch.messages);
          }
          assert.ok(window.bytesLimit >= before[0] && window.messagesLimit >= before[1]);
          assert.ok(window.size >= LIMITS.bytesMin && window.size <= LIMITS.bytesMax);
        }
      }),
      { numRuns: 60 },
    );
  });
});

describe('the delivery rate', () => {
  it('is the greatest of the last 10 to 20 s, over spans of at least 100 ms', () => {
    const rate = new DeliveryRate();
    assert.equal(rate.bytesAMs, 0);
    rate.note(1_000_000, 0);
    assert.equal(rate.bytesAMs, 0, 'what came before a span began says nothing');
    rate.note(50_000, 1);
    rate.note(50_000, 100);
    assert.equal(rate.bytesAMs, 1_000);
    rate.note(1_000, 200);
    assert.equal(rate.bytesAMs, 1_000, 'a slow span does not make it smaller');
    for (let now = 300; now < 10_500; now += 100) rate.note(10_000, now);
    assert.equal(rate.bytesAMs, 1_000, 'the period before counts');
    for (let now = 10_500; now < 21_000; now += 100) rate.note(10_000, now);
    assert.equal(rate.bytesAMs, 100);
    rate.note(1, 100_000);
    assert.equal(rate.bytesAMs, 100, 'a pause is no measurement');
    rate.note(30_000, 100_100);
    assert.equal(rate.bytesAMs, 300, 'nothing of long ago counts');
  });
});

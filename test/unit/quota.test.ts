/** Buckets, turns and tenants, with a clock of the test. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Limiter } from '../../src/quota/limiter.ts';
import type { QuotaRule } from '../../src/quota/quota-rules.ts';
import { StreamMeter } from '../../src/quota/stream-meter.ts';
import { takeCall } from '../../src/quota/take-call.ts';
import type { Tenant } from '../../src/quota/tenant.ts';
import { TenantTable } from '../../src/quota/tenant-table.ts';
import { TokenBucket } from '../../src/quota/token-bucket.ts';
import { Flow, Turns } from '../../src/quota/turns.ts';

const ROUNDING = 1e-6;

function rule(tenant: string, messagesPerSecond: number, bytesPerSecond = 0, prefix = ''): QuotaRule {
  return { tenant, prefix, messagesPerSecond, bytesPerSecond };
}

function tableOf(rules: readonly QuotaRule[], options: { tenantsMax?: number; burstMs?: number } = {}): TenantTable {
  const table = new TenantTable({ tenantsMax: options.tenantsMax ?? 100, burstMs: options.burstMs ?? 1_000 });
  table.apply(rules, 0);
  return table;
}

describe('token bucket', () => {
  const steps = fc.array(
    fc.record({ afterMs: fc.integer({ min: 0, max: 3_000 }), cost: fc.integer({ min: 1, max: 400 }) }),
    { minLength: 1, maxLength: 200 },
  );

  it('from any moment on it gives no more than rate * t + burst, and what one take is above the burst', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_000 }), fc.integer({ min: 1, max: 500 }), steps, (rate, burst, list) => {
        const bucket = new TokenBucket(rate, burst, 0);
        const taken: { readonly at: number; readonly cost: number }[] = [];
        let now = 0;
        for (const { afterMs, cost } of list) {
          now += afterMs;
          if (!bucket.has(cost, now)) continue;
          bucket.take(cost);
          taken.push({ at: now, cost });
        }
        taken.forEach((first, from) => {
          let sum = 0;
          for (const { at, cost } of taken.slice(from)) {
            sum += cost;
            const most = (rate * (at - first.at)) / 1_000 + Math.max(burst, cost);
            assert.ok(sum <= most * (1 + ROUNDING), `${sum} of ${most} from ${first.at} to ${at}`);
          }
        });
      }),
    );
  });

  it('what it says it is due in is when it has it, and not before', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_000 }), fc.integer({ min: 1, max: 500 }), steps, (rate, burst, list) => {
        const bucket = new TokenBucket(rate, burst, 0);
        let now = 0;
        for (const { afterMs, cost } of list) {
          now += afterMs;
          const dueIn = bucket.dueIn(cost, now);
          assert.equal(bucket.has(cost, now), dueIn <= burst * ROUNDING, `${dueIn}`);
          now += dueIn;
          assert.ok(bucket.has(cost, now + ROUNDING));
          bucket.take(cost);
        }
      }),
    );
  });

  it('a debt is paid off before anything else is given', () => {
    const bucket = new TokenBucket(10, 5, 0);
    assert.ok(bucket.has(100, 0));
    bucket.take(100);
    assert.equal(bucket.dueIn(1, 0), 9_600);
    assert.equal(bucket.has(1, 9_599), false);
    assert.equal(bucket.has(1, 9_600), true);
    assert.equal(Math.round(bucket.dueIn(100, 9_600)), 400, 'one larger than the burst asks for a full bucket');
  });

  it('a clock that stands or goes back gives nothing', () => {
    const bucket = new TokenBucket(1_000, 1, 1_000);
    bucket.take(1);
    assert.equal(bucket.has(1, 500), false);
    assert.equal(bucket.has(1, 1_000), false);
    assert.equal(bucket.has(1, 1_001), true);
  });

  it('what is saved or owed stays when the rate changes, up to the new burst', () => {
    const bucket = new TokenBucket(10, 10, 0);
    bucket.take(30);
    bucket.change(100, 100, 1_000);
    assert.equal(bucket.tokensAt(1_000), -10);
    assert.equal(bucket.dueIn(0, 1_000), 100);
    bucket.change(5, 5, 10_000);
    assert.equal(bucket.tokensAt(10_000), 5);
  });
});

describe('turns', () => {
  it('come in the order of their starts, those with the same start in the order of their coming, also when some leave', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ start: fc.integer({ min: 0, max: 20 }), leaves: fc.boolean() }), { maxLength: 60 }),
        (list) => {
          const turns = new Turns();
          const flows = list.map(({ start, leaves }) => {
            const flow = new Flow(() => undefined);
            turns.push(flow, start);
            return { flow, leaves };
          });
          for (const { flow, leaves } of flows) if (leaves) turns.remove(flow);
          const left = flows.filter(({ leaves }) => !leaves).map(({ flow }) => flow);
          const expected = left.sort((a, b) => a.start - b.start || a.order - b.order);
          assert.equal(turns.size, expected.length);
          const found: (Flow | null)[] = [];
          for (let flow = turns.pop(); flow !== null; flow = turns.pop()) found.push(flow);
          assert.deepEqual(found, expected);
        },
      ),
    );
  });
});

/** Streams that always have something to send, each with its own size of batch; how much each has sent after `ms`. */
function compete(limiter: Limiter, sizes: readonly number[], ms: number): { sent: number[]; turns: number } {
  const sent = sizes.map(() => 0);
  let turns = 0;
  const flows = sizes.map((size, index) => {
    const flow: Flow = new Flow(() => send(index, size));
    return flow;
  });
  let now = 0;
  const send = (index: number, size: number): void => {
    const flow = flows[index] as Flow;
    turns += 1;
    assert.ok(turns < 1_000_000, 'turns go round without end');
    while (limiter.isFree(flow, size, 0, now)) {
      limiter.take(flow, size, 0);
      sent[index] = (sent[index] as number) + size;
    }
    limiter.wait(flow, size, 0);
  };
  for (const [index, size] of sizes.entries()) send(index, size);
  for (; now < ms; now += 2) {
    for (let flow = limiter.takeDue(now); flow !== null; flow = limiter.takeDue(now)) flow.onTurn();
  }
  return { sent, turns };
}

describe('limiter', () => {
  it('senders that always have something to send get equal shares, whatever the sizes of their batches', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 2, maxLength: 12 }), (sizes) => {
        const limiter = new Limiter();
        limiter.change({ messagesPerSecond: 1_000, bytesPerSecond: 0, burstMs: 1_000 }, 0);
        const ms = 60_000;
        const { sent } = compete(limiter, sizes, ms);
        const total = sent.reduce((sum, one) => sum + one, 0);
        assert.ok(total <= 1_000 + (1_000 * ms) / 1_000 + ROUNDING, `${total}`);
        assert.ok(total >= (1_000 * ms) / 1_000 - 200, `${total}: all of the quota is used`);
        // The first sends alone until the second comes, which is the burst.
        const share = (total - 1_000) / sizes.length;
        for (const one of sent.slice(1)) assert.ok(Math.abs(one - share) <= 2 * 200 + 1, `${sent} for ${sizes}`);
      }),
      { numRuns: 50 },
    );
  });

  it('a large batch gets its turn, however many small ones and calls come meanwhile', () => {
    const limiter = new Limiter();
    limiter.change({ messagesPerSecond: 100, bytesPerSecond: 0, burstMs: 1_000 }, 0);
    limiter.take(limiter.calls, 100, 0);
    let isSent = false;
    const large = new Flow(() => {
      isSent = true;
      assert.ok(limiter.isFree(large, 100, 0, now));
      limiter.take(large, 100, 0);
    });
    limiter.wait(large, 100, 0);
    let now = 0;
    for (; now < 3_000 && !isSent; now += 1) {
      if (limiter.isFree(limiter.calls, 1, 0, now)) limiter.take(limiter.calls, 1, 0);
      limiter.takeDue(now)?.onTurn();
    }
    assert.ok(isSent && now <= 1_001, `${now}`);
  });

  it('calls get their share beside a stream that always waits', () => {
    const limiter = new Limiter();
    limiter.change({ messagesPerSecond: 1_000, bytesPerSecond: 0, burstMs: 1_000 }, 0);
    let now = 0;
    let streamed = 0;
    let called = 0;
    const flow: Flow = new Flow(() => {
      limiter.take(flow, 50, 0);
      streamed += 50;
      limiter.wait(flow, 50, 0);
    });
    limiter.wait(flow, 50, 0);
    for (; now < 20_000; now += 1) {
      for (let due = limiter.takeDue(now); due !== null; due = limiter.takeDue(now)) due.onTurn();
      for (let i = 0; i < 3; i++) {
        if (!limiter.isFree(limiter.calls, 1, 0, now)) continue;
        limiter.take(limiter.calls, 1, 0);
        called += 1;
      }
    }
    assert.ok(called > streamed * 0.6 && streamed > called * 0.6, `${called} calls, ${streamed} of the stream`);
  });

  it('when a quota is raised, whoever sent much by the old one has no less of the new one than others', () => {
    const limiter = new Limiter();
    const change = (messagesPerSecond: number, now: number): void =>
      limiter.change({ messagesPerSecond, bytesPerSecond: 0, burstMs: 1_000 }, now);
    change(1, 0);
    const sent = [0, 0];
    let now = 0;
    const flows = sent.map((_, index) => {
      const flow: Flow = new Flow(() => {
        limiter.take(flow, 100, 0);
        sent[index] = (sent[index] as number) + 100;
        limiter.wait(flow, 100, 0);
      });
      return flow;
    });
    const run = (ms: number): void => {
      for (const end = now + ms; now < end; now += 10) {
        for (let due = limiter.takeDue(now); due !== null; due = limiter.takeDue(now)) due.onTurn();
      }
    };
    // Alone, and 100 times as much as the quota brings in a second.
    limiter.wait(flows[0] as Flow, 100, 0);
    run(10);
    assert.deepEqual(sent, [100, 0]);
    limiter.wait(flows[1] as Flow, 100, 0);
    change(1_000, now);
    run(10_000);
    const [first = 0, second = 0] = sent;
    assert.ok(Math.abs(first - second) <= 200, `${sent}`);
    // The same for one that keeps a place and does not wait in the line just now.
    limiter.stepAside(flows[0] as Flow);
    change(1, now);
    limiter.wait(flows[0] as Flow, 100, 0);
    change(1_000, now);
    run(10_000);
    assert.ok(Math.abs((sent[0] ?? 0) - (sent[1] ?? 0)) <= 400, `${sent}`);
  });

  it('both limits hold: the one that is used up first decides', () => {
    const limiter = new Limiter();
    limiter.change({ messagesPerSecond: 100, bytesPerSecond: 1_000, burstMs: 1_000 }, 0);
    assert.ok(limiter.isFree(limiter.calls, 1, 900, 0));
    limiter.take(limiter.calls, 1, 900);
    assert.equal(limiter.isFree(limiter.calls, 1, 200, 0), false);
    assert.equal(limiter.delayMs(1, 200, 0), 100);
    limiter.take(limiter.calls, 99, 0);
    assert.equal(limiter.delayMs(10, 0, 0), 100);
  });

  it('a window is the share of the streams that have sent lately', () => {
    const limiter = new Limiter();
    limiter.change({ messagesPerSecond: 1_000, bytesPerSecond: 0, burstMs: 1_000 }, 0);
    const flows = Array.from({ length: 4 }, () => new Flow(() => undefined));
    assert.deepEqual([limiter.windowMessages(0), limiter.windowBytes(0)], [200, Number.POSITIVE_INFINITY]);
    for (const flow of flows) {
      limiter.note(flow, 0);
      limiter.note(flow, 10);
    }
    assert.equal(limiter.windowMessages(20), 50);
    assert.equal(limiter.windowMessages(1_500), 50, 'also in the next second');
    assert.equal(limiter.windowMessages(2_500), 200);
    limiter.note(flows[0] as Flow, 2_600);
    assert.equal(limiter.windowMessages(2_600), 200);
  });
});

describe('stream meter', () => {
  const SUBJECT = Buffer.from('orders.eu');

  it('a batch that waits in one quota and then in another keeps its place in both, and leaves both when its stream ends', () => {
    const table = tableOf([rule('acme', 10), rule('acme', 10, 0, 'orders')]);
    const acme = table.of('acme', 0);
    let turns = 0;
    const meter = new StreamMeter(acme, { onTurn: () => (turns += 1), waits: () => undefined });
    const judge = (now: number) => meter.judge(SUBJECT, 0, SUBJECT.length, 10, 100, true, now);
    assert.equal(judge(0), 'taken');
    assert.equal(judge(0), 'taken', 'the same batch is paid for once');
    meter.passed();
    // Somebody else uses the quota of all subjects, so that it lacks longer than that of the prefix.
    takeCall(acme, null, 0, 0, 0);
    acme.limiter.take(acme.limiter.calls, 5, 0);
    assert.equal(judge(0), 'wait');
    assert.equal(acme.limiter.waiting, 1);
    assert.equal(acme.limiter.takeDue(1_000), null);
    acme.limiter.takeDue(1_500)?.onTurn();
    assert.equal(turns, 1);
    const [orders] = acme.prefixes;
    orders?.limiter.take(orders.limiter.calls, 10, 0);
    assert.equal(judge(1_500), 'wait');
    assert.deepEqual([acme.limiter.waiting, orders?.limiter.waiting], [0, 1]);
    assert.equal(acme.usage.shrunk, 2);
    meter.close();
    meter.close();
    assert.deepEqual([acme.limiter.waiting, orders?.limiter.waiting, acme.streams], [0, 0, 0]);
  });

  it('a batch that turns to another quota gives way in the first, and has its place when it comes back', () => {
    const table = tableOf([rule('acme', 10), rule('acme', 10, 0, 'orders')]);
    const acme = table.of('acme', 0);
    const [orders] = acme.prefixes;
    const meter = new StreamMeter(acme, { onTurn: () => undefined, waits: () => undefined });
    const judge = (now: number) => meter.judge(SUBJECT, 0, SUBJECT.length, 10, 100, true, now);
    acme.limiter.take(acme.limiter.calls, 10, 0);
    assert.equal(judge(0), 'wait');
    const later = new Flow(() => undefined);
    acme.limiter.wait(later, 10, 0);
    orders?.limiter.take(orders.limiter.calls, 20, 0);
    // The one quota has room by now, the other has not.
    assert.equal(judge(1_500), 'wait');
    assert.deepEqual([acme.limiter.waiting, orders?.limiter.waiting], [1, 1]);
    assert.equal(orders?.limiter.takeDue(3_000)?.isWaiting, false);
    assert.equal(judge(3_000), 'taken', 'although somebody who came later waits');
    assert.equal(acme.limiter.takeDue(3_000), null);
    assert.equal(acme.limiter.takeDue(4_000), later);
  });

  it('a stream that ends in front of the line has somebody look at those behind it, which need less', () => {
    const acme = tableOf([rule('acme', 10)]).of('acme', 0);
    const looks: number[] = [];
    const meterOf = () =>
      new StreamMeter(acme, {
        onTurn: () => undefined,
        waits: (limiter) => looks.push(limiter.dueIn(0)),
      });
    const [first, second] = [meterOf(), meterOf()];
    const judge = (meter: StreamMeter, messages: number) =>
      meter.judge(SUBJECT, 0, SUBJECT.length, messages, 100, true, 0);
    acme.limiter.take(acme.limiter.calls, 10, 0);
    assert.deepEqual([judge(first, 10), judge(second, 1)], ['wait', 'wait']);
    assert.deepEqual(looks, [1_000, 1_000]);
    first.close();
    assert.equal(looks.at(-1), 100);
    second.close();
    assert.equal(looks.length, 3, 'nobody is left');
  });

  it('beyond its window a batch is refused instead, and takes nothing', () => {
    const acme = tableOf([rule('acme', 10)]).of('acme', 0);
    const meter = new StreamMeter(acme, { onTurn: () => undefined, waits: () => assert.fail('it waits') });
    const judge = (mayWait: boolean) => meter.judge(SUBJECT, 0, SUBJECT.length, 10, 100, mayWait, 0);
    assert.equal(judge(false), 'taken', 'while there is enough nobody asks for the window');
    meter.passed();
    for (let i = 0; i < 100; i++) assert.equal(judge(false), 'over');
    assert.equal(meter.delayMs(10, 100, 0), 1_000);
    assert.deepEqual([acme.usage.messages, acme.usage.bytes], [10, 100]);
  });
});

describe('tenants', () => {
  it('the rule by name comes before the rule for all others, apart for each prefix', () => {
    const table = tableOf([rule('', 5), rule('acme', 50), rule('', 3, 0, 'logs'), rule('acme', 7, 0, 'orders')]);
    const rates = (name: string) => {
      const { rule: total, prefixes } = table.of(name, 0);
      return [total?.messagesPerSecond, ...prefixes.map((quota) => `${quota.prefix} ${quota.rule.messagesPerSecond}`)];
    };
    assert.deepEqual(rates('acme'), [50, 'orders 7', 'logs 3']);
    assert.deepEqual(rates('x'), [5, 'logs 3']);
    assert.deepEqual(rates('other'), [5, 'logs 3']);
  });

  it('a prefix stands for whole tokens, and of several the longest counts', () => {
    const table = tableOf([rule('', 1, 0, 'a.b'), rule('', 1, 0, 'a'), rule('', 1, 0, 'c.'), rule('', 1, 0, 'é')]);
    const prefixOf = (subject: string): string | null => {
      const bytes = Buffer.from(`--${subject}--`);
      return table.of('t', 0).prefixOf(bytes, 2, bytes.length - 2)?.prefix ?? null;
    };
    const found = ['a', 'a.x', 'ab', 'a.b', 'a.b.c', 'a.bc', 'c', 'c.x', 'é.x', 'b'].map(prefixOf);
    assert.deepEqual(found, ['a', 'a', null, 'a.b', 'a.b', 'a', null, 'c.', 'é', null]);
  });

  it('quotas are divided between nodes, and follow their number and new rules at once', () => {
    const table = tableOf([rule('', 100)]);
    const acme = table.of('acme', 0);
    assert.equal(takeCall(acme, null, 100, 0, 0), 0);
    assert.equal(takeCall(acme, null, 10, 0, 0), 100);
    table.setNodes(4, 0);
    assert.equal(takeCall(acme, null, 10, 0, 0), 400);
    table.apply([rule('acme', 4_000)], 0);
    assert.equal(takeCall(acme, null, 10, 0, 0), 10);
    table.apply([], 0);
    assert.equal(table.isOn, false);
    assert.equal(takeCall(acme, null, 1e9, 0, 0), 0);
  });

  it('there are no more tenants than there may be, beside those that a rule names; the others are one, and no figure is lost', () => {
    const table = tableOf([rule('', 5), rule('named', 5)], { tenantsMax: 10 });
    for (let i = 0; i < 10_000; i++) takeCall(table.of(`t${i}`, i / 1_000), null, 1, 10, i / 1_000);
    assert.equal(table.size, 10);
    assert.equal(table.of('t5000', 10).name, 'other');
    assert.equal(table.of('named', 10).name, 'named');
    const sum = (): number => [...table.all()].reduce((all, { usage }) => all + usage.messages + usage.refused, 0);
    assert.equal(sum(), 10_000);
    // Those that were quiet make room; one that is in debt or has a stream does not.
    const [busy] = [...table.all()] as [Tenant];
    busy.streams = 1;
    const names = new Set<string>();
    for (let i = 0; i < 100; i++) names.add(table.of(`n${i % 9}`, 30_000 + i).name);
    assert.ok(names.has('n0') && table.size <= 11, [...names].join());
    assert.equal(table.of(busy.name, 30_100), busy);
    assert.equal(sum(), 10_000);
  });

  it('a tenant that is forgotten and comes back has no more than one that was there all the time', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 30_000 }), { maxLength: 60 }), (gaps) => {
        const table = tableOf([rule('', 0.1)], { tenantsMax: 1, burstMs: 10_000 });
        let now = 0;
        let taken = 0;
        let lastTakenAt = Number.NEGATIVE_INFINITY;
        for (const gap of gaps) {
          now += gap;
          // Somebody else wants the one place.
          table.of('rival', now);
          const acme = table.of('acme', now);
          if (acme.name !== 'acme' || takeCall(acme, null, 1, 0, now) > 0) continue;
          assert.ok(now - lastTakenAt >= 10_000 - ROUNDING, `${now - lastTakenAt}`);
          lastTakenAt = now;
          taken += 1;
        }
        assert.ok(taken <= now / 10_000 + 1);
      }),
    );
  });
});

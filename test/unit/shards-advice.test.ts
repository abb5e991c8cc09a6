/** How many shards a load needs, and which subjects are hot. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SpaceSaving } from '../../src/base/space-saving.ts';
import { slotOfHash, subjectHash } from '../../src/base/subject.ts';
import type { SubjectRef } from '../../src/storage/store.ts';
import type { HotSubjects } from '../../src/workers/messages.ts';
import { HotSubjectsSketch } from '../../src/workers/shard/hot-subjects.ts';
import { OwnedSlots } from '../../src/workers/shard/slot-drain.ts';
import { advise, type NodeLoad, Patience, type ShardLoad } from '../../src/workers/slots/advice.ts';

function shard(shardNumber: number, utilization: number, fields: Partial<ShardLoad> = {}): ShardLoad {
  return {
    shard: shardNumber,
    utilization,
    storeBusy: 0,
    messagesPerSecond: 1_000,
    bytesPerSecond: 100_000,
    queueWaitMs: 2,
    storeWriteMs: 1,
    groupMessages: 10,
    hotSubjects: [],
    ...fields,
  };
}

function node(busy: readonly number[], fields: Partial<NodeLoad> = {}): NodeLoad {
  const shards = busy.map((utilization, i) => shard(i, utilization));
  return { cores: 8, shardsMax: 16, mainUtilization: 0.5, cpuUtilization: 0.4, shards, ...fields };
}

const TABLE: readonly {
  readonly name: string;
  readonly load: NodeLoad;
  readonly recommended: number;
  readonly reason: RegExp;
}[] = [
  {
    name: '2 cores, one busy shard: more bring nothing',
    load: node([0.95], { cores: 2 }),
    recommended: 1,
    reason: /on 2 cores more shards bring nothing.*compression and catch-up reads, not gRPC/,
  },
  {
    name: '2 cores, four shards: one',
    load: node([0.4, 0.4, 0.4, 0.4], { cores: 2 }),
    recommended: 1,
    reason: /on 2 cores/,
  },
  {
    name: 'one busy shard of 8 cores: two',
    load: node([0.9]),
    recommended: 2,
    reason: /shard 0 is 90 % busy \(its thread\), requests wait 2\.0 ms/,
  },
  {
    name: 'busy by its disk only',
    load: { ...node([0.2]), shards: [shard(0, 0.2, { storeBusy: 0.99 })] },
    recommended: 2,
    reason: /its writes to the disk/,
  },
  {
    name: 'three full shards: as many as make them 55 % busy',
    load: node([1, 1, 1]),
    recommended: 6,
    reason: /100 % busy/,
  },
  { name: 'neither much nor little', load: node([0.6, 0.5]), recommended: 2, reason: /neither much nor little/ },
  {
    name: 'four that do little: one',
    load: node([0.1, 0.1, 0.1, 0.05]),
    recommended: 1,
    reason: /all 4 together 35 % of one/,
  },
  { name: 'nothing to do', load: node([0, 0, 0]), recommended: 1, reason: /0 %/ },
  {
    name: 'more shards than cores',
    load: node([0.5, 0.5, 0.5, 0.5], { cores: 3 }),
    recommended: 2,
    reason: /4 shards share 3 cores/,
  },
  {
    name: 'the main thread is full',
    load: node([0.8], { mainUtilization: 0.99 }),
    recommended: 1,
    reason: /main thread is 99 % busy with gRPC/,
  },
  { name: 'no idle core', load: node([0.9], { cpuUtilization: 0.95 }), recommended: 1, reason: /find none idle/ },
  {
    name: 'shards.max is reached',
    load: node([0.9, 0.9], { shardsMax: 2 }),
    recommended: 2,
    reason: /as many shards as shards\.max allows/,
  },
  {
    name: 'one subject makes the load',
    load: {
      ...node([0.9]),
      shards: [shard(0, 0.9, { hotSubjects: [{ tenant: '', subject: 'orders', share: 0.95 }] })],
    },
    recommended: 1,
    reason: /subject "orders" makes 95 % of its messages: a subject is served by one shard/,
  },
  {
    name: 'uneven, though there is room elsewhere',
    load: node([0.9, 0.02, 0.02, 0.02]),
    recommended: 4,
    reason: /the load is uneven/,
  },
];

for (const { name, load, recommended, reason } of TABLE) {
  test(`advice: ${name}`, () => {
    const advice = advise(load);
    assert.deepEqual([advice.shards, advice.recommended], [load.shards.length, recommended]);
    assert.match(advice.reason, reason);
    assert.notEqual(advice.effect, '');
  });
}

test('following the advice ends at a number at which it asks for nothing more, whatever the load', () => {
  const share = fc.double({ min: 0, max: 1, noNaN: true });
  const loads = fc.record({
    cores: fc.integer({ min: 1, max: 32 }),
    shardsMax: fc.integer({ min: 1, max: 64 }),
    /** Work of all shards, in threads. */
    total: fc.double({ min: 0, max: 20, noNaN: true }),
    /** Share of it that one subject makes. */
    hot: share,
    mainUtilization: share,
    cpuUtilization: share,
    start: fc.integer({ min: 1, max: 64 }),
  });
  /** The same work dealt evenly, but that one subject is one shard's. */
  const dealt = (load: { total: number; hot: number }, count: number): ShardLoad[] => {
    const hot = load.total * load.hot;
    const even = load.total / count;
    const first = Math.min(1, Math.max(hot, even));
    const rest = count === 1 ? 0 : Math.min(1, Math.max(0, load.total - first) / (count - 1));
    const share = Math.min(1, hot / Math.max(first, 1e-9));
    return Array.from({ length: count }, (_, i) =>
      shard(i, i === 0 ? first : rest, i === 0 ? { hotSubjects: [{ tenant: '', subject: 'hot', share }] } : {}),
    );
  };
  fc.assert(
    fc.property(loads, (load) => {
      let count = Math.min(load.start, load.shardsMax);
      const seen = [count];
      for (let step = 0; step < 6; step++) {
        const { recommended } = advise({ ...load, shards: dealt(load, count) });
        assert.ok(recommended >= 1 && recommended <= load.shardsMax, `${recommended}`);
        if (recommended === count) return;
        // A full shard hides how much it is asked for, so growth may take steps; going back would be unrest.
        assert.ok(!seen.includes(recommended), `back and forth: ${seen} then ${recommended}`);
        count = recommended;
        seen.push(count);
      }
      assert.fail(`no end: ${seen}`);
    }),
    { numRuns: 2_000 },
  );
});

test('with shards.auto_after of 30 s advice is followed after it was the same for 30 s (more) or 5 minutes (fewer), once a minute at most', () => {
  const patience = new Patience(30_000);
  const say = (shards: number, recommended: number) => ({ shards, recommended, reason: '', effect: '' });
  assert.equal(patience.observe(say(1, 2), 0), null);
  assert.equal(patience.observe(say(1, 3), 29_000), null);
  assert.equal(patience.observe(say(1, 1), 30_000), null, 'one look without it, and it counts anew');
  assert.equal(patience.observe(say(1, 2), 31_000), null);
  assert.equal(patience.observe(say(1, 2), 61_000), 2);
  assert.equal(patience.observe(say(2, 4), 62_000), null);
  assert.equal(patience.observe(say(2, 4), 100_000), null, 'a minute is not over');
  assert.equal(patience.observe(say(2, 4), 121_000), 4);
  assert.equal(patience.observe(say(4, 1), 200_000), null);
  assert.equal(patience.observe(say(4, 1), 499_000), null);
  assert.equal(patience.observe(say(4, 1), 500_000), 1);
});

test('space-saving: no heavy key is missed, no count is too low, and the error says how much too high it may be', () => {
  const stream = fc.array(fc.tuple(fc.nat(30), fc.integer({ min: 1, max: 100 })), { minLength: 1, maxLength: 400 });
  fc.assert(
    fc.property(stream, fc.integer({ min: 1, max: 12 }), (items, capacity) => {
      const sketch = new SpaceSaving<string>(capacity);
      const exact = new Map<number, number>();
      let total = 0;
      for (const [key, weight] of items) {
        sketch.add(key, `key ${key}`, weight);
        exact.set(key, (exact.get(key) ?? 0) + weight);
        total += weight;
      }
      assert.equal(sketch.total, total);
      const top = sketch.top(capacity);
      assert.equal(new Set(top.map(({ key }) => key)).size, top.length);
      for (const { key, label, count, error } of top) {
        const real = exact.get(key) ?? 0;
        assert.equal(label, `key ${key}`);
        assert.ok(count >= real && count - error <= real, `${count} - ${error} for ${real}`);
      }
      for (const [key, real] of exact) {
        if (real > total / capacity)
          assert.ok(
            top.some((one) => one.key === key),
            `${key} of ${real} in ${total}`,
          );
      }
      assert.deepEqual(
        top.map(({ count }) => count),
        top.map(({ count }) => count).sort((a, b) => b - a),
      );
    }),
  );
});

test('space-saving forgets what was long ago', () => {
  const sketch = new SpaceSaving<string>(4);
  sketch.add(1, 'old', 1_000);
  for (let i = 0; i < 10; i++) sketch.decay();
  sketch.add(2, 'new', 100);
  assert.deepEqual(
    sketch.top(4).map(({ label }) => label),
    ['new'],
  );
});

test('a subject whose slot has left a shard is named by the next one alone, and takes no share of what is left', () => {
  const refOf = (text: string): SubjectRef => {
    const bytes = Buffer.from(text);
    return { bytes, hash: subjectHash(bytes, 0, bytes.length) };
  };
  const [moved, stays] = [refOf('moved'), refOf('stays')];
  const slot = slotOfHash(moved.hash);
  assert.notEqual(slot, slotOfHash(stays.hash));
  const [from, to] = [new OwnedSlots(new Uint8Array(1_024).fill(1)), new OwnedSlots(new Uint8Array(1_024))];
  const [before, after] = [new HotSubjectsSketch(from), new HotSubjectsSketch(to)];
  before.add(moved, 900);
  before.add(stays, 100);
  const named = ({ subjects, total }: HotSubjects) => [subjects.map(({ subject }) => subject), total];
  assert.deepEqual(named(before.report(1)), [['moved'], 1_000]);
  from.remove([slot]);
  to.add([slot]);
  after.add(moved, 50);
  assert.deepEqual(named(before.report(1)), [['stays'], 100]);
  assert.deepEqual(named(after.report(1)), [['moved'], 50]);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Prng } from '../../src/base/prng.ts';
import { Awareness } from '../../src/gossip/members/awareness.ts';
import { BroadcastQueue } from '../../src/gossip/members/broadcast-queue.ts';
import { compareIncarnations, INCARNATION_MAX, nextIncarnation } from '../../src/gossip/members/incarnation.ts';
import { isNameAllowed } from '../../src/gossip/members/limits.ts';
import { lanProfile, localProfile, wanProfile } from '../../src/gossip/members/profile.ts';
import { Roster } from '../../src/gossip/members/roster.ts';
import { pushPullScale, retransmitLimit, suspicionTimeout } from '../../src/gossip/members/scale.ts';
import { Suspicion, suspicionMs } from '../../src/gossip/members/suspicion.ts';
import type { MemberState } from '../../src/gossip/types.ts';
import { addressOf, NO_BYTES, VERSIONS } from './gossip-members-rig.ts';

test('the profiles have the values of memberlist config.go', () => {
  const lan = lanProfile();
  assert.deepEqual(
    [lan.probeIntervalMs, lan.probeTimeoutMs, lan.gossipIntervalMs, lan.gossipNodes],
    [1000, 500, 200, 3],
  );
  assert.deepEqual([lan.suspicionMultiplier, lan.suspicionMaxMultiplier, lan.retransmitMultiplier], [4, 6, 4]);
  assert.deepEqual([lan.indirectChecks, lan.awarenessMax, lan.gossipToTheDeadMs], [3, 8, 30_000]);
  assert.deepEqual([lan.pushPullIntervalMs, lan.streamTimeoutMs, lan.deadNodeReclaimMs], [30_000, 10_000, 0]);
  const wan = wanProfile();
  assert.deepEqual(
    [wan.probeIntervalMs, wan.probeTimeoutMs, wan.gossipIntervalMs, wan.gossipNodes],
    [5000, 3000, 500, 4],
  );
  assert.deepEqual([wan.suspicionMultiplier, wan.gossipToTheDeadMs, wan.pushPullIntervalMs], [6, 60_000, 60_000]);
  const local = localProfile();
  assert.deepEqual([local.probeTimeoutMs, local.gossipIntervalMs, local.indirectChecks], [200, 100, 1]);
  assert.deepEqual([local.suspicionMultiplier, local.retransmitMultiplier, local.gossipToTheDeadMs], [3, 2, 15_000]);
  assert.deepEqual([local.pushPullIntervalMs, local.streamTimeoutMs], [15_000, 1_000]);
});

test('awareness_test.go: the score stays within 0 and max - 1, and stretches times', () => {
  const awareness = new Awareness(8);
  const rows: readonly [delta: number, score: number, scaled: number][] = [
    [0, 0, 1000],
    [-1, 0, 1000],
    [-10, 0, 1000],
    [1, 1, 2000],
    [-1, 0, 1000],
    [10, 7, 8000],
    [-1, 6, 7000],
    [-5, 1, 2000],
    [-1, 0, 1000],
  ];
  for (const [delta, score, scaled] of rows) {
    awareness.change(delta);
    assert.deepEqual([awareness.score, awareness.scale(1000)], [score, scaled], `after ${delta}`);
  }
});

test('util_test.go: times and counts grow with the members', () => {
  const suspicion = [5, 10, 50, 100, 500, 1000].map((members) => suspicionTimeout(3, members, 1000) / 3);
  assert.deepEqual(suspicion, [1000, 1000, 1698, 2000, 2698, 3000]);
  assert.deepEqual(
    [0, 1, 9, 10, 99, 100].map((members) => retransmitLimit(3, members)),
    [0, 3, 3, 6, 6, 9],
  );
  assert.deepEqual(
    [0, 32, 33, 64, 65, 128, 129].map((members) => pushPullScale(1000, members)),
    [1000, 1000, 2000, 2000, 3000, 3000, 4000],
  );
});

test('suspicion_test.go remainingSuspicionTime: confirmations bring the time down with their logarithm, to the least and not below', () => {
  const times = [0, 1, 2, 3, 4, 5].map((confirmations) => suspicionMs(confirmations, 3, 2_000, 30_000));
  assert.deepEqual(times, [30_000, 16_000, 7_810, 2_000, 2_000, 2_000]);
  assert.equal(suspicionMs(0, 0, 2_000, 30_000), 2_000, 'none wanted');
});

const CONFIRMATIONS: readonly [names: string, isNews: readonly boolean[], dueAt: number][] = [
  ['', [], 2000],
  ['me foo', [false, true], 1250],
  ['me foo foo foo', [false, true, false, false], 1250],
  ['me foo bar', [false, true, true], 811],
  ['me foo bar baz', [false, true, true, true], 500],
  ['me foo bar baz zoo', [false, true, true, true, false], 500],
];

for (const [names, isNews, dueAt] of CONFIRMATIONS) {
  test(`suspicion_test.go Timer: confirmed by [${names}] it ends after ${dueAt} ms`, () => {
    const suspicion = new Suspicion({ from: 'me', isOwn: true, wanted: 3, minMs: 500, maxMs: 2000, now: 0 });
    const news = names === '' ? [] : names.split(' ').map((name) => suspicion.confirm(name));
    assert.deepEqual([news, suspicion.dueAt], [isNews, dueAt]);
  });
}

test('suspicion_test.go Timer_ZeroK: with no confirmations wanted it has the least time, and nothing is news', () => {
  const suspicion = new Suspicion({ from: 'me', isOwn: true, wanted: 0, minMs: 25, maxMs: 30_000, now: 100 });
  assert.deepEqual([suspicion.confirm('foo'), suspicion.dueAt], [false, 125]);
});

test('suspicion_test.go Timer_Immediate: a late confirmation may end it in the past', () => {
  const suspicion = new Suspicion({ from: 'me', isOwn: true, wanted: 1, minMs: 100, maxMs: 30_000, now: 0 });
  assert.deepEqual([suspicion.confirm('foo'), suspicion.dueAt], [true, 100]);
});

function bytes(length: number): Uint8Array {
  return new Uint8Array(length);
}

test('queue_test.go Queue: a newer message takes the place of the one of the same name', () => {
  const queue = new BroadcastQueue(1);
  const first = queue.put('test', bytes(1));
  queue.put('foo', bytes(2));
  queue.put('bar', bytes(3));
  assert.equal(queue.length, 3);
  const second = queue.put('test', bytes(1));
  assert.deepEqual([queue.length, first.isFinished, second.isFinished], [3, true, false]);
});

test('queue_test.go GetBroadcasts: as many as fit with what each adds', () => {
  const filled = (): BroadcastQueue => {
    const queue = new BroadcastQueue(3);
    for (const name of ['test', 'foo', 'bar', 'baz']) queue.put(name, bytes(18));
    return queue;
  };
  assert.equal(filled().take(2, 80, 10).length, 4);
  assert.equal(filled().take(3, 80, 10).length, 3);
});

test('queue_test.go GetBroadcasts_Limit: each is sent so often and no more', () => {
  const queue = new BroadcastQueue(1);
  const all = ['test', 'foo', 'bar', 'baz'].map((name) => queue.put(name, bytes(18)));
  assert.equal(retransmitLimit(1, 10), 2);
  assert.deepEqual(
    [1, 2, 3, 4].map(() => queue.take(3, 80, 10).length),
    [3, 3, 2, 0],
  );
  assert.deepEqual([queue.length, all.every(({ isFinished }) => isFinished)], [0, true]);
});

test('queue_test.go LimitedBroadcastLess: least sent first, then the longest, then the newest', () => {
  const queue = new BroadcastQueue(9);
  queue.put('sent', Uint8Array.of(1, 1, 1, 1));
  queue.take(0, 4, 10);
  queue.put('short', Uint8Array.of(2));
  queue.put('older', Uint8Array.of(3, 3));
  queue.put('newer', Uint8Array.of(4, 4));
  assert.deepEqual(
    queue.take(0, 100, 10).map(([first]) => first),
    [4, 3, 2, 1],
  );
});

test('a queue sends every message exactly as often as its limit says, whatever fits, and holds one for a name', () => {
  const step = fc.oneof(
    fc.record({ name: fc.nat(8), length: fc.integer({ min: 1, max: 40 }) }),
    fc.record({ limit: fc.integer({ min: 0, max: 90 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const queue = new BroadcastQueue(2);
      const sent = new Map<Uint8Array, number>();
      const handles = new Map<Uint8Array, { readonly isFinished: boolean }>();
      for (const each of steps) {
        if ('limit' in each) {
          const taken = queue.take(2, each.limit, 10);
          assert.ok(taken.reduce((sum, { length }) => sum + length + 2, 0) <= each.limit);
          assert.equal(new Set(taken).size, taken.length, 'one packet has a message once');
          for (const message of taken) sent.set(message, (sent.get(message) ?? 0) + 1);
        } else {
          const message = bytes(each.length);
          handles.set(message, queue.put(String(each.name), message));
        }
        assert.ok(queue.length <= 9);
      }
      while (queue.length > 0)
        for (const message of queue.take(2, 90, 10)) sent.set(message, (sent.get(message) ?? 0) + 1);
      for (const [message, handle] of handles) {
        assert.ok(handle.isFinished);
        assert.ok((sent.get(message) ?? 0) <= retransmitLimit(2, 10));
      }
    }),
  );
});

function rosterOf(states: readonly [state: MemberState, changedAt: number][]): Roster {
  const random = new Prng(7);
  const roster = new Roster((below) => random.nextBelow(below));
  states.forEach(([state, changedAt], index) => {
    const member = { node: `n${index}`, address: addressOf('a'), meta: NO_BYTES, versions: VERSIONS, incarnation: 1 };
    roster.add({ ...member, state: state === 'suspect' ? 'alive' : state }, changedAt);
  });
  return roster;
}

test('util_test.go MoveDeadNodes: who is dead or left for longer than the time is forgotten, never ourselves, nobody else', () => {
  const roster = rosterOf([
    ['dead', 0],
    ['alive', 0],
    ['dead', 10_000],
    ['left', 10_000],
    ['left', 0],
    ['alive', 0],
  ]);
  assert.equal(roster.renew('n0', 15_000, 20_000), 1);
  assert.deepEqual(roster.list.map(({ member }) => member.node).toSorted(), ['n0', 'n1', 'n2', 'n3', 'n5']);
  assert.deepEqual([roster.get('n4'), roster.present, roster.size], [undefined, 2, 5]);
});

test('util_test.go ShuffleNodes: members come in at random places, and each round has another order', () => {
  const roster = rosterOf(Array.from({ length: 30 }, () => ['alive', 0]));
  const orders = Array.from({ length: 3 }, () => {
    const order = roster.list.map(({ member }) => member.node);
    roster.renew('n0', 1, 2);
    return order;
  });
  const sorted = Array.from({ length: 30 }, (_, i) => `n${i}`);
  assert.equal(new Set([...orders, sorted].map((order) => order.join())).size, 4);
  for (const order of orders) assert.deepEqual(new Set(order), new Set(sorted));
});

test('who is no longer suspected is not kept among the suspected', () => {
  const roster = rosterOf([['alive', 0]]);
  const record = roster.get('n0');
  assert.ok(record !== undefined);
  const suspicion = new Suspicion({ from: 'x', isOwn: true, wanted: 0, minMs: 1, maxMs: 2, now: 0 });
  roster.set(record, { ...record.member, state: 'suspect' }, suspicion, 1);
  assert.deepEqual([...roster.suspected], [record]);
  roster.set(record, { ...record.member, state: 'alive' }, null, 2);
  assert.equal(roster.suspected.size, 0);
});

for (const size of [8, 90]) {
  test(`util_test.go KRandomNodes: 3 different wanted ones of ${size}, not always the same`, () => {
    const roster = rosterOf(Array.from({ length: size }, (_, i) => [i % 3 === 2 ? 'dead' : 'alive', 0]));
    const picks = Array.from({ length: 20 }, () =>
      roster.pick(3, ({ member }) => member.state === 'alive' && member.node !== 'n0'),
    );
    for (const pick of picks) {
      assert.equal(new Set(pick).size, 3);
      assert.ok(pick.every(({ member }) => member.state === 'alive' && member.node !== 'n0'));
    }
    assert.ok(new Set(picks.map((pick) => pick.map(({ member }) => member.node).join())).size > 5);
  });
}

test('util.go kRandomNodes: of a few members every wanted one is found', () => {
  const roster = rosterOf(Array.from({ length: 8 }, (_, i) => [i === 5 ? 'alive' : 'dead', 0]));
  assert.deepEqual(
    roster.pick(3, ({ member }) => member.state === 'alive').map(({ member }) => member.node),
    ['n5'],
  );
});

test('incarnations are ordered as numbers, and go around from the highest quarter to the lowest', () => {
  assert.ok(compareIncarnations(2, 1) > 0);
  assert.ok(compareIncarnations(0x8000_0000, 1) > 0);
  assert.ok(compareIncarnations(1, INCARNATION_MAX) > 0);
  assert.ok(compareIncarnations(INCARNATION_MAX, 0x8000_0000) > 0);
  assert.equal(nextIncarnation(INCARNATION_MAX), 1);
});

test('the next incarnation is always newer, and the order has no two newest', () => {
  const any = fc.oneof(
    fc.integer({ min: 0, max: INCARNATION_MAX }),
    fc.constantFrom(0, 1, INCARNATION_MAX, INCARNATION_MAX - 1),
  );
  fc.assert(
    fc.property(any, any, (a, b) => {
      assert.ok(compareIncarnations(nextIncarnation(a), a) > 0);
      assert.equal(Math.sign(compareIncarnations(a, b)), -Math.sign(compareIncarnations(b, a)) + 0);
      assert.equal(compareIncarnations(a, b) === 0, a === b);
    }),
  );
});

test('a name has 1 to 128 bytes, counted as UTF-8', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 140 }), (name) => {
      const length = Buffer.byteLength(name);
      assert.equal(isNameAllowed(name), length >= 1 && length <= 128);
    }),
  );
  assert.deepEqual(['', 'x', 'x'.repeat(128), 'x'.repeat(129), 'é'.repeat(64), 'é'.repeat(65)].map(isNameAllowed), [
    false,
    true,
    true,
    false,
    true,
    false,
  ]);
});

/** Members and intents, after the cases of hashicorp/serf serf/serf_internals_test.go and serf_test.go (v0.11.0). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MEMBERS_MAX, RECENT_INTENTS_MAX } from '../../src/gossip/serf/limits.ts';
import type { SerfMessage } from '../../src/gossip/serf/messages.ts';
import { memberOf, Rig } from './gossip-serf-rig.ts';

type Step =
  | { readonly say: 'join' | 'leave' | 'prune'; readonly time: number }
  | { readonly see: 'joins' | 'leaves' }
  | { readonly pass: number };

const join = (time: number): Step => ({ say: 'join', time });
const leave = (time: number): Step => ({ say: 'leave', time });
const prune = (time: number): Step => ({ say: 'prune', time });
const joins: Step = { see: 'joins' };
const leaves: Step = { see: 'leaves' };

function apply(rig: Rig, node: string, step: Step): void {
  if ('pass' in step) rig.pass(step.pass);
  else if ('see' in step && step.see === 'joins') rig.serf.onJoin(memberOf(node), rig.now);
  else if ('see' in step) rig.serf.onLeave(memberOf(node, { state: 'dead' }), rig.now);
  else if (step.say === 'join') rig.hear({ kind: 'join', time: step.time, node });
  else rig.hear({ kind: 'leave', time: step.time, node, prune: step.say === 'prune' });
}

/** `statusTime` is upstream's statusLTime; `gossiped`: whether the last step was gossiped on. */
const CASES: readonly (readonly [
  rule: string,
  steps: readonly Step[],
  expected: { status: string; statusTime?: number; gossiped?: boolean; events?: readonly string[] },
])[] = [
  ['handleNodeJoin: who is seen is alive', [joins], { status: 'alive', statusTime: 0, events: ['memberJoin b2'] }],
  ['handleNodeLeave: who is not known cannot leave', [leaves], { status: 'none', events: [] }],
  [
    'handleNodeLeave: who goes without a word has failed',
    [joins, leaves],
    { status: 'failed', events: ['memberJoin b2', 'memberFailed b2'] },
  ],
  [
    'handleNodeLeave: who said so has left',
    [joins, leave(5), leaves],
    { status: 'left', statusTime: 5, events: ['memberJoin b2', 'memberLeave b2'] },
  ],
  ['handleNodeLeave: who is gone already does not go again', [joins, leaves, leaves], { status: 'failed' }],
  [
    'handleNodeJoin: a join intent that came first gives its time',
    [join(12), joins],
    { status: 'alive', statusTime: 12 },
  ],
  ['handleNodeJoin: a leave intent that came first', [leave(12), joins], { status: 'leaving', statusTime: 12 }],
  ['upsertIntent: the newer of two wins', [leave(12), join(13), joins], { status: 'alive', statusTime: 13 }],
  ['upsertIntent: the older of two is not kept', [leave(12), join(11), joins], { status: 'leaving', statusTime: 12 }],
  ['upsertIntent: what is new is gossiped on', [leave(12)], { status: 'none', gossiped: true }],
  ['upsertIntent: what is known is not', [leave(12), leave(12)], { status: 'none', gossiped: false }],
  [
    'reapIntents: after five minutes an intent is forgotten',
    [leave(12), { pass: 330_000 }, joins],
    { status: 'alive', statusTime: 0 },
  ],
  ['handleNodeJoinIntent: a newer time is kept', [joins, join(9)], { status: 'alive', statusTime: 9, gossiped: true }],
  [
    'handleNodeJoinIntent: the same time again is no news',
    [joins, join(9), join(9)],
    { status: 'alive', statusTime: 9, gossiped: false },
  ],
  [
    'handleNodeJoinIntent: a newer join takes back a leave',
    [joins, leave(5), join(6)],
    { status: 'alive', statusTime: 6, gossiped: true },
  ],
  ['handleNodeJoinIntent: an older one does not', [joins, leave(5), join(4)], { status: 'leaving', statusTime: 5 }],
  [
    'handleNodeJoinIntent: no words bring back who failed',
    [joins, leaves, join(6)],
    { status: 'failed', statusTime: 6, gossiped: true },
  ],
  [
    'handleNodeLeaveIntent: an old one is no news',
    [joins, join(9), leave(9)],
    { status: 'alive', statusTime: 9, gossiped: false },
  ],
  [
    'handleNodeLeaveIntent: who failed is called left',
    [joins, leaves, leave(9)],
    { status: 'left', statusTime: 9, gossiped: true, events: ['memberJoin b2', 'memberFailed b2', 'memberLeave b2'] },
  ],
  [
    'handleNodeLeaveIntent: a second one of a later time is gossiped on once (consul issue 8179)',
    [joins, leave(5), leaves, leave(6), leave(6)],
    { status: 'left', statusTime: 6, gossiped: false },
  ],
  [
    'handleNodeJoin: who failed comes back',
    [joins, leaves, joins],
    { status: 'alive', events: ['memberJoin b2', 'memberFailed b2', 'memberJoin b2'] },
  ],
  [
    'handlePrune: who failed is forgotten at once',
    [joins, leaves, prune(9)],
    { status: 'none', events: ['memberJoin b2', 'memberFailed b2', 'memberLeave b2', 'memberReap b2'] },
  ],
  ['handlePrune: who left is forgotten at once', [joins, leave(5), leaves, prune(9)], { status: 'none' }],
  ['handlePrune: who is leaving has six seconds to do so', [joins, prune(9), { pass: 5_999 }], { status: 'leaving' }],
  [
    'handlePrune: and is then forgotten',
    [joins, prune(9), leaves, { pass: 6_000 }],
    { status: 'none', events: ['memberJoin b2', 'memberLeave b2', 'memberReap b2'] },
  ],
  ['handlePrune: unless it says that it is here', [joins, prune(9), join(10), { pass: 7_000 }], { status: 'alive' }],
  [
    'handlePrune: and then leaves another time, which is not to be forgotten',
    [joins, prune(9), join(10), leave(11), { pass: 7_000 }],
    { status: 'leaving' },
  ],
  ['reap: who failed is kept for a day', [joins, leaves, { pass: 86_400_000 - 1 }], { status: 'failed' }],
  [
    'reap: and then forgotten',
    [joins, leaves, { pass: 86_400_000 + 15_001 }],
    { status: 'none', events: ['memberJoin b2', 'memberFailed b2', 'memberReap b2'] },
  ],
  [
    'reap: who left is remembered for a day',
    [joins, leave(5), leaves, { pass: 86_400_000 + 15_001 }],
    { status: 'none', events: ['memberJoin b2', 'memberLeave b2', 'memberReap b2'] },
  ],
];

for (const [rule, steps, expected] of CASES) {
  test(`serf.go ${rule}`, () => {
    const rig = new Rig();
    for (const step of steps.slice(0, -1)) apply(rig, 'b2', step);
    rig.gossipAll();
    apply(rig, 'b2', steps.at(-1) as Step);
    assert.equal(rig.status('b2'), expected.status);
    if (expected.statusTime !== undefined) assert.equal(rig.serf.member('b2')?.statusTime ?? 0, expected.statusTime);
    if (expected.gossiped !== undefined) assert.equal(rig.gossip().length > 0, expected.gossiped);
    if (expected.events !== undefined) assert.deepEqual(rig.takeEvents(), expected.events);
  });
}

test('serf.go handleNodeLeaveIntent: this node refutes that it leaves, with a later time; the same again is no news', () => {
  const rig = new Rig({ others: ['b2'] });
  rig.hear({ kind: 'leave', time: 20, node: 'a1', prune: true });
  assert.equal(rig.status('a1'), 'alive');
  assert.deepEqual(rig.gossipAll().at(0), { kind: 'join', time: 21, node: 'a1' });
  rig.hear({ kind: 'leave', time: 20, node: 'a1', prune: true });
  assert.deepEqual(rig.gossipAll(), []);
});

test('a flood of false farewells of this node leaves one refutation in the queue, the newest', () => {
  const rig = new Rig({ others: ['b2'] });
  for (let time = 10; time < 1_000; time += 2) rig.hear({ kind: 'leave', time, node: 'a1', prune: false });
  assert.equal(rig.serf.statistics.intentQueue, 1);
  assert.deepEqual(rig.gossip(), [{ kind: 'join', time: 999, node: 'a1' }]);
});

test('[G7] intents of unknown nodes are kept up to a bound, and beyond it not gossiped on', () => {
  const rig = new Rig();
  for (let i = 0; i < RECENT_INTENTS_MAX; i++) rig.hear({ kind: 'join', time: 5, node: `n${i}` });
  rig.gossipAll();
  rig.hear({ kind: 'join', time: 5, node: 'one more' });
  assert.deepEqual(rig.gossipAll(), []);
  rig.hear({ kind: 'join', time: 6, node: 'n7' });
  assert.equal(rig.gossip().length, 1, 'news of one that is kept');
});

test('[G7] members beyond the bound are not taken', () => {
  const rig = new Rig();
  for (let i = 0; i < MEMBERS_MAX + 10; i++) rig.serf.onJoin(memberOf(`n${i}`), rig.now);
  assert.equal(rig.serf.statistics.members, MEMBERS_MAX);
});

test('[G4] a node that comes back at a new address is known by its name, with the new address and tags', () => {
  const rig = new Rig({ others: ['b2'] });
  rig.serf.onLeave(memberOf('b2', { state: 'dead' }), rig.now);
  const address = { host: '10.9.9.9', port: 7_000 };
  rig.serf.onJoin(memberOf('b2', { address }, { role: 'broker' }), rig.now);
  assert.deepEqual(rig.serf.member('b2')?.address, address);
  assert.deepEqual(rig.serf.member('b2')?.tags, new Map([['role', 'broker']]));
  rig.serf.onUpdate(memberOf('b2', {}, { role: 'web' }), rig.now);
  assert.deepEqual(rig.serf.member('b2')?.tags, new Map([['role', 'web']]));
  rig.serf.onUpdate(memberOf('c3'), rig.now);
  assert.deepEqual(rig.takeEvents(), ['memberFailed b2', 'memberJoin b2', 'memberUpdate b2']);
});

test('[P9] [G1] whatever intents come, nobody is a member whom memberlist has not seen, and this node stays alive', () => {
  const intent: fc.Arbitrary<SerfMessage> = fc.record({
    kind: fc.constant('leave' as const),
    time: fc.nat(30),
    node: fc.constantFrom('a1', 'b2', 'c3', 'd4'),
    prune: fc.boolean(),
  });
  const joined: fc.Arbitrary<SerfMessage> = fc.record({
    kind: fc.constant('join' as const),
    time: fc.nat(30),
    node: fc.constantFrom('a1', 'b2', 'c3', 'd4'),
  });
  fc.assert(
    fc.property(fc.array(fc.oneof(intent, joined), { maxLength: 60 }), (messages) => {
      const rig = new Rig({ others: ['b2'] });
      const times = new Map<string, number>();
      for (const message of messages) {
        rig.hear(message);
        rig.pass(500);
        for (const { node, statusTime } of rig.serf.members) {
          assert.ok(statusTime >= (times.get(node) ?? 0), 'status times never fall');
          times.set(node, statusTime);
        }
        assert.equal(rig.status('a1'), 'alive');
        assert.equal(rig.status('c3'), 'none');
      }
    }),
    { numRuns: 200 },
  );
});

test('two nodes that hear the same intents, in any order and number, agree on the status', () => {
  const step = fc.record({
    say: fc.constantFrom('join' as const, 'leave' as const),
    time: fc.integer({ min: 1, max: 9 }),
  });
  fc.assert(
    fc.property(fc.uniqueArray(step, { selector: ({ time }) => time, maxLength: 8 }), fc.nat(), (steps, seed) => {
      const shuffled = steps.toSorted((a, b) => ((a.time * 7 + seed) % 11) - ((b.time * 7 + seed) % 11));
      const [one, other] = [new Rig({ others: ['b2'] }), new Rig({ others: ['b2'] })];
      for (const each of steps) apply(one, 'b2', each);
      for (const each of [...shuffled, ...steps]) apply(other, 'b2', each);
      assert.deepEqual(other.serf.member('b2'), one.serf.member('b2'));
    }),
    { numRuns: 200 },
  );
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { INCARNATION_MAX } from '../../src/gossip/members/incarnation.ts';
import { isAddressAllowed } from '../../src/gossip/members/limits.ts';
import type { PacketMessage, Versions } from '../../src/gossip/types.ts';
import { addressOf, alive, dead, NO_BYTES, Rig, stateOf, suspect, VERSIONS } from './gossip-members-rig.ts';

const ELSEWHERE = { host: '10.9.9.9', port: 7_946 };
const TAGS = Uint8Array.of(1, 2, 3);

interface Row {
  readonly rule: string;
  /** Of `a`, after an alive message about it (which is not among the messages). */
  readonly messages: readonly PacketMessage[];
  readonly view: string;
  /** Without those about others than `a`. */
  readonly events: readonly string[];
}

const TABLE: readonly Row[] = [
  { rule: 'AliveNode_NewNode: it joins', messages: [], view: 'alive@1', events: [] },
  {
    rule: 'AliveNode_Idempotent: the same again changes nothing',
    messages: [alive('a'), alive('a')],
    view: 'alive@1',
    events: [],
  },
  {
    rule: 'AliveNode_ChangeMeta: other tags are an update',
    messages: [alive('a', 2, { meta: TAGS })],
    view: 'alive@2',
    events: ['update a'],
  },
  {
    rule: 'AliveNode: other tags of the same incarnation are ignored',
    messages: [alive('a', 1, { meta: TAGS })],
    view: 'alive@1',
    events: [],
  },
  {
    rule: 'AliveNode: other versions are an update',
    messages: [alive('a', 2, { versions: [1, 5, 3, 2, 5, 4] })],
    view: 'alive@2',
    events: ['update a'],
  },
  {
    rule: 'AliveNode_SuspectNode: the same incarnation does not refute',
    messages: [suspect('a'), alive('a', 1)],
    view: 'suspect@1',
    events: [],
  },
  {
    rule: 'AliveNode_SuspectNode: a newer one does',
    messages: [suspect('a'), alive('a', 2)],
    view: 'alive@2',
    events: [],
  },
  {
    rule: 'SuspectNode_OldSuspect: is ignored',
    messages: [alive('a', 10), suspect('a', 9)],
    view: 'alive@10',
    events: [],
  },
  {
    rule: 'SuspectNode: a newer incarnation is taken over',
    messages: [suspect('a', 3)],
    view: 'suspect@3',
    events: [],
  },
  {
    rule: 'SuspectNode: not upstream, the suspicion of a newer incarnation is above what refuted the older',
    messages: [suspect('a', 3), suspect('a', 5), alive('a', 4)],
    view: 'suspect@5',
    events: [],
  },
  {
    rule: 'SuspectNode: the dead are not suspected',
    messages: [dead('a'), suspect('a', 4)],
    view: 'dead@1',
    events: ['dead a'],
  },
  { rule: 'DeadNode: it fails', messages: [dead('a')], view: 'dead@1', events: ['dead a'] },
  {
    rule: 'DeadNodeLeft: what it says itself is leaving',
    messages: [dead('a', 1, 'a')],
    view: 'left@1',
    events: ['left a'],
  },
  { rule: 'DeadNode_Double: is said once', messages: [dead('a'), dead('a', 2)], view: 'dead@2', events: ['dead a'] },
  { rule: 'DeadNode_OldDead: is ignored', messages: [alive('a', 10), dead('a', 9)], view: 'alive@10', events: [] },
  {
    rule: 'DeadNode_AliveReplay: an old alive message does not wake it',
    messages: [alive('a', 10), dead('a', 10), alive('a', 10)],
    view: 'dead@10',
    events: ['dead a'],
  },
  {
    rule: 'DeadNode: a newer alive message does',
    messages: [dead('a'), alive('a', 2)],
    view: 'alive@2',
    events: ['dead a', 'join a'],
  },
  {
    rule: 'DeadNode: not upstream, the newer of two deaths counts',
    messages: [dead('a', 1), dead('a', 3), alive('a', 2)],
    view: 'dead@3',
    events: ['dead a'],
  },
  {
    rule: 'AliveNode_Conflict: a living member keeps its address',
    messages: [alive('a', 9, { address: ELSEWHERE })],
    view: 'alive@1',
    events: ['conflict a 10.0.0.1 10.9.9.9'],
  },
  {
    rule: 'AliveNode_Conflict: so does one that is suspected',
    messages: [suspect('a'), alive('a', 9, { address: ELSEWHERE })],
    view: 'suspect@1',
    events: ['conflict a 10.0.0.1 10.9.9.9'],
  },
  {
    rule: 'AliveNode_Conflict: so does one that failed, while nothing says how long',
    messages: [dead('a'), alive('a', 9, { address: ELSEWHERE })],
    view: 'dead@1',
    events: ['dead a', 'conflict a 10.0.0.1 10.9.9.9'],
  },
  {
    rule: 'DeadNodeLeft: who left may come back elsewhere, under any incarnation',
    messages: [alive('a', 5), dead('a', 5, 'a'), alive('a', 1, { address: ELSEWHERE })],
    view: 'alive@1',
    events: ['left a', 'join a'],
  },
];

for (const { rule, messages, view, events } of TABLE) {
  test(`state_test.go ${rule}`, () => {
    const rig = new Rig({ others: ['a'] });
    for (const message of messages) rig.take(message);
    assert.deepEqual([rig.view('a'), rig.delegate.events], [view, events]);
  });
}

test('state_test.go SuspectNode_NoNode, DeadNode_NoNode: who is not known is neither suspected nor dead', () => {
  const rig = new Rig();
  rig.take(suspect('a'));
  rig.take(dead('a'));
  assert.deepEqual([rig.view('a'), rig.delegate.events, rig.list.members.length], ['unknown', [], 1]);
});

test('state_test.go SuspectNode: a suspicion that is not refuted ends as a failure, which is told', () => {
  const rig = new Rig({ others: ['a'] });
  rig.take(suspect('a'));
  rig.run(3_999);
  assert.equal(rig.state('a'), 'suspect');
  rig.run(4_000);
  assert.deepEqual([rig.view('a'), rig.delegate.events], ['dead@1', ['dead a']]);
  rig.take(alive('b'));
  rig.run(6_000);
  assert.ok(rig.said('a').some((message) => message.kind === 'dead' && message.from === 'self'));
});

test('state_test.go SuspectNode_DoubleSuspect: the same accuser twice is told once', () => {
  const rig = new Rig({ others: ['a', 'b', 'c', 'd', 'e'] });
  rig.take(suspect('a', 1, 'x'));
  const before = rig.list.nextAt;
  rig.take(suspect('a', 1, 'x'));
  assert.deepEqual([rig.list.nextAt, rig.list.counters.suspicions], [before, 1]);
});

test('state_test.go SuspectNode: what is news goes on to others with who said it: the accuser, and as many as confirm', () => {
  const rig = new Rig({ others: ['a', 'b', 'c', 'd', 'e'] });
  const accusers = (): string[] =>
    rig.said('a').flatMap((said) => (said.kind === 'suspect' && said.from !== 'self' ? [said.from] : []));
  for (const name of ['x', 'y', 'z', 'late']) {
    rig.take(suspect('a', 1, name));
    rig.run(rig.now + 250);
  }
  assert.deepEqual([...new Set(accusers())].toSorted(), ['x', 'y', 'z']);
});

const DOGPILE: readonly [others: number, confirmations: number, deadAt: number][] = [
  [2, 0, 4_000],
  [3, 0, 24_000],
  [8, 0, 24_000],
  [8, 1, 11_381],
  [8, 2, 4_000],
  [8, 3, 4_000],
];

for (const [others, confirmations, deadAt] of DOGPILE) {
  test(`state_test.go ProbeNode_Suspect_Dogpile: of ${others + 1}, ${confirmations} confirm: failed after ${deadAt} ms`, () => {
    const names = 'abcdefgh'.slice(0, others).split('');
    const rig = new Rig({ others: names });
    // It answers, so that our own probe does not confirm; that alone is no refutation.
    for (const name of names) rig.answering.add(name);
    rig.take(suspect('a', 1, 'x'));
    for (let i = 0; i < confirmations; i++) rig.take(suspect('a', 1, `y${i}`));
    rig.run(60_000, () => rig.state('a') === 'dead');
    assert.equal(rig.now, deadAt);
  });
}

test('[G6] state_test.go AliveNode_Refute, SuspectNode_Refute, DeadNode_Refute: what is said of us is corrected', () => {
  const accusations = [
    suspect('self', 1),
    dead('self', 7),
    alive('self', 3, { meta: TAGS }),
    alive('self', 1, { meta: TAGS }),
  ];
  for (const message of accusations) {
    const rig = new Rig({ others: ['a'] });
    rig.take(message);
    const incarnation = message.incarnation + 1;
    assert.deepEqual([rig.view('self'), rig.list.health], [`alive@${incarnation}`, 1], message.kind);
    assert.deepEqual(rig.list.self.meta, NO_BYTES);
    rig.run(1_000);
    assert.ok(rig.said('self').some((said) => said.kind === 'alive' && said.incarnation === incarnation));
  }
});

test('state_test.go: what is said of us and is old, or just what we said, needs no answer', () => {
  const rig = new Rig({ others: ['a'], options: { incarnation: 5 } });
  for (const message of [alive('self', 5), alive('self', 4), suspect('self', 4), dead('self', 4)]) rig.take(message);
  assert.deepEqual([rig.view('self'), rig.list.health, rig.list.counters.refutations], ['alive@5', 0, 0]);
});

test('state_test.go AliveNode_Conflict: another who has our name at another address is a conflict, not an answer', () => {
  const rig = new Rig();
  rig.take(alive('self', 9, { address: ELSEWHERE }));
  assert.deepEqual([rig.view('self'), rig.delegate.events], ['alive@1', ['conflict self 10.0.0.200 10.9.9.9']]);
});

test('state_test.go AliveNode_Conflict: a failed name is free for another address after the time, and not before', () => {
  for (const [after, view] of [
    [5_000, 'dead@1'],
    [5_001, 'alive@1'],
  ] as const) {
    const rig = new Rig({ others: ['a', 'b'], profile: { deadNodeReclaimMs: 5_000 } });
    rig.answering.add('b');
    rig.take(dead('a'));
    rig.run(after);
    rig.take(alive('a', 1, { address: ELSEWHERE }));
    assert.equal(rig.view('a'), view, `after ${after} ms`);
  }
});

test('[G6] an incarnation of 2^32 - 1 about us, or two of the highest in steps, does not lock us out among our own', () => {
  const rig = new Rig({ others: ['a'] });
  const watcher = new Rig({ options: { node: 'w', address: addressOf('w') } });
  watcher.take(alive('self', 1));
  const exchange = (): void => {
    const { node, incarnation, address, meta, versions } = rig.list.self;
    watcher.take({ kind: 'alive', node, incarnation, address, meta, versions });
  };
  for (const incarnation of [
    INCARNATION_MAX,
    0x7fff_ffff,
    INCARNATION_MAX,
    INCARNATION_MAX - 1,
    0x3fff_ffff,
    0xffff_ffff,
  ]) {
    for (const message of [suspect('self', incarnation), dead('self', incarnation)]) {
      watcher.take(message);
      rig.take(message);
      exchange();
      assert.equal(watcher.state('self'), 'alive', `${message.kind} ${incarnation}`);
    }
  }
});

test('[G6] a forged incarnation that only some have heard of parts them until the next suspicion, and no longer', () => {
  const rig = new Rig({ others: ['a'] });
  const watchers = ['v', 'w'].map((node) => new Rig({ options: { node, address: addressOf(node) } }));
  const [heard, missed] = watchers as [Rig, Rig];
  const tell = (): void => {
    const { node, incarnation, address, meta, versions } = rig.list.self;
    for (const watcher of watchers) watcher.take({ kind: 'alive', node, incarnation, address, meta, versions });
  };
  tell();
  const forged = suspect('self', 0xbfff_ffff);
  for (const each of [heard, rig]) each.take(forged);
  tell();
  assert.deepEqual([heard.view('self'), missed.view('self')], [`alive@${0xc000_0000}`, 'alive@1']);
  for (const each of [missed, rig]) each.take(suspect('self', 1));
  tell();
  assert.deepEqual([heard.view('self'), missed.view('self')], ['alive@2', 'alive@2']);
});

test('state_test.go Wrong_VSN: versions that are missing or out of order are refused', () => {
  const wrong: readonly Versions[] = [
    [0, 5, 2, 0, 0, 0],
    [1, 0, 2, 0, 0, 0],
    [5, 1, 2, 0, 0, 0],
  ];
  const rig = new Rig();
  for (const versions of wrong) rig.take(alive('a', 1, { versions }));
  assert.deepEqual([rig.view('a'), rig.list.counters.refused], ['unknown', 3]);
});

test('[G7] names, addresses, tags and incarnations out of bounds are refused and counted', () => {
  const rig = new Rig({ others: ['a'] });
  const long = 'x'.repeat(129);
  const wrong: readonly PacketMessage[] = [
    alive('', 1),
    alive(long, 1, { address: ELSEWHERE }),
    alive('b', 1, { address: { host: '10.0.0.2', port: 0 } }),
    alive('b', 1, { address: { host: '', port: 1 } }),
    alive('b', 1, { meta: new Uint8Array(513) }),
    alive('b', -1),
    alive('b', 2 ** 32),
    alive('b', 0.5),
    suspect('a', 1, long),
    suspect('a', Number.NaN),
    dead('a', 1, long),
    dead('', 1),
  ];
  for (const message of wrong) rig.take(message);
  assert.deepEqual([rig.list.members.length, rig.view('a'), rig.list.counters.refused], [2, 'alive@1', wrong.length]);
  assert.equal(isAddressAllowed({ host: '10.0.0.1', port: 65_536 }), false);
});

test('[G7] new names fill the table and no more; who is known is heard on', () => {
  const rig = new Rig({ options: { membersMax: 50 } });
  for (let i = 0; i < 1_000; i++) rig.take(alive(`n${i}`));
  assert.deepEqual([rig.list.members.length, rig.list.counters.membersRefused], [50, 951]);
  rig.take(alive('n7', 2));
  assert.equal(rig.view('n7'), 'alive@2');
  rig.take(suspect('n999'));
  assert.equal(rig.view('n999'), 'unknown');
});

test('the delegate may refuse a member, new or known', () => {
  const rig = new Rig({ others: ['a'] });
  rig.delegate.aliveFault = 'another cluster';
  rig.take(alive('a', 2));
  rig.take(alive('b', 2));
  assert.deepEqual([rig.view('a'), rig.view('b'), rig.list.counters.aliveRefused], ['alive@1', 'unknown', 2]);
});

test('state_test.go MergeState: alive is taken, left is left, dead and suspected are suspected', () => {
  const rig = new Rig({ others: ['a', 'b', 'c'] });
  const nodes = [
    stateOf('a', 'alive', 2),
    stateOf('b', 'suspect', 1),
    stateOf('c', 'dead', 1),
    stateOf('d', 'alive', 2),
    stateOf('e', 'dead', 1),
    stateOf('f', 'left', 1),
  ];
  const answer = rig.list.onPushPull({ join: false, nodes, userState: NO_BYTES }, rig.now);
  assert.deepEqual(
    'abcdef'.split('').map((node) => rig.view(node)),
    ['alive@2', 'suspect@1', 'suspect@1', 'alive@2', 'unknown', 'unknown'],
  );
  assert.deepEqual([rig.delegate.events, rig.delegate.merged], [['join d'], []]);
  rig.list.onPushPull({ join: false, nodes: [stateOf('a', 'left', 2)], userState: NO_BYTES }, rig.now);
  assert.equal(rig.view('a'), 'left@2');
  assert.ok(typeof answer !== 'string' && answer.nodes.length === 5, 'what we know is the answer');
});

test('memberlist.go Leave: said as ours, sent often enough; then nothing wakes us', () => {
  const rig = new Rig({ others: ['a', 'b'] });
  rig.answering.add('a').add('b');
  assert.equal(rig.list.isLeaveSpread, false);
  rig.list.leave(rig.now);
  rig.list.leave(rig.now);
  assert.deepEqual([rig.view('self'), rig.list.hasLeft, rig.list.isLeaveSpread], ['left@1', true, false]);
  for (const message of [alive('self', 9), suspect('self', 9), dead('self', 9)]) rig.take(message);
  rig.run(60_000, () => rig.list.isLeaveSpread);
  assert.equal(rig.list.isLeaveSpread, true);
  assert.ok(rig.said('self').filter(({ kind }) => kind === 'dead').length >= 4);
  assert.deepEqual(
    [rig.state('self'), rig.delegate.events.filter((event) => event.startsWith('left'))],
    ['left', ['left self']],
  );
  rig.run(120_000);
  assert.equal(rig.state('self'), 'left', 'we do not forget ourselves');
});

test('memberlist.go Leave: alone there is nobody to tell', () => {
  const rig = new Rig();
  rig.list.leave(0);
  assert.equal(rig.list.isLeaveSpread, true);
});

test('memberlist.go UpdateNode: other tags go out under a new incarnation', () => {
  const rig = new Rig({ others: ['a'] });
  rig.delegate.tags = TAGS;
  rig.list.updateMeta(rig.now);
  assert.deepEqual([rig.view('self'), rig.list.self.meta, rig.delegate.events], ['alive@2', TAGS, ['update self']]);
  rig.run(1_000);
  assert.ok(rig.said('self').some((said) => said.kind === 'alive' && said.meta.length === 3));
  assert.equal(rig.list.health, 0);
});

const OURS: Versions = VERSIONS;
const PROTOCOLS: readonly [rule: string, versions: readonly Versions[], isFine: boolean][] = [
  ['all speak what all understand', [OURS, [1, 4, 2, 2, 5, 4]], true],
  [
    'one speaks more than another understands',
    [
      [1, 5, 5, 2, 5, 4],
      [1, 4, 2, 2, 5, 4],
    ],
    false,
  ],
  ['one speaks less than another understands', [[3, 5, 3, 2, 5, 4]], false],
  [
    'the same of the delegate: more',
    [
      [1, 5, 2, 2, 5, 5],
      [1, 5, 2, 2, 4, 4],
    ],
    false,
  ],
  ['the same of the delegate: less', [[1, 5, 2, 5, 5, 5]], false],
];

for (const [rule, versions, isFine] of PROTOCOLS) {
  test(`state_test.go VerifyProtocol: ${rule}`, () => {
    const rig = new Rig();
    const nodes = versions.map((each, index) => ({ ...stateOf('abc'[index] as string, 'alive'), versions: each }));
    const answer = rig.list.onPushPull({ join: false, nodes, userState: NO_BYTES }, 0);
    assert.equal(typeof answer === 'string', !isFine, String(answer));
    assert.equal(rig.list.members.length, isFine ? 1 + versions.length : 1);
  });
}

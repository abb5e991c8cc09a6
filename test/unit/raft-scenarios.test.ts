/** Cases that other Raft implementations learned to test the hard way, one by one (traps.md, section 4). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import { type Message, makeMessage, NOBODY, type NodeId } from '../../src/raft/messages.ts';
import { bytes, ELECTION_TICKS, entriesOf, Group, Member, texts } from './raft-group.ts';

function trio(): Group {
  const group = new Group(['a', 'b', 'c']);
  group.elect('a');
  return group;
}

/** Voters whose logs behind the bootstrap position have these terms. */
function groupOf(logs: Readonly<Record<NodeId, readonly number[]>>): Group {
  const voters = Object.keys(logs);
  const group = new Group(voters);
  for (const [id, terms] of Object.entries(logs)) {
    const storage = MemoryRaftStorage.bootstrap(voters);
    storage.append(entriesOf(2, ...terms));
    storage.setHardState({ term: Math.max(1, ...terms), vote: NOBODY, commit: 1 });
    group.add(id, storage);
  }
  return group;
}

/** Leadership goes from one to the other, in a new term. */
function hand(group: Group, from: NodeId, to: NodeId): void {
  assert.equal(group.at(from).core.transferLeadership(to), 'started');
  group.settle();
  assert.equal(group.at(to).core.role, 'leader');
}

function termsOf(member: Member): number[] {
  const { storage } = member;
  const entries = storage.entries(storage.firstIndex(), storage.lastIndex() + 1, Number.MAX_SAFE_INTEGER);
  return (entries ?? []).map((entry) => entry.term);
}

test('an entry of a later term that only its leader ever had is overwritten by a leader that a majority elects', () => {
  const group = groupOf({ a: [1], b: [1], c: [2], d: [], e: [] });
  group.elect('a');
  assert.equal(group.at('a').core.term, 3, 'c told of its term');
  for (const id of ['a', 'b', 'c', 'd', 'e']) {
    assert.deepEqual(termsOf(group.at(id)), [1, 3], id);
  }
});

for (const role of ['follower', 'pre-candidate', 'candidate', 'leader'] as const) {
  test(`what is left of an earlier term changes nothing for a ${role}`, () => {
    const group = trio();
    group.propose('a', 'x');
    hand(group, 'a', 'b');
    hand(group, 'b', 'a');
    const node = group.at(role === 'leader' ? 'a' : 'b');
    if (role === 'pre-candidate' || role === 'candidate') {
      group.at('c').core.forgetLeader();
      group.filter = ({ type }) => role === 'candidate' && type !== 'vote';
      node.core.campaign();
      group.settle();
    }
    assert.equal(node.core.role, role);
    const before = node.core.status();
    const old = { from: 'c', term: before.term - 1 } as const;
    node.receive({ type: 'append', ...old, index: 1, logTerm: 1, commit: 2, entries: entriesOf(2, 2) });
    node.receive({ type: 'snapshot', ...old, snapshot: { index: 9, term: 2, config: before.config, ref: '' } });
    node.receive({ type: 'heartbeat', ...old, commit: 99 });
    node.receive({ type: 'append-response', ...old, index: 99 });
    node.receive({ type: 'vote-response', ...old });
    node.receive({ type: 'pre-vote-response', ...old });
    node.receive({ type: 'timeout-now', ...old });
    assert.deepEqual(node.core.status(), before);
  });
}

test('[R3] the own vote of a campaign that is over counts neither for a follower nor for the next campaign', () => {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a', 'b', 'c']));
  const from = { from: 'b', to: 'a' } as const;
  a.core.campaign();
  a.settle();
  a.core.step(makeMessage({ type: 'pre-vote-response', ...from, term: 2 }));
  const first = a.core.ready();
  assert.equal(first.hardState?.vote, 'a');
  // The write takes so long that the next campaign has begun.
  for (let i = 0; i < 2 * ELECTION_TICKS && a.core.role !== 'pre-candidate'; i += 1) {
    a.core.tick();
  }
  a.core.step(makeMessage({ type: 'pre-vote-response', ...from, term: 3 }));
  assert.deepEqual([a.core.role, a.core.term], ['candidate', 3]);
  const second = a.core.ready();
  a.persist(first);
  a.core.step(makeMessage({ type: 'vote-response', ...from, term: 3 }));
  assert.equal(a.core.role, 'candidate', 'one vote of three');
  a.persist(second);
  assert.equal(a.core.role, 'leader');
});

test('[R3] the own vote of a lost election comes too late for somebody who follows by now', () => {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a', 'b', 'c']));
  a.core.campaign();
  a.settle();
  a.core.step(makeMessage({ type: 'pre-vote-response', from: 'b', to: 'a', term: 2 }));
  const ready = a.core.ready();
  a.core.step(makeMessage({ type: 'heartbeat', from: 'b', to: 'a', term: 2 }));
  a.persist(ready);
  a.core.step(makeMessage({ type: 'vote-response', from: 'c', to: 'a', term: 2 }));
  assert.deepEqual([a.core.role, a.core.leader], ['follower', 'b']);
});

test('[R4] a leader that lost its term does not count its own late write', () => {
  const group = trio();
  const a = group.at('a');
  assert.equal(a.core.propose(bytes('x')), 'accepted');
  const { committed, term } = a.core;
  const ready = a.core.ready();
  // Two positions more than a has written, of the next leader.
  const entries = entriesOf(committed + 1, term + 1, term + 1);
  const append = { type: 'append', from: 'b', to: 'a', term: term + 1, index: committed, logTerm: term } as const;
  a.core.step(makeMessage({ ...append, entries }));
  a.persist(ready);
  assert.equal(a.core.committed, committed);
  assert.equal(a.core.status().durableIndex, committed, 'what was written is replaced');
});

test('[R9] a node that is terms behind takes part in the next election', () => {
  const group = trio();
  group.isolate('c');
  for (let i = 0; i < 2; i += 1) {
    hand(group, 'a', 'b');
    hand(group, 'b', 'a');
  }
  assert.ok(group.at('c').core.term < group.at('a').core.term);
  // Now the leader is lost: only b, and c with its old term, can elect.
  group.heal();
  group.isolate('a');
  group.tick(6 * ELECTION_TICKS);
  const leaders = group.leaders().filter((id) => id !== 'a');
  assert.equal(leaders.length, 1);
  assert.equal(group.at('b').core.term, group.at('c').core.term);
});

test('[R14] when a removal makes the majority smaller, what waited for the removed node is committed', () => {
  const group = new Group(['a', 'b']);
  group.elect('a');
  const leader = group.at('a').core;
  leader.proposeConfigChange({ kind: 'remove', node: 'b', context: new Uint8Array(0) });
  const position = leader.lastIndex();
  // b gets the removal, and nothing behind it.
  group.filter = ({ type, to, entries }) => type !== 'append' || to !== 'b' || (entries.at(-1)?.index ?? 0) <= position;
  for (const message of group.at('a').settle()) {
    group.at('b').core.step(message);
  }
  assert.equal(leader.propose(bytes('x')), 'accepted');
  group.settle();
  assert.deepEqual([leader.committed, leader.applied], [position + 1, position + 1]);
  assert.deepEqual(texts(group.at('a').applied).at(-1), 'x');
});

/** The logs of leader and follower, and how often the follower refuses: once a term in which they differ, not an entry. */
const REFUSALS: readonly [leader: readonly number[], follower: readonly number[], refusals: number][] = [
  [[1, 2, 3], [1, 2, 3], 0],
  [[1, 2, 2, 2], [1], 1],
  [[1, 2, 2, 2], [], 1],
  [[1, 2], [1, 2, 2, 2], 0],
  [[1, 3, 3, 3], [1, 2, 2, 2], 1],
  [[1, 2, 4, 4, 4], [1, 2, 3, 3, 3, 3], 1],
  [[1, 1, 1, 5], [1, 2, 2, 3], 2],
  [[1, 1, 1, 1, 1, 1, 1, 6], [1, 2, 3, 4, 5, 5, 5, 5], 2],
  [[2, 2, 2, 2, 5, 5], [2, 2, 2, 3, 3, 3, 3, 4, 4, 4], 2],
];

for (const [leader, follower, refusals] of REFUSALS) {
  test(`a follower with terms [${follower}] refuses a leader with [${leader}] ${refusals} times`, () => {
    const group = groupOf({ a: leader, b: follower, c: leader });
    let refused = 0;
    group.filter = ({ type, from, reject }) => {
      refused += type === 'append-response' && from === 'b' && reject ? 1 : 0;
      return true;
    };
    group.elect('a');
    assert.deepEqual(termsOf(group.at('b')), termsOf(group.at('a')));
    assert.equal(refused, refusals);
  });
}

test('a read that is asked for twice under one number is answered, and holds up nobody', () => {
  const group = trio();
  const b = group.at('b');
  const answered: Message[] = [];
  group.filter = (message) => {
    answered.push(...(message.type === 'read-index-response' ? [message] : []));
    return true;
  };
  assert.equal(b.core.readIndex(7), 'accepted');
  assert.equal(b.core.readIndex(7), 'accepted');
  assert.equal(b.core.readIndex(8), 'accepted');
  group.settle();
  assert.deepEqual(
    answered.map(({ context, index }) => [context, index]),
    [
      [7, 2],
      [7, 2],
      [8, 2],
    ],
  );
  assert.deepEqual([...b.reads.keys()], [7, 8]);
});

test('[R18] whoever asks for the present leader takes back a transfer, and a second wish for the same one does not extend it', () => {
  const group = trio();
  group.filter = ({ type }) => type !== 'timeout-now';
  const a = group.at('a').core;
  assert.equal(a.transferLeadership('b'), 'started');
  group.tick(ELECTION_TICKS - 1);
  assert.equal(a.transferLeadership('b'), 'under-way');
  assert.equal(a.propose(bytes('x')), 'transferring');
  group.tick(1);
  assert.equal(a.propose(bytes('x')), 'accepted');
  assert.equal(a.transferLeadership('c'), 'started');
  assert.equal(a.transferLeadership('a'), 'self');
  assert.equal(a.propose(bytes('y')), 'accepted');
  assert.equal(a.status().transferTarget, NOBODY);
});

/** a of five voters, pre-candidate for term 2 or candidate in it; nobody has answered. */
function campaigner(role: 'pre-candidate' | 'candidate'): Member {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a', 'b', 'c', 'd', 'e']));
  a.core.campaign();
  a.settle();
  if (role === 'candidate') {
    a.receive({ type: 'pre-vote-response', from: 'd', term: 2 });
    a.receive({ type: 'pre-vote-response', from: 'e', term: 2 });
  }
  assert.equal(a.core.role, role);
  return a;
}

test('of two answers of a voter in one campaign the first counts, whichever it was', () => {
  for (const isGrantFirst of [true, false]) {
    const a = campaigner('candidate');
    a.receive({ type: 'vote-response', from: 'b', term: 2, reject: !isGrantFirst });
    a.receive({ type: 'vote-response', from: 'b', term: 2, reject: isGrantFirst });
    a.receive({ type: 'vote-response', from: 'c', term: 2 });
    assert.equal(a.core.role, isGrantFirst ? 'leader' : 'candidate');
  }
});

test('a late grant of a pre-vote for an earlier term does not count for the present campaign', () => {
  const a = campaigner('pre-candidate');
  // Somebody else had term 2.
  a.receive({ type: 'heartbeat', from: 'b', term: 2 });
  a.core.forgetLeader();
  a.core.campaign();
  a.settle();
  for (const from of ['c', 'd', 'e']) {
    a.receive({ type: 'pre-vote-response', from, term: 2 });
  }
  assert.deepEqual([a.core.role, a.core.term], ['pre-candidate', 2]);
  a.receive({ type: 'pre-vote-response', from: 'c', term: 3 });
  a.receive({ type: 'pre-vote-response', from: 'd', term: 3 });
  assert.deepEqual([a.core.role, a.core.term], ['candidate', 3]);
});

test('[R9] who asks for a pre-vote in a term that is over is told the present one, and asks for the next', () => {
  const b = new Member('b', MemoryRaftStorage.bootstrap(['a', 'b', 'c', 'd', 'e']));
  b.receive({ type: 'vote', from: 'c', term: 6, index: 1, logTerm: 1 });
  const [answer] = b.receive({ type: 'pre-vote', from: 'a', term: 2, index: 1, logTerm: 1 });
  assert.deepEqual([answer?.type, answer?.to, answer?.reject, answer?.term], ['pre-vote-response', 'a', true, 6]);
  const a = campaigner('pre-candidate');
  a.core.step(answer as Message);
  assert.deepEqual([a.core.role, a.core.term], ['follower', 6]);
  a.settle();
  a.core.campaign();
  assert.deepEqual(
    a.settle().map(({ type, term }) => [type, term]),
    ['b', 'c', 'd', 'e'].map(() => ['pre-vote', 7]),
  );
});

/** Membership changes, removed nodes and leadership transfer in the Raft core. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import { type Message, makeMessage, NOBODY } from '../../src/raft/messages.ts';
import { bytes, ELECTION_TICKS, entriesOf, Group, Member, texts } from './raft-group.ts';

const NO_CONTEXT = new Uint8Array(0);

function trio(): Group {
  const group = new Group(['a', 'b', 'c']);
  group.elect('a');
  return group;
}

test('[R12] no membership change before an entry of the term is committed', () => {
  const group = new Group(['a', 'b', 'c', 'd']);
  group.filter = ({ type }) => type !== 'append';
  group.elect('a');
  const change = { kind: 'remove', node: 'd', context: NO_CONTEXT } as const;
  assert.equal(group.at('a').core.proposeConfigChange(change), 'term-not-committed');
  group.filter = () => true;
  group.tick(2);
  assert.equal(group.at('a').core.proposeConfigChange(change), 'accepted');
});

/**
 * Thesis erratum of July 2015 ("bug in single-server membership changes"): rival leaders make one change each from the
 * same members, and their majorities do not meet. Two adds, two removals, and one of each, as published.
 */
const ERRATUM: readonly [
  name: string,
  first: readonly ['add-learner' | 'remove', string],
  second: readonly ['add-learner' | 'remove', string],
][] = [
  ['two adds', ['add-learner', 'e'], ['add-learner', 'f']],
  ['two removals', ['remove', 'a'], ['remove', 'b']],
  ['an add and a removal', ['add-learner', 'e'], ['remove', 'a']],
];
for (const [name, first, second] of ERRATUM) {
  test(`[R12] rival leaders, ${name}: the second leader may not change members before it committed, and then the first cannot`, () => {
    const group = new Group(['a', 'b', 'c', 'd']);
    group.elect('a');
    // a proposes its change, which reaches nobody.
    group.isolate('a');
    assert.equal(
      group.at('a').core.proposeConfigChange({ kind: first[0], node: first[1], context: NO_CONTEXT }),
      'accepted',
    );
    group.settle();
    // b is elected by c and d; appends do not get through yet.
    group.filter = ({ type }) => type !== 'append';
    group.elect('b');
    const change = { kind: second[0], node: second[1], context: NO_CONTEXT } as const;
    assert.equal(group.at('b').core.proposeConfigChange(change), 'term-not-committed');
    group.filter = () => true;
    group.tick(2);
    group.change('b', ...second);
    // a comes back: its change can never be committed, since a majority has a later term in its log.
    group.heal();
    group.tick(3 * ELECTION_TICKS);
    for (const id of ['b', 'c', 'd']) {
      const { voters, learners } = group.at(id).core.configState();
      assert.deepEqual(learners, second[0] === 'add-learner' ? [second[1]] : [], id);
      assert.deepEqual(
        voters,
        ['a', 'b', 'c', 'd'].filter((node) => second[0] !== 'remove' || node !== second[1]),
        id,
      );
    }
    assert.equal(group.leaders().length, 1);
  });
}

test('[R13] one membership change at a time, also over a change of leader, and none that leaves no voters', () => {
  const group = trio();
  const a = group.at('a').core;
  const change = (node: string) => ({ kind: 'add-learner', node, context: NO_CONTEXT }) as const;
  assert.equal(a.proposeConfigChange(change('x')), 'accepted');
  assert.equal(a.proposeConfigChange(change('y')), 'pending');
  group.settle();
  assert.equal(a.proposeConfigChange(change('y')), 'accepted');
  group.settle();
  assert.deepEqual(group.at('b').core.configState(), { voters: ['a', 'b', 'c'], learners: ['x', 'y'] });
  const lone = new Group(['a']);
  lone.elect('a');
  assert.equal(lone.at('a').core.proposeConfigChange({ ...change('a'), kind: 'remove' }), 'zero-voters');
  assert.equal(lone.at('a').core.proposeConfigChange(change('a')), 'zero-voters');
});

test('[R13] a change that is committed and not applied: not in force, and no campaign', () => {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a', 'b', 'c']));
  const donor = new Group(['b']);
  donor.elect('b');
  donor.change('b', 'add-learner', 'x');
  const entry = donor.at('b').applied.at(-1);
  assert.ok(entry);
  const entries = [...entriesOf(2, 2), { ...entry, index: 3, term: 2 }];
  a.core.step(makeMessage({ type: 'append', from: 'b', to: 'a', term: 2, index: 1, logTerm: 1, entries, commit: 3 }));
  a.persist(a.core.ready());
  const ready = a.core.ready();
  assert.equal(ready.committedEntries.length, 2);
  a.persist(ready);
  assert.deepEqual(a.core.configState().learners, []);
  assert.equal(a.core.campaign(), 'unapplied-config');
  a.tick(2 * ELECTION_TICKS);
  assert.equal(a.core.role, 'follower');
  a.core.appliedTo(3);
  assert.deepEqual(a.core.configState().learners, ['x']);
  assert.equal(a.core.campaign(), null);
});

test('[R13] a new leader whose log may hold a change waits until it has applied it', () => {
  const group = trio();
  group.filter = ({ commit, from }) => !(from === 'a' && commit > 2);
  group.change('a', 'add-learner', 'x');
  group.filter = () => true;
  group.isolate('a');
  const b = group.at('b');
  assert.deepEqual(b.core.configState().learners, [], 'in the log of b, and not known to be committed');
  b.core.forgetLeader();
  group.at('c').core.forgetLeader();
  b.core.campaign();
  // b persists and sends, but its state machine does not get on.
  let mail: readonly Message[] = [];
  for (let round = 0; round < 10; round += 1) {
    const ready = b.core.ready();
    mail = [...ready.messages, ...b.persist(ready)];
    for (const message of mail.filter(({ to }) => to === 'c')) {
      group.at('c').core.step(message);
    }
    for (const answer of group.at('c').settle()) {
      b.core.step(answer);
    }
  }
  assert.equal(b.core.committed, b.core.lastIndex());
  const change = { kind: 'add-learner', node: 'y', context: NO_CONTEXT } as const;
  assert.equal(b.core.proposeConfigChange(change), 'pending');
  b.core.appliedTo(b.core.committed);
  assert.deepEqual(b.core.configState().learners, ['x']);
  assert.equal(b.core.proposeConfigChange(change), 'accepted');
});

test('[R13] a restart in the middle of a change: the members are those of what is applied', () => {
  const group = trio();
  group.change('a', 'add-learner', 'x');
  group.at('b').compact();
  group.change('a', 'remove', 'c');
  const b = group.at('b');
  b.restart();
  assert.deepEqual(b.core.configState(), { voters: ['a', 'b', 'c'], learners: ['x'] });
  b.settle();
  assert.deepEqual(b.core.configState(), { voters: ['a', 'b'], learners: ['x'] });
});

test('[R13] members travel in the snapshot, and are in force when it is installed', () => {
  const group = trio();
  group.change('a', 'add-learner', 'd');
  group.propose('a', 'x');
  group.at('a').compact();
  const d = group.add('d');
  group.tick(3);
  assert.deepEqual(d.core.configState(), { voters: ['a', 'b', 'c'], learners: ['d'] });
  assert.equal(d.core.applied, group.at('a').core.applied);
});

test('[R14] a leader removed or made a learner steps down when it applies that, and does not count itself', () => {
  for (const kind of ['remove', 'add-learner'] as const) {
    const group = trio();
    group.change('a', kind, 'a');
    assert.equal(group.at('a').core.role, 'follower', kind);
    assert.equal(group.at('a').core.propose(bytes('x')), 'not-leader');
    assert.deepEqual(group.at('b').core.configState().voters, ['b', 'c']);
    group.elect('b');
    group.isolate('c');
    const { committed } = group.at('b').core;
    group.at('b').core.propose(bytes('y'));
    group.settle();
    assert.equal(group.at('b').core.committed, committed, 'a must not count');
  }
});

test('[R15] a removed node that does not know it, with as good a log as the others, does not raise the term', () => {
  const group = trio();
  // c gets the entry that removes it, but never hears that it is committed.
  group.filter = ({ to, commit, from }) => !(to === 'c' && from === 'a' && commit > 2);
  group.change('a', 'remove', 'c');
  group.filter = () => true;
  assert.deepEqual(group.at('a').core.configState().voters, ['a', 'b']);
  assert.equal(group.at('c').core.lastIndex(), group.at('a').core.lastIndex());
  const { term } = group.at('a').core;
  group.tick(100 * ELECTION_TICKS);
  assert.ok(group.at('c').core.counters.preElections > 10, 'the others send it nothing any more, so it asks for votes');
  assert.deepEqual([group.at('a').core.term, group.at('a').core.role], [term, 'leader']);
});

test('[R15] a node that was cut off for long does not raise the term when it is back', () => {
  const group = trio();
  group.isolate('c');
  group.propose('a', 'x');
  group.tick(100 * ELECTION_TICKS);
  const { term } = group.at('a').core;
  group.heal();
  group.tick(10 * ELECTION_TICKS);
  assert.deepEqual([group.at('a').core.term, group.leaders()], [term, ['a']]);
  assert.deepEqual(texts(group.at('c').applied).at(-1), 'x');
});

test('[R16] a node becomes voter only with the log, so that a lost voter meanwhile stops nothing', () => {
  const group = trio();
  const promote = { kind: 'add-voter', node: 'd', context: NO_CONTEXT } as const;
  const a = group.at('a');
  assert.equal(a.core.proposeConfigChange(promote), 'not-learner');
  group.change('a', 'add-learner', 'd');
  assert.equal(a.core.proposeConfigChange(promote), 'not-caught-up');
  group.isolate('c');
  const { committed } = a.core;
  group.propose('a', 'x');
  assert.ok(a.core.committed > committed, 'writes go on');
  group.heal();
  group.add('d');
  group.tick(3);
  assert.equal(a.core.proposeConfigChange(promote), 'accepted');
  group.settle();
  assert.deepEqual(group.at('d').core.configState().voters, ['a', 'b', 'c', 'd']);
});

test('[R17] a node that believes to be a learner votes; one that is a learner does not campaign', () => {
  const group = new Group(['a', 'b'], {}, ['c']);
  const c = group.at('c');
  assert.equal(c.core.campaign(), 'not-promotable');
  c.tick(5 * ELECTION_TICKS);
  assert.equal(c.core.role, 'follower');
  assert.equal(c.receive({ type: 'vote', from: 'a', term: 2, index: 1, logTerm: 1 })[0]?.reject, false);
});

test('[R18] during a transfer proposals are refused, and after an election timeout it is given up', () => {
  const group = trio();
  group.filter = ({ type }) => type !== 'timeout-now';
  const a = group.at('a').core;
  assert.equal(a.transferLeadership('b'), 'started');
  group.settle();
  assert.equal(a.propose(bytes('x')), 'transferring');
  assert.equal(a.proposeConfigChange({ kind: 'add-learner', node: 'x', context: NO_CONTEXT }), 'transferring');
  group.tick(ELECTION_TICKS - 1);
  assert.equal(a.propose(bytes('x')), 'transferring');
  group.tick(1);
  assert.equal(a.propose(bytes('x')), 'accepted');
});

test('[R18] a transfer to a node that is behind, behind a snapshot, changed, removed, demoted', () => {
  const group = trio();
  group.isolate('c');
  group.propose('a', 'x');
  group.at('a').compact();
  group.heal();
  group.at('a').core.transferLeadership('c');
  group.tick(3);
  assert.deepEqual(group.leaders(), ['c'], 'behind a snapshot');
  group.isolate('b');
  group.at('c').core.transferLeadership('b');
  group.settle();
  group.at('c').core.transferLeadership('a');
  group.settle();
  assert.deepEqual(group.leaders(), ['a'], 'the second wish counts');
  group.heal();
  group.tick(2);
  for (const [kind, node] of [
    ['add-learner', 'b'],
    ['remove', 'c'],
  ] as const) {
    assert.equal(group.at('a').core.proposeConfigChange({ kind, node, context: NO_CONTEXT }), 'accepted');
    group.filter = ({ type }) => type !== 'timeout-now';
    group.at('a').core.transferLeadership(node);
    group.settle();
    assert.equal(group.at('a').core.status().transferTarget, NOBODY, `${kind} ${node}`);
    assert.equal(group.at('a').core.propose(bytes('y')), 'accepted');
    group.settle();
  }
});

test('[R18] a hundred transfers under load lose nothing', () => {
  const group = trio();
  const ids = ['a', 'b', 'c'];
  const accepted: string[] = [];
  for (let i = 0; i < 100; i += 1) {
    const [leader] = group.leaders() as [string];
    group.propose(leader, `m${i}`);
    accepted.push(`m${i}`);
    const target = ids[(ids.indexOf(leader) + 1 + (i % 2)) % 3] as string;
    group.at(leader).core.transferLeadership(target);
    group.settle();
    assert.deepEqual(group.leaders(), [target]);
  }
  for (const id of ids) {
    assert.deepEqual(
      texts(group.at(id).applied).filter((text) => text !== ''),
      accepted,
      id,
    );
  }
});

test('[R17] a voter that does not know that it is one learns it from who asks for its vote: the leader that made it one has the shorter log', () => {
  const group = new Group(['b'], {}, ['a']);
  group.elect('b');
  const [a, b] = [group.at('a'), group.at('b')];
  // What makes it a voter and an entry behind it are sent in turn; the power fails when the first one is on the leader's own disk, and thereby committed.
  assert.equal(b.core.proposeConfigChange({ kind: 'add-voter', node: 'a', context: NO_CONTEXT }), 'accepted');
  const first = b.core.ready();
  assert.equal(b.core.propose(bytes('lost')), 'accepted');
  const second = b.core.ready();
  b.persist(first);
  for (const { index } of b.core.ready().committedEntries) b.core.appliedTo(index);
  b.compact();
  b.restart();
  assert.deepEqual(b.core.configState(), { voters: ['a', 'b'], learners: [] });
  for (const message of [...first.messages, ...second.messages]) a.receive(message);
  assert.deepEqual(a.core.configState(), { voters: ['b'], learners: ['a'] });
  assert.equal(a.core.lastIndex(), b.core.lastIndex() + 1);
  group.tick(8 * ELECTION_TICKS);
  assert.deepEqual(group.leaders(), ['a']);
  assert.deepEqual(a.core.configState(), { voters: ['a', 'b'], learners: [] });
  assert.deepEqual(texts(b.applied).at(-2), 'lost');
});

test('[R17] what a request for a vote calls committed counts only where the own log has that entry', () => {
  const group = new Group(['a', 'b', 'c']);
  group.elect('a');
  group.propose('a', 'x');
  const b = group.at('b');
  const { committed, term } = b.core;
  group.filter = ({ type, commit }) => type === 'append' && commit <= committed;
  group.propose('a', 'y');
  assert.deepEqual([b.core.committed, b.core.lastIndex()], [committed, committed + 1]);
  const ask = (commit: number, context: number): number => {
    b.core.forgetLeader();
    b.receive({ type: 'pre-vote', from: 'c', term: term + 1, index: committed, logTerm: term, commit, context });
    return b.core.committed;
  };
  assert.equal(ask(committed + 1, term + 1), committed);
  assert.equal(ask(committed + 1, 0), committed);
  assert.equal(ask(committed + 2, term), committed);
  assert.equal(ask(committed - 1, term), committed);
  assert.equal(ask(committed + 1, term), committed + 1);
});

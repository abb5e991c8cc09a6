import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import { INDEX_MAX, type Message, makeMessage, NOBODY } from '../../src/raft/messages.ts';
import { bytes, ELECTION_TICKS, entriesOf, Group, HEARTBEAT_TICKS, Member, texts } from './raft-group.ts';

function trio(): Group {
  const group = new Group(['a', 'b', 'c']);
  group.elect('a');
  return group;
}

test('[R1] figure 8: an entry of term 2 on a majority may still be lost, so it is not committed before one of term 4', () => {
  const group = new Group(['a', 'b', 'c', 'd', 'e']);
  group.elect('a');
  const start = group.at('a').core.committed;
  // (a) a appends in its term; only b gets it.
  for (const id of ['c', 'd', 'e']) {
    group.cut('a', id);
  }
  group.propose('a', 'old');
  // (b) a crashes. e is elected by c and d, appends, tells nobody.
  group.heal();
  group.isolate('a');
  group.isolate('b');
  group.filter = ({ type }) => type !== 'append';
  group.elect('e');
  // (c) e crashes. a comes back, and sends its old entry to c: it is on a majority (a, b, c), but of an earlier term.
  group.at('a').restart();
  group.heal();
  group.isolate('e');
  group.isolate('d');
  group.elect('a');
  const { term } = group.at('a').core;
  for (const id of ['b', 'c']) {
    const entries = [oldEntry(group, start)];
    const sent = group.at(id).receive({ type: 'append', from: 'a', term, index: start, logTerm: 2, entries });
    assert.equal(sent.at(-1)?.index, start + 1, 'acknowledged');
    group.at('a').core.step(sent.at(-1) as Message);
  }
  group.settle();
  assert.equal(group.at('a').core.committed, start, 'not by counting');
  // (d) So when a crashes, e may overwrite it.
  group.at('e').restart();
  group.heal();
  group.isolate('a');
  group.filter = () => true;
  group.elect('e');
  assert.ok(group.at('e').core.committed > start);
  assert.deepEqual(texts(group.at('c').applied).includes('old'), false);
});

function oldEntry(group: Group, start: number) {
  const entry = group.at('a').storage.entries(start + 1, start + 2, 1_000)?.[0];
  assert.ok(entry);
  return entry;
}

test('[R2] a new leader answers no read before it commits in its own term', () => {
  const group = trio();
  group.propose('a', 'x');
  // b has x but does not know that it is committed.
  const b = group.at('b');
  const committed = group.at('a').core.committed;
  group.isolate('a');
  group.filter = ({ type }) => type !== 'append';
  group.elect('b');
  assert.equal(b.core.readIndex(1), 'accepted');
  group.tick(2);
  assert.equal(b.reads.has(1), false, 'waits');
  group.filter = () => true;
  group.tick(2);
  assert.ok((b.reads.get(1) as number) > committed);
});

test('[R2] a lone voter that restarts answers no read before it commits again', () => {
  const storage = MemoryRaftStorage.bootstrap(['a']);
  storage.append(entriesOf(2, 1, 1));
  storage.setHardState({ term: 1, vote: NOBODY, commit: 1 });
  const a = new Member('a', storage);
  a.core.campaign();
  a.persist(a.core.ready());
  assert.equal(a.core.role, 'leader');
  a.core.readIndex(7);
  const ready = a.core.ready();
  assert.deepEqual(ready.readStates, [], 'what was acknowledged before the restart may lie above the commit index');
  a.persist(ready);
  a.settle();
  assert.equal(a.reads.get(7), 4);
});

test('[R11] a leader cut off from the majority answers no read', () => {
  const group = trio();
  group.propose('a', 'x');
  group.isolate('a');
  group.elect('b');
  group.propose('b', 'y');
  group.at('a').core.readIndex(1);
  group.settle();
  group.tick(3 * ELECTION_TICKS);
  group.heal();
  group.tick(3 * ELECTION_TICKS);
  assert.equal(group.at('a').reads.has(1), false);
});

test('[R11] answers to the read rounds of an earlier leadership prove nothing in a later one', () => {
  const group = trio();
  const a = group.at('a');
  for (let context = 1; context <= 5; context += 1) {
    a.core.readIndex(context);
    group.settle();
  }
  assert.equal(a.reads.size, 5);
  group.elect('b');
  group.elect('a');
  group.isolate('a');
  group.elect('b');
  group.propose('b', 'x');
  assert.equal(a.core.role, 'leader', 'a has not noticed');
  a.core.readIndex(6);
  group.settle();
  group.heal();
  group.tick(3);
  assert.equal(a.reads.has(6), false);
});

test('reads of a follower, a learner and the leader share a round and wait for the applied index', () => {
  const group = new Group(['a', 'b', 'c'], {}, ['d']);
  group.elect('a');
  group.propose('a', 'x');
  let heartbeats = 0;
  group.filter = ({ type }) => {
    heartbeats += type === 'heartbeat' ? 1 : 0;
    return true;
  };
  for (const id of ['a', 'b', 'd']) {
    assert.equal(group.at(id).core.readIndex(5), 'accepted');
  }
  assert.equal(group.at('a').core.readIndex(6), 'accepted');
  group.settle();
  for (const id of ['a', 'b', 'd']) {
    assert.equal(group.at(id).reads.get(5), group.at('a').core.committed, id);
  }
  assert.ok(heartbeats <= 6, `${heartbeats} heartbeats: a round for a's, one for the two others`);
});

test('reads have a limit, and without a leader are refused', () => {
  const group = new Group(['a', 'b', 'c'], { readsMax: 2 });
  assert.equal(group.at('a').core.readIndex(1), 'no-leader');
  group.elect('a');
  group.isolate('a');
  assert.deepEqual(
    [1, 2, 3].map((context) => group.at('a').core.readIndex(context)),
    ['accepted', 'accepted', 'full'],
  );
});

test('[R3] vote, vote request and term leave a node only after they are written', () => {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a', 'b', 'c']));
  a.core.step(makeMessage({ type: 'vote', from: 'b', to: 'a', term: 2, index: 1, logTerm: 1 }));
  const voting = a.core.ready();
  assert.deepEqual(voting.messages, []);
  assert.deepEqual(voting.hardState, { term: 2, vote: 'b', commit: 1 });
  assert.equal(voting.mustSync, true);
  assert.deepEqual(
    voting.messagesAfterPersist.map(({ type, reject }) => [type, reject]),
    [['vote-response', false]],
  );
  a.persist(voting);
  // A heartbeat of a still later term: even its answer waits, since it tells of that term.
  a.core.step(makeMessage({ type: 'heartbeat', from: 'c', to: 'a', term: 3 }));
  const hearing = a.core.ready();
  assert.deepEqual(hearing.messages, []);
  assert.deepEqual(
    hearing.messagesAfterPersist.map(({ type }) => type),
    ['heartbeat-response'],
  );
  a.persist(hearing);
  a.core.step(makeMessage({ type: 'heartbeat', from: 'c', to: 'a', term: 3 }));
  assert.deepEqual(
    a.core.ready().messages.map(({ type }) => type),
    ['heartbeat-response'],
    'from then on it need not wait',
  );
});

test('[R3] a candidate asks for votes, and counts its own, only when term and vote are written', () => {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a', 'b', 'c']));
  a.core.campaign();
  a.settle();
  a.core.step(makeMessage({ type: 'pre-vote-response', from: 'b', to: 'a', term: 2 }));
  const ready = a.core.ready();
  assert.deepEqual(ready.messages, []);
  assert.deepEqual(
    ready.messagesAfterPersist.map(({ type, to }) => [type, to]),
    [
      ['vote', 'b'],
      ['vote', 'c'],
    ],
  );
  a.persist(ready);
  a.receive({ type: 'vote-response', from: 'b', term: 2 });
  assert.equal(a.core.role, 'leader');
});

test('[R4] a leader counts its own entry only after its write is done', () => {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a']));
  a.core.campaign();
  a.settle();
  a.core.propose(bytes('x'));
  const ready = a.core.ready();
  assert.equal(a.core.committed, 2);
  assert.deepEqual(ready.committedEntries, []);
  assert.equal(ready.mustSync, true);
  a.persist(ready);
  assert.equal(a.core.committed, 3);
  assert.deepEqual(texts(a.core.ready().committedEntries), ['x']);
});

test('[R4] a follower acknowledges an entry only after its write is done, also one sent twice', () => {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a', 'b', 'c']));
  const append = makeMessage({
    type: 'append',
    from: 'b',
    to: 'a',
    term: 1,
    index: 1,
    logTerm: 1,
    entries: entriesOf(2, 1),
  });
  a.core.step(append);
  const first = a.core.ready();
  a.core.step(append);
  const second = a.core.ready();
  assert.deepEqual([first.messages, second.messages], [[], []]);
  assert.deepEqual([first.entries.length, second.entries.length], [1, 0]);
  // The second has nothing to write, but its answer must wait for the first: Readies are ended in order.
  assert.throws(() => a.core.persisted(second), /in order/);
});

test('[R4] a leader that never wrote its own entry commits it with the others’ help, and does not apply it', () => {
  const group = trio();
  const a = group.at('a');
  a.core.propose(bytes('x'));
  const stuck = a.core.ready();
  for (const message of stuck.messages) {
    group.at(message.to).core.step(message);
    for (const answer of group.at(message.to).settle()) {
      a.core.step(answer);
    }
  }
  assert.equal(a.core.committed, 3);
  assert.equal(a.core.ready().committedEntries.length, 0, '[R7]');
});

test('[R5] a late append of an older prefix does not cut the log', () => {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a', 'b', 'c']));
  const all = entriesOf(2, 1, 1, 1, 1);
  const from = { type: 'append', from: 'b', term: 1, index: 1, logTerm: 1 } as const;
  assert.equal(a.receive({ ...from, entries: all, commit: 3 }).at(-1)?.index, 5);
  for (const entries of [all.slice(0, 1), all.slice(0, 3), []]) {
    const [answer] = a.receive({ ...from, entries, commit: 2 });
    assert.equal(answer?.reject, false);
    assert.equal(a.core.lastIndex(), 5, `${entries.length} entries`);
  }
  assert.equal(a.core.committed, 3);
});

test('[R6] completion of an older write does not mark newer entries of the same positions durable', () => {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a', 'b', 'c']));
  const append = (from: string, term: number, ...terms: number[]) => {
    a.core.step(
      makeMessage({ type: 'append', from, to: 'a', term, index: 1, logTerm: 1, entries: entriesOf(2, ...terms) }),
    );
    return a.core.ready();
  };
  const writes = [append('b', 2, 2), append('c', 3, 3), append('b', 4, 2, 4)];
  assert.deepEqual(
    writes.map((ready) => ready.entries.map((entry) => entry.term)),
    [[2], [3], [2, 4]],
  );
  for (const [i, expected] of [1, 1, 3].entries()) {
    a.persist(writes[i] as (typeof writes)[number]);
    assert.equal(a.core.status().durableIndex, expected, `after write ${i + 1}`);
  }
});

test('[R8] a follower that holds only a snapshot votes by it, and can win', () => {
  const storage = new MemoryRaftStorage();
  storage.applySnapshot({ index: 10, term: 4, config: { voters: ['a', 'b', 'c'], learners: [] }, ref: '' });
  storage.setHardState({ term: 4, vote: NOBODY, commit: 10 });
  const a = new Member('a', storage);
  assert.equal(a.receive({ type: 'vote', from: 'b', term: 5, index: 9, logTerm: 4 })[0]?.reject, true);
  assert.equal(a.receive({ type: 'vote', from: 'c', term: 6, index: 10, logTerm: 4 })[0]?.reject, false);
  a.tick(2 * ELECTION_TICKS);
  const asked = a.settle().filter(({ type }) => type === 'pre-vote');
  assert.deepEqual([asked[0]?.index, asked[0]?.logTerm], [10, 4]);
});

const ONE_WAY: readonly (readonly string[])[] = [['a>b'], ['b>a'], ['b>c'], ['a>b', 'a>c'], ['b>a', 'c>a']];
for (const links of ONE_WAY) {
  test(`[R9] [R10] ${links.join(' and ')} broken, a leads: few elections, and writes go on within five election timeouts`, () => {
    const group = trio();
    for (const link of links) {
      group.cut(...(link.split('>') as [string, string]));
    }
    const before = elections(group);
    group.tick(5 * ELECTION_TICKS);
    assert.ok(canWrite(group), 'after five election timeouts');
    group.tick(100 * ELECTION_TICKS);
    assert.ok(elections(group) - before <= 2, `${elections(group) - before} elections`);
    assert.ok(canWrite(group), 'and in the long run');
  });
}

function canWrite(group: Group): boolean {
  return group.leaders().some((id) => {
    const { core } = group.at(id);
    const { committed } = core;
    core.propose(bytes('x'));
    group.settle();
    group.tick(2);
    return core.committed > committed;
  });
}

function elections(group: Group): number {
  return [...group.members.values()].reduce((sum, member) => sum + member.core.counters.elections, 0);
}

test('[R10] an isolated leader steps down within two election timeouts and refuses what comes after', () => {
  const group = trio();
  group.tick(3);
  group.isolate('a');
  group.tick(2 * ELECTION_TICKS);
  assert.equal(group.at('a').core.role, 'follower');
  assert.equal(group.at('a').core.propose(bytes('late')), 'not-leader');
});

test('[R20] a snapshot whose fate is unknown blocks, one that failed is sent again after a heartbeat', () => {
  const group = trio();
  group.isolate('c');
  group.propose('a', 'x');
  group.at('a').compact();
  group.heal();
  group.filter = ({ type }) => type !== 'snapshot';
  group.tick(3);
  const peer = () =>
    group
      .at('a')
      .core.status()
      .peers.find(({ node }) => node === 'c');
  assert.equal(peer()?.state, 'snapshot');
  group.at('a').core.reportSnapshot('c', 'failed');
  assert.deepEqual([peer()?.state, peer()?.isBlocked], ['probe', true]);
  assert.equal(peer()?.next, (peer()?.match as number) + 1, 'it did not arrive');
  group.filter = () => true;
  group.tick(3);
  assert.deepEqual([peer()?.state, group.at('c').core.applied], ['replicate', group.at('a').core.applied]);
});

test('[R20] a snapshot that fails again and again is sent after 1, 2, 4 … 16 election timeouts, and after one that arrives at once', () => {
  const group = trio();
  const leader = group.at('a');
  const peer = () => leader.core.status().peers.find(({ node }) => node === 'c');
  /** Ticks until the next snapshot is under way. */
  const ticksUntilSent = (): number => {
    for (let ticks = 0; ; ticks += 1) {
      if (peer()?.state === 'snapshot') return ticks;
      assert.ok(ticks <= 20 * ELECTION_TICKS, 'no snapshot is sent');
      group.tick(1);
    }
  };
  const fallBehind = (): void => {
    group.filter = () => true;
    group.isolate('c');
    group.propose('a', 'x');
    leader.compact();
    group.heal();
    group.filter = ({ type }) => type !== 'snapshot';
    ticksUntilSent();
  };
  const fail = (): number => {
    leader.core.reportSnapshot('c', 'failed');
    return ticksUntilSent();
  };
  // Until one is sent, and answered.
  const heartbeat = 2 * HEARTBEAT_TICKS;
  fallBehind();
  assert.ok(fail() <= heartbeat, 'the first failure may be a broken connection');
  for (const timeouts of [1, 2, 4, 8, 16, 16]) {
    const ticks = fail();
    const wanted = timeouts * ELECTION_TICKS;
    assert.ok(ticks >= wanted && ticks <= wanted + heartbeat, `${ticks} ticks, not ${wanted}`);
  }
  group.filter = () => true;
  leader.core.reportSnapshot('c', 'failed');
  group.tick(16 * ELECTION_TICKS + heartbeat);
  assert.deepEqual([peer()?.state, group.at('c').core.applied], ['replicate', leader.core.applied]);
  fallBehind();
  assert.ok(fail() <= heartbeat, 'what failed before is forgotten');
});

test('a node that waits for a snapshot to be installed does not campaign', () => {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a', 'b', 'c']));
  const snapshot = { index: 9, term: 2, config: { voters: ['a', 'b', 'c'], learners: [] }, ref: 'r' };
  a.core.step(makeMessage({ type: 'snapshot', from: 'b', to: 'a', term: 2, snapshot }));
  const ready = a.core.ready();
  assert.equal(ready.snapshot, snapshot);
  a.tick(3 * ELECTION_TICKS);
  assert.equal(a.core.campaign(), 'not-promotable');
  assert.equal(a.core.role, 'follower');
  a.persist(ready);
  assert.equal(a.core.applied, 9);
  assert.equal(a.core.campaign(), null);
});

test('a snapshot that the log covers moves the commit index; what lies behind it is not acknowledged', () => {
  const storage = MemoryRaftStorage.bootstrap(['a', 'b', 'c']);
  storage.append(entriesOf(2, 1, 1, 1, 1));
  const a = new Member('a', storage);
  const config = { voters: ['a', 'b', 'c'], learners: [] };
  const receive = (index: number) =>
    a.receive({ type: 'snapshot', from: 'b', term: 2, snapshot: { index, term: 1, config, ref: 'r' } });
  assert.deepEqual(
    receive(3).map(({ type, index }) => [type, index]),
    [['append-response', 3]],
  );
  assert.deepEqual([a.core.committed, a.core.lastIndex()], [3, 5]);
  assert.deepEqual(
    receive(2).map(({ index }) => index),
    [3],
    'an older one is ignored',
  );
});

test('[R21] a follower that is down: what is sent to it and what is taken in stays under the limits', () => {
  const limits = { inflightMessagesMax: 4, appendBytesMax: 200, inflightBytesMax: 800, uncommittedBytesMax: 1_000 };
  const group = new Group(['a', 'b', 'c'], limits);
  group.elect('a');
  group.isolate('c');
  let sent = 0;
  group.filter = (message) => {
    sent += message.to === 'c' && message.entries.length > 0 ? 1 : 0;
    return true;
  };
  for (let i = 0; i < 200; i += 1) {
    group.propose('a', 'x'.repeat(50));
  }
  const [, c] = group.at('a').core.status().peers;
  assert.ok((c?.inflight as number) <= 4);
  group.isolate('b');
  const results = Array.from({ length: 50 }, () => group.at('a').core.propose(bytes('y'.repeat(50))));
  assert.equal(results.indexOf('full'), Math.floor(1_000 / 74));
  assert.ok(group.at('a').core.status().uncommittedBytes <= 1_000);
  assert.equal(sent, 0);
  group.heal();
  group.tick(2 * ELECTION_TICKS);
  assert.equal(group.at('a').core.status().uncommittedBytes, 0);
  assert.equal(group.at('a').core.propose(bytes('z')), 'accepted');
});

test('[R21] one proposal of any size is taken when nothing waits', () => {
  const group = new Group(['a'], { uncommittedBytesMax: 10 });
  group.elect('a');
  assert.equal(group.at('a').core.propose(bytes('x'.repeat(500))), 'accepted');
  assert.equal(group.at('a').core.propose(bytes('x')), 'full');
  group.settle();
  assert.equal(group.at('a').core.propose(bytes('x')), 'accepted');
});

test('[R22] all acknowledgements of a follower lost for a while: its commit index follows at the next heartbeat', () => {
  const group = trio();
  group.filter = ({ type, from }) => !(type === 'append-response' && from === 'c');
  group.propose('a', 'x');
  group.propose('a', 'y');
  const { committed } = group.at('a').core;
  group.filter = () => true;
  group.tick(1);
  assert.equal(group.at('c').core.committed, committed);
});

test('[R29] terms and positions at the end of the exact numbers: used up to it, then refused', () => {
  const storage = new MemoryRaftStorage();
  const index = INDEX_MAX - 3;
  storage.applySnapshot({ index, term: 7, config: { voters: ['a'], learners: [] }, ref: '' });
  storage.setHardState({ term: 7, vote: NOBODY, commit: index });
  const a = new Member('a', storage);
  a.core.campaign();
  a.settle();
  assert.deepEqual(
    [a.core.propose(bytes('x')), a.core.propose(bytes('y')), a.core.propose(bytes('z'))],
    ['accepted', 'accepted', 'exhausted'],
  );
  a.settle();
  assert.equal(a.core.applied, INDEX_MAX);
  assert.deepEqual(texts(a.applied), ['', 'x', 'y']);
  a.restart();
  assert.equal(a.core.campaign(), 'exhausted');
});

test('[R29] messages with numbers that are not exact, or overflow, are ignored', () => {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a', 'b', 'c']));
  const good = { type: 'append', from: 'b', term: 2, index: 1, logTerm: 1 } as const;
  const bad: Partial<Message>[] = [
    { term: 2 ** 53 },
    { term: Number.MAX_SAFE_INTEGER },
    { term: 2.5 },
    { term: Number.NaN },
    { index: -1 },
    { commit: Number.POSITIVE_INFINITY },
    { entries: entriesOf(3, 2) },
    { entries: entriesOf(2, 3) },
    { entries: [...entriesOf(2, 2), ...entriesOf(3, 1)] },
    { type: 'snapshot' },
    { from: 'a' },
    { from: NOBODY },
    { to: 'z' },
  ];
  for (const fields of bad) {
    a.core.step(makeMessage({ to: 'a', ...good, ...fields }));
    assert.deepEqual([a.core.term, a.core.hasReady()], [1, false], JSON.stringify(fields));
  }
  assert.equal(a.core.counters.messagesIgnored, bad.length);
});

test('a follower that lost a committed part of its log says so and stops', () => {
  const group = trio();
  group.propose('a', 'x');
  const wiped = new Member('c', MemoryRaftStorage.bootstrap(['a', 'b', 'c']));
  const { committed, term } = group.at('a').core;
  assert.throws(
    () => wiped.core.step(makeMessage({ type: 'heartbeat', from: 'a', to: 'c', term, commit: committed })),
    /lost/,
  );
});

test('proposals before one Ready share an append, and their bytes are not copied', () => {
  const group = trio();
  const data = [bytes('x'), bytes('y'), bytes('z')];
  for (const item of data) {
    group.at('a').core.propose(item);
  }
  const ready = group.at('a').core.ready();
  assert.deepEqual(
    ready.messages.map(({ to, entries }) => [to, entries.length]),
    [
      ['b', 3],
      ['c', 3],
    ],
  );
  ready.entries.forEach((entry, i) => {
    assert.equal(entry.data, data[i]);
  });
});

test('committed entries are handed out up to a limit of bytes until they are reported as applied', () => {
  const a = new Member('a', MemoryRaftStorage.bootstrap(['a']), { applyBytesMax: 100 });
  a.core.campaign();
  a.settle();
  for (let i = 0; i < 6; i += 1) {
    a.core.propose(bytes('x'.repeat(20)));
  }
  a.persist(a.core.ready());
  const first = a.core.ready();
  assert.equal(first.committedEntries.length, 2);
  a.persist(first);
  const more = a.core.ready();
  assert.equal(more.committedEntries.length, 1, 'the limit is 100 bytes and one entry may exceed it');
  a.persist(more);
  assert.equal(a.core.hasReady(), false);
  a.core.appliedTo(4);
  assert.equal(a.core.ready().committedEntries.length, 1, '44 bytes are still out, 56 are free');
});

/** The claims of the Raft paper (Ongaro and Ousterhout, extended version), section by section. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import { type Entry, type Message, NOBODY, type Role } from '../../src/raft/messages.ts';
import { bytes, ELECTION_TICKS, entriesOf, Group, HEARTBEAT_TICKS, Member, texts } from './raft-group.ts';

/** A member of a, b, c (a is the one under test) with a log behind the bootstrap position and a term. */
function member(
  options: { terms?: readonly number[]; term?: number; voters?: readonly string[]; seed?: number } = {},
): Member {
  const storage = MemoryRaftStorage.bootstrap(options.voters ?? ['a', 'b', 'c']);
  const terms = options.terms ?? [];
  storage.append(entriesOf(2, ...terms));
  storage.setHardState({ term: options.term ?? Math.max(1, ...terms), vote: NOBODY, commit: 1 });
  return new Member('a', storage, options.seed === undefined ? {} : { seed: options.seed });
}

function candidate(voters = ['a', 'b', 'c']): Member {
  const a = member({ voters });
  a.core.campaign();
  a.settle();
  for (const from of voters.slice(1, Math.floor(voters.length / 2) + 1)) {
    a.receive({ type: 'pre-vote-response', from, term: 2 });
  }
  assert.equal(a.core.role, voters.length === 1 ? 'leader' : 'candidate');
  return a;
}

function leader(voters = ['a', 'b', 'c']): Member {
  const a = candidate(voters);
  for (const from of voters.slice(1)) {
    a.receive({ type: 'vote-response', from, term: 2 });
  }
  assert.equal(a.core.role, 'leader');
  return a;
}

function inRole(role: Role): Member {
  switch (role) {
    case 'leader':
      return leader();
    case 'candidate':
      return candidate();
    case 'pre-candidate': {
      const a = member({ term: 2 });
      a.core.campaign();
      a.settle();
      return a;
    }
    case 'follower':
      return member({ term: 2 });
  }
}

function ofType(messages: readonly Message[], type: Message['type']): Message[] {
  return messages.filter((message) => message.type === type);
}

// 5.1: "If a candidate or leader discovers that its term is out of date, it immediately reverts to follower state."
for (const role of ['follower', 'pre-candidate', 'candidate', 'leader'] as const) {
  test(`5.1 a ${role} that sees a later term follows it`, () => {
    const a = inRole(role);
    a.receive({ type: 'append', from: 'b', term: 9, index: 99, logTerm: 9 });
    assert.deepEqual([a.core.role, a.core.term, a.core.leader], ['follower', 9, 'b']);
  });
}

// 5.1: "If a server receives a request with a stale term number, it rejects the request."
test('5.1 an append of an earlier term changes nothing and is answered with the term', () => {
  const a = member({ terms: [1, 2], term: 3 });
  const before = a.core.status();
  const sent = a.receive({
    type: 'append',
    from: 'b',
    term: 2,
    index: 1,
    logTerm: 1,
    entries: entriesOf(2, 2),
    commit: 2,
  });
  assert.deepEqual(
    sent.map(({ type, term }) => [type, term]),
    [['append-response', 3]],
  );
  assert.deepEqual(a.core.status(), before);
});

// 5.2: "When servers start up, they begin as followers."
test('5.2 a node starts as follower', () => {
  assert.equal(member().core.role, 'follower');
});

// 5.2: "Leaders send periodic heartbeats (AppendEntries RPCs that carry no log entries) to all followers."
test('5.2 a leader sends a heartbeat to every follower in every heartbeat interval', () => {
  const a = leader();
  for (let i = 0; i < 3; i += 1) {
    a.tick(HEARTBEAT_TICKS);
    assert.deepEqual(
      ofType(a.settle(), 'heartbeat').map(({ to, entries }) => [to, entries.length]),
      [
        ['b', 0],
        ['c', 0],
      ],
    );
  }
});

// 5.2: "If a follower receives no communication over a period of time called the election timeout, then it assumes there
// is no viable leader and begins an election." With pre-vote (thesis 9.6) the term rises when the election could be won.
for (const role of ['follower', 'candidate'] as const) {
  test(`5.2 a ${role} that hears nothing begins an election, in a new term, with its own vote`, () => {
    const a = inRole(role);
    const term = a.core.term;
    a.tick(2 * ELECTION_TICKS);
    const asked = ofType(a.settle(), 'pre-vote');
    assert.deepEqual(new Set(asked.map((message) => message.to)), new Set(['b', 'c']));
    const sent = a.receive({ type: 'pre-vote-response', from: 'b', term: term + 1 });
    assert.deepEqual([a.core.role, a.core.term, a.core.status().vote], ['candidate', term + 1, 'a']);
    assert.deepEqual(
      ofType(sent, 'vote').map(({ to, term: of }) => [to, of]),
      [
        ['b', term + 1],
        ['c', term + 1],
      ],
    );
  });
}

// 5.2: "A candidate wins an election if it receives votes from a majority of the servers in the full cluster for the
// same term."
test('5.2 what an election of n voters gives with so many votes', () => {
  const table: [voters: number, granted: number, rejected: number, expected: Role][] = [
    [2, 1, 0, 'leader'],
    [2, 0, 1, 'follower'],
    [3, 1, 0, 'leader'],
    [3, 0, 1, 'candidate'],
    [3, 0, 2, 'follower'],
    [5, 1, 0, 'candidate'],
    [5, 2, 0, 'leader'],
    [5, 1, 2, 'candidate'],
    [5, 2, 2, 'leader'],
    [5, 1, 3, 'follower'],
  ];
  for (const [count, granted, rejected, expected] of table) {
    const voters = [...'abcde'].slice(0, count);
    const a = candidate(voters);
    for (const [i, from] of voters.slice(1, 1 + granted + rejected).entries()) {
      a.receive({ type: 'vote-response', from, term: 2, reject: i >= granted });
    }
    assert.equal(a.core.role, expected, `${count} voters, ${granted} for, ${rejected} against`);
  }
});

// 5.2: "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis."
test('5.2 [R3] one vote per term, the first to ask; the same one may ask again; it holds over a restart', () => {
  const a = member();
  const ask = (from: string) =>
    a.receive({ type: 'vote', from, term: 2, index: 1, logTerm: 1 }).map(({ to, reject }) => [to, reject]);
  assert.deepEqual(ask('b'), [['b', false]]);
  assert.deepEqual(ask('c'), [['c', true]]);
  assert.deepEqual(ask('b'), [['b', false]]);
  a.restart();
  assert.deepEqual(ask('c'), [['c', true]]);
  assert.deepEqual(ask('b'), [['b', false]]);
});

// 5.2: "If the leader's term is at least as large as the candidate's current term, then the candidate recognizes the
// leader as legitimate and returns to follower state."
for (const type of ['append', 'heartbeat'] as const) {
  for (const term of [2, 3]) {
    test(`5.2 a candidate of term 2 follows the sender of an ${type} of term ${term}`, () => {
      const a = candidate();
      a.receive({ type, from: 'b', term, index: 1, logTerm: 1 });
      assert.deepEqual([a.core.role, a.core.term, a.core.leader], ['follower', term, 'b']);
    });
  }
}

// 5.2: "Raft uses randomized election timeouts to ensure that split votes are rare."
test('5.2 [R30] election timeouts are spread evenly over [ET, 2 ET), and drawn anew for every election', () => {
  const counts = new Array<number>(2 * ELECTION_TICKS).fill(0);
  const a = member();
  const rounds = 2_000;
  for (let i = 0; i < rounds; i += 1) {
    let ticks = 0;
    const before = a.core.counters.preElections;
    while (a.core.counters.preElections === before && ticks < 3 * ELECTION_TICKS) {
      a.core.tick();
      ticks += 1;
    }
    counts[ticks] = (counts[ticks] ?? 0) + 1;
    a.settle();
  }
  counts.forEach((count, ticks) => {
    const expected = ticks < ELECTION_TICKS ? 0 : rounds / ELECTION_TICKS;
    assert.ok(Math.abs(count - expected) <= expected / 2, `${count} times ${ticks} ticks`);
  });
});

test('5.2 in most elections of five followers one times out before all others', () => {
  let alone = 0;
  for (let seed = 0; seed < 300; seed += 1) {
    const group = [0, 1, 2, 3, 4].map((i) => member({ seed: seed * 5 + i }));
    for (let tick = 0; tick < 2 * ELECTION_TICKS && group.every((one) => one.core.role === 'follower'); tick += 1) {
      for (const one of group) {
        one.core.tick();
      }
    }
    alone += group.filter((one) => one.core.role !== 'follower').length === 1 ? 1 : 0;
  }
  assert.ok(alone > 150, `${alone} of 300`);
});

// 5.3: "The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in parallel to each of
// the other servers. [It] includes the index and term of the entry in its log that immediately precedes the new ones."
test('5.3 a leader appends and sends the entry with what precedes it', () => {
  const a = leader();
  for (const from of ['b', 'c']) {
    a.receive({ type: 'append-response', from, term: 2, index: 2 });
  }
  a.core.propose(bytes('x'));
  const sent = ofType(a.settle(), 'append');
  assert.deepEqual(
    sent.map(({ to, index, logTerm, commit, entries }) => [to, index, logTerm, commit, texts(entries)]),
    [
      ['b', 2, 2, 2, ['x']],
      ['c', 2, 2, 2, ['x']],
    ],
  );
});

// 5.3: "A log entry is committed once the leader that created the entry has replicated it on a majority of the servers."
test('5.3 an entry is committed when a majority has it, itself counted when its write is done', () => {
  const table: [voters: number, acknowledged: number, isCommitted: boolean][] = [
    [1, 0, true],
    [2, 0, false],
    [2, 1, true],
    [3, 0, false],
    [3, 1, true],
    [5, 1, false],
    [5, 2, true],
    [5, 4, true],
  ];
  for (const [count, acknowledged, isCommitted] of table) {
    const voters = [...'abcde'].slice(0, count);
    const a = leader(voters);
    for (const from of voters.slice(1, 1 + acknowledged)) {
      a.receive({ type: 'append-response', from, term: 2, index: 2 });
    }
    assert.equal(a.core.committed === 2, isCommitted, `${acknowledged} of ${count}`);
  }
});

// 5.3: "This also commits all preceding entries in the leader's log, including entries created by previous leaders."
test('5.3 committing an entry commits all before it, of whatever term', () => {
  for (const terms of [[], [1], [1, 1], [1, 2, 3]]) {
    const group = new Group(['a', 'b', 'c']);
    const a = new Member('a', storageWith(terms));
    group.members.set('a', a);
    group.elect('a');
    assert.deepEqual(
      a.applied.map((entry) => entry.index),
      [...terms.map((_, i) => i + 2), terms.length + 2],
    );
  }
});

function storageWith(terms: readonly number[]): MemoryRaftStorage {
  const storage = MemoryRaftStorage.bootstrap(['a', 'b', 'c']);
  storage.append(entriesOf(2, ...terms));
  storage.setHardState({ term: Math.max(1, ...terms), vote: NOBODY, commit: 1 });
  return storage;
}

// 5.3: "Once a follower learns that a log entry is committed, it applies the entry to its local state machine (in log
// order)."
test('5.3 a follower applies what the leader calls committed, in order', () => {
  const a = member();
  const entries: Entry[] = entriesOf(2, 2, 2, 2);
  a.receive({ type: 'append', from: 'b', term: 2, index: 1, logTerm: 1, entries, commit: 1 });
  assert.deepEqual(a.applied, []);
  a.receive({ type: 'heartbeat', from: 'b', term: 2, commit: 3 });
  assert.deepEqual(texts(a.applied), ['2/2', '3/2']);
});

// Figure 2, AppendEntries 5: "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)."
test('5.3 [R5] a follower takes a commit index only as far as the append proves that the logs match', () => {
  const table: [index: number, append: number[], commit: number, expected: number][] = [
    [2, [], 9, 2],
    [3, [], 9, 3],
    [2, [1], 9, 3],
    [2, [1], 2, 2],
    [1, [1, 3], 9, 3],
  ];
  for (const [index, append, commit, expected] of table) {
    const a = member({ terms: [1, 1, 2] });
    const entries = entriesOf(index + 1, ...append);
    a.receive({ type: 'append', from: 'b', term: 4, index, logTerm: 1, entries, commit });
    assert.equal(a.core.committed, expected, `after ${index}: [${append}], commit ${commit}`);
  }
});

// 5.3: "If the follower does not find an entry in its log with the same index and term, then it refuses the new entries."
test('5.3 a follower checks what precedes the entries', () => {
  const table: [index: number, term: number, isRefused: boolean, hint: [number, number]][] = [
    [1, 1, false, [0, 0]],
    [2, 1, false, [0, 0]],
    [3, 2, false, [0, 0]],
    [2, 4, true, [2, 1]],
    [3, 3, true, [3, 2]],
    [4, 4, true, [3, 2]],
    [3, 1, true, [2, 1]],
  ];
  for (const [index, logTerm, isRefused, hint] of table) {
    const a = member({ terms: [1, 2] });
    const [answer] = a.receive({ type: 'append', from: 'b', term: 4, index, logTerm });
    assert.deepEqual(
      [answer?.reject, answer?.rejectHint, answer?.logTerm],
      [isRefused, ...hint],
      `${index}/${logTerm}`,
    );
  }
});

// 5.3: "The leader handles inconsistencies by forcing the followers' logs to duplicate its own."
test('5.3 a follower writes what is new and drops what conflicts', () => {
  const table: [index: number, term: number, append: number[], after: number[]][] = [
    [3, 2, [3], [1, 2, 3]],
    [2, 1, [3, 4], [1, 3, 4]],
    [1, 1, [1], [1, 2]],
    [1, 1, [3], [3]],
  ];
  for (const [index, logTerm, append, after] of table) {
    const a = member({ terms: [1, 2] });
    a.receive({ type: 'append', from: 'b', term: 4, index, logTerm, entries: entriesOf(index + 1, ...append) });
    const log = a.storage.entries(2, a.storage.lastIndex() + 1, 1_000) ?? [];
    assert.deepEqual(
      log.map((entry) => entry.term),
      after,
      `after ${index}/${logTerm}: ${append}`,
    );
  }
});

// 5.3, figure 7: a leader brings any follower's log in line with its own.
test('5.3 the logs of figure 7 all become the leader’s', () => {
  const followers = [
    [1, 1, 4, 4, 5, 5, 6, 6],
    [1, 1, 4],
    [1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    [1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    [1, 1, 4, 4, 4, 4],
    [1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
  ];
  for (const terms of followers) {
    const group = new Group(['a', 'b', 'c']);
    group.members.set('a', new Member('a', storageWith([1, 1, 4, 4, 5, 5, 6, 6, 6])));
    group.members.set('b', new Member('b', storageWith(terms)));
    group.elect('a');
    group.propose('a', 'x');
    const of = (id: string) => group.at(id).storage.entries(2, group.at(id).storage.lastIndex() + 1, 100_000);
    assert.deepEqual(of('b'), of('a'), `${terms}`);
  }
});

// 5.4.1: "The RPC includes information about the candidate's log, and the voter denies its vote if its own log is more
// up-to-date than that of the candidate."
test('5.4.1 [R8] a vote goes only to a log that is at least as good', () => {
  const table: [terms: number[], index: number, term: number, isGranted: boolean][] = [
    [[1], 2, 1, true],
    [[1], 3, 1, true],
    [[1], 2, 2, true],
    [[1, 1], 2, 1, false],
    [[1, 1], 2, 2, true],
    [[2], 5, 1, false],
    [[2], 2, 2, true],
    [[1, 2], 2, 2, false],
  ];
  for (const type of ['vote', 'pre-vote'] as const) {
    for (const [terms, index, logTerm, isGranted] of table) {
      const a = member({ terms, term: 3 });
      const [answer] = a.receive({ type, from: 'b', term: 4, index, logTerm });
      assert.equal(answer?.reject, !isGranted, `${type} ${terms} ${index}/${logTerm}`);
    }
  }
});

// 5.4.2: "Raft never commits log entries from previous terms by counting replicas. Only log entries from the leader's
// current term are committed by counting replicas."
test('5.4.2 [R1] entries of earlier terms are not committed by counting', () => {
  const a = new Member('a', storageWith([1, 2]));
  a.core.campaign();
  a.settle();
  a.receive({ type: 'pre-vote-response', from: 'b', term: 3 });
  a.receive({ type: 'vote-response', from: 'b', term: 3 });
  assert.equal(a.core.role, 'leader');
  for (const [index, committed] of [
    [2, 1],
    [3, 1],
    [4, 4],
  ] as const) {
    a.receive({ type: 'append-response', from: 'b', term: 3, index });
    assert.equal(a.core.committed, committed, `b has ${index}`);
  }
});

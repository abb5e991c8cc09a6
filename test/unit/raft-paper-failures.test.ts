/** The claims of the Raft paper on failures and snapshots: 5.3 (retries), 5.5, 7, and figure 3. See raft-paper.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import { NOBODY, type Snapshot } from '../../src/raft/messages.ts';
import { ELECTION_TICKS, entriesOf, Group, Member, texts } from './raft-group.ts';

function trio(): Group {
  const group = new Group(['a', 'b', 'c']);
  group.elect('a');
  return group;
}

// Figure 3: "Leader Append-Only: a leader never overwrites or deletes entries in its log; it only appends new entries."
test('figure 3: a leader keeps all that was in its log when it was elected, whatever the others have', () => {
  const voters = ['a', 'b', 'c'];
  const group = new Group(voters);
  for (const [id, ...terms] of [['a', 1, 2, 4] as const, ['b', 1, 3, 3, 3, 3] as const, ['c', 1] as const]) {
    const storage = MemoryRaftStorage.bootstrap(voters);
    storage.append(entriesOf(2, ...terms));
    storage.setHardState({ term: Math.max(...terms), vote: NOBODY, commit: 1 });
    group.add(id, storage);
  }
  group.elect('a');
  for (const id of voters) {
    assert.deepEqual(texts(group.at(id).applied).slice(0, 3), ['2/1', '3/2', '4/4'], id);
  }
});

// 5.3: "If followers crash or run slowly, or if network packets are lost, the leader retries AppendEntries RPCs
// indefinitely (even after it has responded to the client) until all followers eventually store all log entries."
test('5.3 [R22] the leader goes on trying, long after the entry is committed', () => {
  const group = trio();
  let lost = 0;
  group.filter = ({ type, to }) => {
    const isLost = type === 'append' && to === 'c' && lost < 300;
    lost += isLost ? 1 : 0;
    return !isLost;
  };
  group.propose('a', 'x');
  assert.equal(group.at('a').core.committed, 3);
  group.tick(40 * ELECTION_TICKS);
  assert.equal(lost, 300, 'and it tries at every heartbeat');
  assert.deepEqual(texts(group.at('c').applied), ['', 'x']);
  assert.deepEqual(group.leaders(), ['a']);
});

// 5.5: "If a server crashes after completing an RPC but before responding, then it will receive the same RPC again after
// it restarts. Raft RPCs are idempotent, so this causes no harm."
test('5.5 a follower that wrote an entry, crashed and gets it again has it once', () => {
  const group = trio();
  group.filter = ({ type, from }) => type !== 'append-response' || from !== 'c';
  group.propose('a', 'x');
  group.at('c').restart();
  group.filter = () => true;
  group.tick(3);
  assert.deepEqual(texts(group.at('c').applied), ['', 'x']);
  assert.equal(group.at('c').core.lastIndex(), group.at('a').core.lastIndex());
});

test('5.5 [R25] every message arrives twice, the second time late: no entry more, no second leader', () => {
  const group = new Group(['a', 'b', 'c']);
  const again: (() => void)[] = [];
  group.filter = (message) => {
    again.push(() => group.at(message.to).core.step(message));
    return true;
  };
  group.elect('a');
  for (let i = 0; i < 20; i += 1) {
    group.propose('a', `m${i}`);
    for (const step of again.splice(0)) {
      step();
    }
    if (i % 7 === 6) {
      group.tick(2);
    }
  }
  const expected = Array.from({ length: 20 }, (_, i) => `m${i}`);
  for (const member of group.members.values()) {
    assert.deepEqual(texts(member.applied), ['', ...expected], member.id);
  }
  assert.deepEqual([group.leaders(), group.at('a').core.term], [['a'], 2]);
});

const CONFIG = { voters: ['a', 'b', 'c'], learners: [] };

function snapshotAt(index: number, term: number): Snapshot {
  return { index, term, config: CONFIG, ref: 'b' };
}

/** A follower in term 3 with these terms behind the bootstrap position; `commit` of them is committed. */
function follower(terms: readonly number[], commit: number): Member {
  const storage = MemoryRaftStorage.bootstrap(CONFIG.voters);
  storage.append(entriesOf(2, ...terms));
  storage.setHardState({ term: 3, vote: NOBODY, commit });
  return new Member('a', storage);
}

// 7: "If instead the follower has an earlier log that conflicts with the snapshot, ... it discards its entire log; it is
// all superseded by the snapshot and may possibly have uncommitted entries that conflict with the snapshot."
test('7 [R19] a log that conflicts with the snapshot is discarded as a whole, and goes on behind it', () => {
  const a = follower([1, 2, 2, 2, 2], 2);
  const [answer] = a.receive({ type: 'snapshot', from: 'b', term: 3, snapshot: snapshotAt(4, 3) }).slice(-1);
  assert.deepEqual([answer?.type, answer?.index, answer?.reject], ['append-response', 4, false]);
  assert.deepEqual([a.core.committed, a.core.applied, a.core.lastIndex()], [4, 4, 4]);
  const { firstIndex } = a.core.status();
  assert.equal(firstIndex, 5, 'first position is the snapshot’s plus one');
  a.receive({ type: 'append', from: 'b', term: 3, index: 4, logTerm: 3, entries: entriesOf(5, 3), commit: 5 });
  assert.deepEqual(texts(a.applied).at(-1), '5/3');
});

// 7: "If instead the follower receives a snapshot that describes a prefix of its log (due to retransmission or by
// mistake), then log entries covered by the snapshot are deleted but entries following the snapshot are still valid and
// must be retained."
test('7 a snapshot of a prefix of the log takes nothing away', () => {
  const a = follower([1, 2, 3, 3], 2);
  a.receive({ type: 'snapshot', from: 'b', term: 3, snapshot: snapshotAt(3, 2) });
  assert.deepEqual([a.core.committed, a.core.lastIndex(), a.core.termAt(5)], [3, 5, 3]);
});

test('7 a snapshot older than what is committed changes nothing, and is answered with what is committed', () => {
  const a = follower([1, 2, 3, 3], 4);
  a.settle();
  const before = a.core.status();
  const sent = a.receive({ type: 'snapshot', from: 'b', term: 3, snapshot: snapshotAt(3, 2) });
  assert.deepEqual([sent.at(-1)?.type, sent.at(-1)?.index], ['append-response', 4]);
  assert.deepEqual(a.core.status(), { ...before, leader: 'b' });
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hearingOf, isHeard, SpokenTo } from '../../src/replica/admission.ts';
import { Group, memberOf, openOf, SECOND_TICKS } from './replica-rig.ts';

test('[R16] a node joins as a learner, catches up by a snapshot and becomes a voter by itself', () => {
  const group = new Group(['a'], { votersMax: 3 });
  const a = group.begin();
  for (let i = 1; i <= 5; i++) a.replica.submit([openOf('s', i)]);
  group.settle();
  a.snapshot();
  const b = group.join('b');
  assert.deepEqual(group.change(a, { kind: 'add', member: memberOf('b') }), { reason: null, message: '' });
  group.tick(40);
  assert.deepEqual(b.replica.configState(), { voters: ['a', 'b'], learners: [] });
  assert.deepEqual(b.replica.membersForSnapshot(), a.replica.membersForSnapshot());
  assert.equal(b.replica.machine.hash(), a.replica.machine.hash());
});

test('[R16] with raft.voters voters a learner stays one until it is promoted; one that is away is not', () => {
  const group = new Group(['a'], { votersMax: 1 });
  const a = group.begin();
  a.snapshot();
  assert.equal(group.change(a, { kind: 'add', member: memberOf('b') }).reason, null);
  assert.equal(group.change(a, { kind: 'promote', node: 'b' }).reason, 'MEMBER_LAGGING');
  group.join('b');
  group.tick(40);
  assert.deepEqual(a.replica.configState().learners, ['b']);
  assert.equal(group.change(a, { kind: 'promote', node: 'b' }).reason, null);
  assert.equal(group.change(a, { kind: 'promote', node: 'x' }).reason, 'MEMBER_UNKNOWN');
  assert.deepEqual(a.replica.configState().voters, ['a', 'b']);
});

test('a node that cannot stand for election knows that nobody leads when the leader is silent', () => {
  const group = new Group(['a'], { votersMax: 1 });
  const a = group.begin();
  a.snapshot();
  assert.equal(group.change(a, { kind: 'add', member: memberOf('b') }).reason, null);
  const b = group.join('b');
  group.tick(40);
  assert.equal(b.replica.leader, 'a');
  group.isolate('b');
  group.tick(40);
  assert.equal(b.replica.leader, '');
  group.heal();
  group.tick(5);
  assert.equal(b.replica.leader, 'a');
});

test('[R23] another instance under the name of a member is refused until that was removed', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  const result = group.change(leader, { kind: 'add', member: memberOf('b', 'other') });
  assert.equal(result.reason, 'NODE_ID_TAKEN');
  assert.match(result.message, /broker cluster remove b/);
  assert.equal(group.change(leader, { kind: 'remove', node: 'b', instance: '', force: false }).reason, null);
  assert.equal(leader.replica.member('b'), null);
  assert.equal(group.change(leader, { kind: 'add', member: memberOf('b', 'other') }).reason, null);
  assert.equal(leader.replica.member('b')?.instance, 'other');
});

/** As src/workers/raft/peer-links.ts: nobody is heard, or spoken to, but the instances of the tables and those that ask for something. */
function keepInstances(group: Group): void {
  const spokenTo = new Map<string, SpokenTo>();
  const instanceOf = (id: string): string => group.at(id).own.instance;
  const bookOf = (id: string): SpokenTo => {
    const found = spokenTo.get(id) ?? new SpokenTo();
    spokenTo.set(id, found);
    return found;
  };
  group.filter = (from, to, frame) => {
    const row = group.at(from).replica.member(to);
    if (row !== null && bookOf(from).instanceOf(row) !== instanceOf(to)) return false;
    const { replica } = group.at(to);
    const members = replica.membersForSnapshot();
    const hearing = hearingOf(members, replica.leader, from, instanceOf(from));
    bookOf(to).heard(members, from, instanceOf(from), hearing);
    return isHeard(hearing, frame);
  };
}

test('[R23] a node that was away while a member was taken in anew follows that one when it leads', () => {
  const group = new Group(['a', 'b', 'c', 'd', 'e']);
  const a = group.begin();
  keepInstances(group);
  group.tick(5);
  const b = group.at('b');
  b.isDown = true;
  group.at('c').isDown = true;
  group.tick(20);
  assert.equal(group.change(a, { kind: 'remove', node: 'c', instance: '', force: false }).reason, null);
  a.snapshot();
  const c = group.join('c', 'renewed');
  assert.equal(group.change(a, { kind: 'add', member: memberOf('c', 'renewed') }).reason, null);
  group.tick(20);
  assert.equal(group.change(a, { kind: 'promote', node: 'c' }).reason, null);
  assert.equal(group.change(a, { kind: 'transfer', node: 'c' }).reason, null);
  group.tick(5);
  assert.equal(group.leader(), c);
  c.replica.submit([openOf('s', 1)]);
  group.tick(5);
  // Its table has the instance that c was.
  b.restart();
  group.tick(60);
  assert.equal(group.leader(), c);
  assert.equal(b.replica.leader, 'c');
  assert.equal(b.replica.member('c')?.instance, 'renewed');
  // And its answers count: with a and d gone nothing is decided without it.
  for (const id of ['a', 'd']) group.at(id).isDown = true;
  b.replica.submit([openOf('s', 2)]);
  group.tick(60);
  assert.equal(b.replica.outstandingBytes, 0);
  group.checkHashes();
});

test('a change is made by the leader only, and what the cluster does not know is refused', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  const follower = group.at('b');
  assert.equal(group.change(follower, { kind: 'promote', node: 'c' }).reason, 'NOT_LEADER');
  assert.equal(group.change(leader, { kind: 'remove', node: 'x', instance: '', force: true }).reason, 'MEMBER_UNKNOWN');
  const wrong = group.change(leader, { kind: 'remove', node: 'b', instance: 'i-c', force: true });
  assert.equal(wrong.reason, 'MEMBER_UNKNOWN');
});

test('[R14] a removal that leaves no majority of active voters is refused unless forced; the last voter stays', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  group.tick(20);
  group.at('c').isDown = true;
  group.tick(20);
  const refusal = group.change(leader, { kind: 'remove', node: 'b', instance: '', force: false });
  assert.equal(refusal.reason, 'QUORUM_AT_RISK');
  assert.match(refusal.message, /2 voters, of which 2 must be there to decide, and 1 are heard of now/);
  assert.equal(group.change(leader, { kind: 'remove', node: 'c', instance: '', force: false }).reason, null);
  assert.equal(group.change(leader, { kind: 'remove', node: 'b', instance: '', force: false }).reason, null);
  const last = group.change(leader, { kind: 'remove', node: 'a', instance: '', force: true });
  assert.equal(last.reason, 'QUORUM_AT_RISK');
});

test('[R18] the lead is handed over, and runs go on; a leader that is to be removed hands over first', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  group.tick(5);
  assert.equal(group.change(leader, { kind: 'transfer', node: 'b' }).reason, null);
  group.tick(2);
  const b = group.leader();
  assert.equal(b.id, 'b');
  leader.replica.submit([openOf('s', 1)]);
  group.tick(2);
  assert.equal(leader.replica.outstandingBytes, 0);
  assert.equal(group.change(b, { kind: 'remove', node: 'b', instance: '', force: false }).reason, 'NOT_LEADER');
  group.tick(30);
  const next = group.leader();
  assert.notEqual(next.id, 'b');
  assert.equal(group.change(next, { kind: 'remove', node: 'b', instance: '', force: false }).reason, null);
  assert.equal(next.replica.configState().voters.length, 2);
});

test('a handover is answered when the one that gave the lead away knows who has it', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  group.tick(5);
  const [target] = ['a', 'b', 'c'].filter((id) => id !== leader.id) as [string];
  // It hears that there is a later term, and not yet from whom.
  group.filter = (from, to, frame) =>
    from !== target || to !== leader.id || (frame.kind === 'raft' && frame.message.type === 'vote');
  leader.replica.change(1, { kind: 'transfer', node: target });
  group.tick(3);
  assert.equal(leader.replica.role, 'follower');
  assert.equal(leader.changes.length, 0);
  group.heal();
  group.tick(3);
  assert.deepEqual(leader.changes, [{ token: 1, result: { reason: null, message: '' } }]);
  assert.equal(leader.replica.leader, target);
});

test('a node with a new address has its row changed by the leader; one of another instance has not', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  const b = group.at('b');
  b.own = { ...memberOf('b'), grpc: 'elsewhere:1' };
  b.restart();
  group.tick(30);
  assert.equal(leader.replica.member('b')?.grpc, 'elsewhere:1');
  group.hand('c', leader.id, { kind: 'member', member: memberOf('c', 'other') });
  group.tick(5);
  assert.equal(leader.replica.member('c')?.instance, 'i-c');
});

test('a leader whose clock is over 60 s ahead of a majority proposes nothing and hands over; the view says by how much', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  group.tick(SECOND_TICKS * 2);
  leader.clockMs = 61_000;
  const before = leader.replica.logTime;
  group.tick(SECOND_TICKS);
  leader.replica.submit([openOf('s', 1)]);
  group.tick(SECOND_TICKS * 3);
  const next = group.leader();
  assert.notEqual(next.id, leader.id);
  assert.ok(next.replica.logTime < before + 60_000, `${next.replica.logTime} ${before}`);
  assert.equal(leader.replica.outstandingBytes, 0);
  assert.equal(next.replica.view().members.find(({ node }) => node === leader.id)?.clockOffsetMs, 61_000);
});

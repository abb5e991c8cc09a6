/** Groups under load and one kind of trouble each; all end with equal logs that hold every acknowledged proposal. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Message } from '../../src/raft/messages.ts';
import { ELECTION_TICKS } from '../unit/raft-group.ts';
import { withoutAmbient } from './determinism.ts';
import { FuzzyGroup } from './raft-fuzzy.ts';

const SEEDS = 50;

/** Runs a scenario with all seeds. That something was acknowledged keeps it from passing by doing nothing. */
function fuzz(name: string, size: number, ackedMin: number, scenario: (group: FuzzyGroup) => void): void {
  test(`fuzzy: ${name}, ${SEEDS} seeds`, () => {
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      withoutAmbient(() => {
        const group = new FuzzyGroup(seed, size);
        try {
          group.untilLeader();
          scenario(group);
          group.finish();
          assert.ok(group.acked >= ackedMin, `only ${group.acked} acknowledged`);
        } catch (error) {
          throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
        }
      });
    }
  });
}

/** The leader is lost again and again, so that there are many elections. */
function loseLeaders(group: FuzzyGroup, rounds: number): void {
  for (let i = 0; i < rounds; i += 1) {
    const leader = group.untilLeader();
    group.partition([leader.id]);
    group.run(4 * ELECTION_TICKS);
    group.heal();
    group.run(group.prng.nextBelow(3 * ELECTION_TICKS));
  }
}

fuzz('[R1] [R10] [P1] leader partitions, of five nodes the leader and at most one other', 5, 60, (group) => {
  for (let i = 0; i < 12; i += 1) {
    const leader = group.untilLeader();
    const others = group.voters().filter((id) => id !== leader.id);
    group.partition(group.prng.chance(1, 2) ? [leader.id] : [leader.id, group.pick(others)]);
    group.run(ELECTION_TICKS + group.prng.nextBelow(4 * ELECTION_TICKS));
    group.heal();
    group.run(group.prng.nextBelow(3 * ELECTION_TICKS));
  }
});

fuzz('no trouble: one leader from the first election on, everything is acknowledged', 5, 200, (group) => {
  const { id, core } = group.untilLeader();
  const { term } = core;
  group.run(60 * ELECTION_TICKS);
  assert.deepEqual([group.leader()?.id, core.term], [id, term]);
  for (const member of group.members.values()) {
    assert.equal(member.core.term, term);
    assert.ok(member.core.counters.leaderships <= 1);
  }
});

/** Messages of this type take up to an election timeout longer. */
function slow(group: FuzzyGroup, ...types: Message['type'][]): void {
  group.delay = ({ type }) => (types.includes(type) ? group.prng.nextBelow(ELECTION_TICKS) : 0);
}

fuzz('slow requests for votes', 5, 40, (group) => {
  slow(group, 'vote', 'pre-vote');
  loseLeaders(group, 12);
});

fuzz('slow answers to requests for votes', 5, 40, (group) => {
  slow(group, 'vote-response', 'pre-vote-response');
  loseLeaders(group, 12);
});

fuzz('[R16] add members, from three to five, the log compacted before', 3, 30, (group) => {
  for (let i = 0; i < 2; i += 1) {
    const id = group.newcomer();
    group.run(2 * ELECTION_TICKS);
    group.untilLeader().compact();
    group.change('add-learner', id);
    group.change('add-voter', id);
    group.run(2 * ELECTION_TICKS);
  }
  assert.deepEqual(group.voters(), ['a', 'b', 'c', 'd', 'e']);
});

fuzz('[R12] [R13] add and remove nodes that do not lead, leaders lost meanwhile', 5, 30, (group) => {
  for (let i = 0; i < 4; i += 1) {
    const followers = group.voters().filter((id) => id !== group.leader()?.id);
    group.change('remove', group.pick(followers));
    if (group.prng.chance(1, 2)) {
      loseLeaders(group, 1);
    }
    const id = group.newcomer();
    group.change('add-learner', id);
    group.change('add-voter', id);
  }
  assert.equal(group.voters().length, 5);
});

fuzz('[R14] [R15] remove the leader, from five to two; it goes on running', 5, 30, (group) => {
  for (let i = 0; i < 3; i += 1) {
    const leader = group.untilLeader();
    group.change('remove', leader.id);
    group.run(3 * ELECTION_TICKS);
    assert.notEqual(group.untilLeader().id, leader.id);
  }
  assert.equal(group.voters().length, 2);
});

fuzz('[R15] remove a node that is cut off; back again it disturbs nobody', 5, 60, (group) => {
  const leader = group.untilLeader();
  const followers = group.voters().filter((id) => id !== leader.id);
  const lost = group.pick(followers);
  group.partition([lost]);
  group.run(3 * ELECTION_TICKS);
  group.change('remove', lost);
  group.run(3 * ELECTION_TICKS);
  const { term } = group.untilLeader().core;
  group.heal();
  group.run(30 * ELECTION_TICKS);
  assert.deepEqual([group.leader()?.id, group.leader()?.core.term], [leader.id, term]);
  assert.ok(!group.voters().includes(lost));
});

fuzz('[R18] leadership transfers to anybody, also to one that is cut off', 5, 60, (group) => {
  for (let i = 0; i < 25; i += 1) {
    const leader = group.untilLeader();
    const target = group.pick(group.voters().filter((id) => id !== leader.id));
    if (group.prng.chance(1, 4)) {
      group.partition([group.pick([target, leader.id])]);
    }
    leader.core.transferLeadership(target);
    group.run(group.prng.nextBelow(3 * ELECTION_TICKS));
    group.heal();
    group.run(group.prng.nextBelow(ELECTION_TICKS));
  }
});

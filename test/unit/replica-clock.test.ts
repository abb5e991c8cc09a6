/** The wall clock of a node that leads: what it may write into the log (design section 2, log time). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CLOCK_LEAD_MAX_MS, PeerClocks } from '../../src/replica/peer-clocks.ts';
import { ELECTION_TICKS, Group, type Node, openOf, SECOND_TICKS } from './replica-rig.ts';

const YEARS_MS = 10 * 365 * 86_400_000;

/** Submits through these until all of it is applied everywhere that is up; the newest log time. */
function write(group: Group, nodes: readonly Node[]): number {
  for (const [index, node] of nodes.entries()) node.replica.submit([openOf('s', 1 + index)]);
  for (let round = 0; nodes.some(({ replica }) => replica.outstandingBytes > 0); round++) {
    assert.ok(round < 30 * ELECTION_TICKS, 'it comes to its end');
    group.tick(1);
  }
  return Math.max(...nodes.map(({ replica }) => replica.logTime));
}

test('[S10] a leader whose clock jumps by ten years writes no entry with such a time, not even before anybody could tell it', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  group.tick(SECOND_TICKS * 2);
  leader.clockMs = YEARS_MS;
  const time = write(group, [leader, group.at('b')]);
  assert.ok(time < group.wallMs + CLOCK_LEAD_MAX_MS, `${time}`);
  assert.notEqual(group.leader().id, leader.id);
  group.checkHashes();
});

test('[S10] the same with a voter that is down: of two clocks the earlier one is believed', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  group.at('c').isDown = true;
  group.tick(SECOND_TICKS * 12);
  leader.clockMs = YEARS_MS;
  const time = write(group, [leader, group.at('b')]);
  assert.ok(time < group.wallMs + CLOCK_LEAD_MAX_MS, `${time}`);
  assert.equal(group.leader().id, 'b');
});

test('[S10] a node that comes up with a wrong clock and is elected at once writes nothing with it', () => {
  const group = new Group(['a', 'b', 'c']);
  group.begin();
  group.tick(SECOND_TICKS * 2);
  const wrong = group.at('b');
  wrong.restart();
  wrong.clockMs = YEARS_MS;
  wrong.replica.start(false);
  group.at('a').isDown = true;
  wrong.replica.campaign();
  const time = write(group, [wrong, group.at('c')]);
  assert.ok(time < group.wallMs + CLOCK_LEAD_MAX_MS, `${time}`);
});

test('a leader whose clock goes back by hours leads on: log time stands until the clock is there again', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  const before = write(group, [leader]);
  leader.clockMs = -7_200_000;
  const time = write(group, [leader, group.at('b')]);
  assert.equal(time, before);
  assert.equal(group.leader().id, leader.id);
});

test('all clocks step together: nobody is wrong, and one second later all goes on', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  group.tick(SECOND_TICKS * 2);
  group.wallMs += 7_200_000;
  assert.ok(write(group, [leader]) >= group.wallMs - 2_000);
  assert.equal(group.leader().id, leader.id);
});

test('a clock is judged by a majority of the voters, itself among them', () => {
  const cases: readonly [offsets: readonly (number | null)[], isUsable: boolean, behind: string][] = [
    [[], true, ''],
    [[null], false, ''],
    [[0], true, ''],
    [[-60_001], false, 'b'],
    [[-60_000], true, ''],
    [[null, null], false, ''],
    [[null, 0], true, ''],
    [[-60_001, 0], true, ''],
    [[-60_001, null], false, 'b'],
    [[-60_001, -1e12], false, 'bc'],
    [[1e12, 1e12], true, ''],
    [[-60_001, 0, 0, 0], true, ''],
    [[-60_001, -60_001, 0, 0], true, ''],
    [[-60_001, -60_001, -60_001, 0], false, 'bcd'],
    [[-60_001, null, null, 0], true, ''],
    [[null, null, null, 0], false, ''],
  ];
  for (const [offsets, isUsable, behind] of cases) {
    const clocks = new PeerClocks(SECOND_TICKS);
    const voters = ['a', 'b', 'c', 'd', 'e'].slice(0, offsets.length + 1);
    for (const [index, offset] of offsets.entries()) {
      if (offset !== null) clocks.saw(voters[index + 1] as string, offset, 0);
    }
    const judged = clocks.judge(voters, 'a', 1);
    assert.deepEqual({ ...judged, behind: judged.behind.join('') }, { isUsable, behind }, JSON.stringify(offsets));
    clocks.forget();
    assert.equal(clocks.judge(voters, 'a', 1).isUsable, voters.length === 1);
  }
});

test('of the last three readings of a clock people are shown the one that is least off, the rule takes the newest', () => {
  const clocks = new PeerClocks(SECOND_TICKS);
  const shown = [3, -20_000, -1_500, 2_000, 2_001, 2_002].map((offset, tick) => {
    clocks.saw('b', offset, tick);
    assert.equal(clocks.offsetOf('b', tick), offset);
    return clocks.leastOffsetOf('b', tick);
  });
  assert.deepEqual(shown, [3, 3, 3, -1_500, -1_500, 2_000]);
  assert.equal(clocks.leastOffsetOf('b', 5 + 10 * SECOND_TICKS), 2_000);
  assert.equal(clocks.leastOffsetOf('b', 6 + 10 * SECOND_TICKS), null);
});

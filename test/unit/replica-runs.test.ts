import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Prng } from '../../src/base/prng.ts';
import { Group, type Node, openOf } from './replica-rig.ts';

/** Counters of the opens of one process, in the order in which the log has them. */
function opensOf(node: Node, process: string): number[] {
  return node.answers.opens.filter((line) => line.startsWith(`${process} `)).map((line) => Number(line.split(' ')[1]));
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1);

test('[R25] a lone node applies its runs once, in order', () => {
  const group = new Group(['a']);
  const node = group.begin();
  for (const counter of upTo(5)) assert.ok(node.replica.submit([openOf('s', counter)]));
  group.settle();
  assert.deepEqual(opensOf(node, 'a/1'), upTo(5));
  assert.equal(node.replica.outstandingBytes, 0);
});

for (const size of [3, 5]) {
  test(`[R25] [R28] ${size} nodes: each run is applied once, in order, through losses, repeats, delays and changes of leader`, () => {
    for (let seed = 1; seed <= 6; seed++) {
      const names = ['a', 'b', 'c', 'd', 'e'].slice(0, size);
      const group = new Group(names, {}, seed);
      group.begin();
      const prng = new Prng(seed);
      const sent = new Map(names.map((name) => [name, 0]));
      group.faults = { lost: 10, repeated: 15, late: 15 };
      for (let round = 0; round < 120; round++) {
        const name = names[prng.nextBelow(size)] as string;
        const counter = (sent.get(name) as number) + 1;
        if (group.at(name).replica.submit([openOf('s', counter)])) sent.set(name, counter);
        group.tick(1);
        if (round % 30 === 29) {
          const leader = group.leader();
          group.isolate(leader.id);
          group.tick(25);
          group.filter = () => true;
        }
      }
      group.heal();
      group.tick(80);
      for (const node of group.nodes.values()) {
        for (const name of names)
          assert.deepEqual(opensOf(node, `${name}/1`), upTo(sent.get(name) as number), `seed ${seed}`);
        assert.equal(node.replica.outstandingBytes, 0);
      }
      group.checkHashes();
      assert.equal(new Set([...group.nodes.values()].map(({ replica }) => replica.machine.stateHash())).size, 1);
    }
  });
}

test('[R25] a restarted node is a new process: runs of the one before it that come late are skipped, also its first', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  const b = group.at('b');
  const late: Uint8Array[] = [];
  // The first process of b never gets its runs to the leader.
  b.restart();
  b.replica.start(false);
  group.filter = (from, _to, frame) => {
    if (from === 'b' && frame.kind === 'runs') late.push(...frame.runs);
    return !(from === 'b' && frame.kind === 'runs');
  };
  group.tick(25);
  b.restart();
  group.heal();
  b.replica.start(false);
  b.replica.submit([openOf('s', 1)]);
  group.tick(5);
  assert.ok(late.length > 0);
  group.hand('b', leader.id, { kind: 'runs', runs: late });
  b.replica.submit([openOf('s', 2)]);
  group.tick(30);
  assert.deepEqual(opensOf(leader, 'b/3'), [1, 2]);
  assert.equal(b.replica.isReplaced, false);
  group.checkHashes();
});

test('what a silent node has open is revoked after two election timeouts, and given to the leader to mark', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  group.at('b').replica.submit([openOf('s', 1)]);
  group.tick(2);
  assert.equal(leader.replica.machine.counts().open, 1);
  group.at('b').isDown = true;
  group.tick(18);
  assert.equal(leader.replica.machine.counts().open, 1);
  group.tick(4);
  assert.equal(leader.replica.machine.counts().revoked, 1, 'clients of the dead node wait for it: each tick counts');
  const found: number[] = [];
  leader.replica.orphans(10, ({ base }) => found.push(base));
  assert.deepEqual(found, [1]);
  group.at('c').replica.orphans(10, () => assert.fail('c does not lead'));
});

test('what a dead leader has open is revoked two election timeouts after it was heard last, whenever the next one was elected', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  leader.replica.submit([openOf('s', 1)]);
  group.tick(2);
  leader.isDown = true;
  group.tick(24);
  const next = [...group.nodes.values()].find(({ isDown, replica }) => !isDown && replica.role === 'leader');
  assert.equal(next?.replica.machine.counts().revoked, 1);
});

test('what anybody has open for a minute of log time is revoked by name, with what is behind it in its subject', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  leader.replica.submit([openOf('s', 1)]);
  group.tick(500);
  leader.replica.submit([openOf('s', 2), openOf('t', 3)]);
  group.tick(95);
  assert.equal(leader.replica.machine.counts().open, 3);
  group.tick(30);
  assert.equal(leader.replica.machine.counts().open, 1);
  const found: number[] = [];
  leader.replica.orphans(10, ({ base }) => found.push(base));
  assert.deepEqual(found, [], 'its owner lives, and marks it');
});

test('what its owner has not marked a minute after that is given to the leader to mark', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  group.at('b').replica.submit([openOf('s', 1)]);
  group.tick(900);
  assert.equal(leader.replica.machine.counts().revoked, 1);
  leader.replica.orphans(10, () => assert.fail('its owner lives, and may be about to mark it'));
  group.tick(400);
  const found: number[] = [];
  leader.replica.orphans(10, ({ base }) => found.push(base));
  assert.deepEqual(found, [1]);
});

test('[R21] a node without a leader takes runs up to its bound, and a leader those of each node up to its own', () => {
  const limits = { outstandingBytesMax: 400, windowBytes: 1 << 20, intakeBytesMax: 200 };
  const group = new Group(['a', 'b', 'c'], { limits });
  const leader = group.begin();
  const b = group.at('b');
  group.isolate('b');
  let taken = 0;
  while (b.replica.submit([openOf('s', taken + 1)])) taken += 1;
  assert.ok(taken > 2 && b.replica.outstandingBytes < 500);
  assert.equal(b.replica.submit([openOf('s', 0)]), false);
  group.heal();
  group.tick(100);
  assert.deepEqual(opensOf(leader, 'b/1'), upTo(taken));
  assert.ok(b.replica.submit([openOf('s', taken + 1)]));
});

test('a leader refuses what the state machine would fail on, and runs in the name of another node', () => {
  const group = new Group(['a', 'b', 'c']);
  const leader = group.begin();
  let run: Uint8Array | undefined;
  group.filter = (from, _to, frame) => {
    if (from === 'b' && frame.kind === 'runs') run = frame.runs[0];
    return true;
  };
  group.at('b').replica.submit([openOf('s', 1)]);
  group.tick(1);
  assert.ok(run);
  const before = leader.replica.lastIndex;
  group.hand('c', leader.id, { kind: 'runs', runs: [run, run.slice(0, -1), new Uint8Array(0)] });
  group.hand('x', leader.id, { kind: 'runs', runs: [run] });
  group.tick(1);
  assert.equal(leader.replica.lastIndex, before);
  assert.equal(leader.replica.counters.runsMalformed, 3);
  assert.equal(leader.replica.counters.framesRefused, 1);
});

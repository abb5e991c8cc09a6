import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AllotMachine } from '../../src/allot/allot-machine.ts';
import {
  closeSize,
  NODE_STARTED_BYTES,
  RevokeReach,
  writeFloor,
  writeNodeStarted,
  writeRevoke,
} from '../../src/allot/commands.ts';
import { soundRun } from '../../src/allot/sound-run.ts';
import { OwnRuns } from '../../src/replica/own-runs.ts';
import { drain, hashOf, LIMITS, text } from './allot-rig.ts';
import { Answers, openOf, storedOf } from './replica-rig.ts';

/** Run 1 says that it started; run n + 1 opens with counter n. */
function runsOf(node: string, incarnation: number, count: number, after = 0): Uint8Array[] {
  const own = new OwnRuns(text(node), incarnation, 7, 1 << 20);
  own.start(false, after);
  for (let i = 1; i <= count; i++) own.add([openOf(`${node}${i % 2}`, i)]);
  const first = own.takeToSend(1 << 20);
  own.appliedTo(1);
  return [...first, ...own.takeToSend(1 << 20)];
}

test('[R25] [R26] whatever is doubled, lost or out of order: of each node the runs are applied once, in order; a snapshot between changes nothing', () => {
  const nodes = ['a', 'b', 'c'];
  const runs = nodes.map((node) => runsOf(node, 1, 4));
  const PICK = fc.record({ node: fc.nat(2), run: fc.nat(4) });
  fc.assert(
    fc.property(fc.array(fc.array(PICK, { minLength: 1, maxLength: 5 }), { maxLength: 40 }), fc.nat(40), (log, cut) => {
      let machine = new AllotMachine(LIMITS);
      const twin = new AllotMachine(LIMITS);
      const answers = new Answers();
      const expected = [0, 0, 0];
      log.forEach((entry, i) => {
        const told: string[] = [];
        const wanted = entry.map(({ node, run }) => {
          const applies = expected[node] === run;
          if (applies) expected[node] = run + 1;
          return `${nodes[node]} ${run + 1} ${applies}`;
        });
        const payload = Buffer.concat(entry.map(({ node, run }) => runs[node]?.[run] as Uint8Array));
        const sink = {
          run: (bytes: Uint8Array, start: number, end: number, _low: number, _high: number, run: number, ok: boolean) =>
            told.push(`${Buffer.from(bytes.subarray(start, end))} ${run} ${ok}`),
        };
        machine.apply(i + 1, 1_000, payload, answers, sink);
        twin.apply(i + 1, 1_000, payload, new Answers());
        assert.deepEqual(told, wanted);
        if (i === cut) machine = AllotMachine.restore(drain(machine, 512), LIMITS);
        assert.equal(machine.hash(), twin.hash());
      });
      nodes.forEach((node, at) => {
        const opens = answers.opens
          .filter((line) => line.startsWith(`${node}/1 `))
          .map((line) => Number(line.slice(4)));
        assert.deepEqual(
          opens,
          Array.from({ length: Math.max((expected[at] as number) - 1, 0) }, (_, i) => i + 1),
        );
        assert.equal(machine.lastRun(text(node), 1, 7), (expected[at] as number) === 0 ? -1 : expected[at]);
      });
    }),
  );
});

test('the first run of an older process does not take the node back, whether it was applied before or not', () => {
  for (const wasApplied of [true, false]) {
    const machine = new AllotMachine(LIMITS);
    const answers = new Answers();
    const [old] = runsOf('a', 1, 0) as [Uint8Array];
    let index = 0;
    const apply = (run: Uint8Array): void => machine.apply(++index, 1_000, run, answers);
    if (wasApplied) apply(old);
    for (const run of runsOf('a', 2, 1, machine.startedIndex(text('a')))) apply(run);
    apply(old);
    assert.equal(machine.lastRun(text('a'), 2, 7), 2);
    assert.equal(machine.lastRun(text('a'), 1, 7), -1);
  }
});

test('what soundRun takes, apply takes; a byte that differs fails no assertion of apply', () => {
  const own = new OwnRuns(text('a'), 1, 7, 1 << 20);
  own.start(true, 0);
  const [first] = own.takeToSend(1 << 20) as [Uint8Array];
  own.appliedTo(1);
  own.add([openOf('s', 1), storedOf('s', 1), openOf('t', 2)]);
  const [second] = own.takeToSend(1 << 20) as [Uint8Array];
  assert.equal(soundRun(first)?.run, 1);
  assert.equal(soundRun(second)?.run, 2);
  let taken = 0;
  for (const run of [first, second]) {
    for (let at = 0; at < run.length; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const bad = run.slice();
        bad[at] = (bad[at] as number) ^ (1 << bit);
        if (soundRun(bad) === null) continue;
        taken += 1;
        const machine = new AllotMachine(LIMITS);
        machine.apply(1, 1_000, first, new Answers());
        machine.apply(2, 1_000, bad, new Answers());
      }
      assert.equal(soundRun(run.slice(0, at)), null);
    }
  }
  assert.ok(taken > 100);
});

test('a revoke of a reach that is not known is not sound', () => {
  const own = new OwnRuns(text('a'), 1, 7, 1 << 20);
  own.start(true, 0);
  own.takeToSend(1 << 20);
  own.appliedTo(1);
  for (const [reach, isSound] of [
    [RevokeReach.ONE, true],
    [RevokeReach.BEHIND, true],
    [2, false],
  ] as const) {
    const revoke = new Uint8Array(closeSize(1));
    writeRevoke(new DataView(revoke.buffer), revoke, 0, text('s'), hashOf('s'), 1, reach);
    own.add([revoke]);
    const [run] = own.takeToSend(1 << 20) as [Uint8Array];
    assert.equal(soundRun(run) !== null, isSound, `reach ${reach}`);
  }
});

test('a run of another node has no command that only recovery or the start of a process writes', () => {
  const own = new OwnRuns(text('a'), 1, 7, 1 << 20);
  own.start(true, 0);
  own.appliedTo(1);
  const started = new Uint8Array(NODE_STARTED_BYTES);
  writeNodeStarted(new DataView(started.buffer), 0, true);
  const floor = new Uint8Array(10);
  writeFloor(new DataView(floor.buffer), 0, 5);
  for (const command of [started, floor]) own.add([command]);
  const runs = own.takeToSend(1 << 20);
  assert.deepEqual(runs.map(soundRun), [null, null]);
});

test('the layout of a run and of its first command is frozen: golden bytes', () => {
  const [first, second] = runsOf('ab', 258, 1, 3).map((run) => Buffer.from(run).toString('hex'));
  assert.equal(first, '0b0202010000070000000100000000000000' + '0a000000' + '6162' + '06020300000000000000');
  assert.ok(second?.startsWith('0b0202010000070000000200000000000000' + '1f000000' + '616202'));
});

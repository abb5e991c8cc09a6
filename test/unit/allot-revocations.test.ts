/** A revoke by whoever is not the writer, whose closes of what stands behind it may be on their way (design section 3, promise 5). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AllotMachine } from '../../src/allot/allot-machine.ts';
import { Supervision } from '../../src/replica/supervision.ts';
import { encode, HOME, LIMITS, type Origin, Rig, Transcript } from './allot-rig.ts';

const LEADER: Origin = { node: 'b', incarnation: 9 };

/** Three allotments of `a`, one of `b` between them; and one of another subject. */
function crowded(): Rig {
  const rig = Rig.started();
  rig.runAs(LEADER, { do: 'node-started', keepOpen: true });
  rig.run({ do: 'open', subject: 's', counter: 1 }, { do: 'open', subject: 's', counter: 2 });
  rig.runAs(LEADER, { do: 'open', subject: 's', count: 2 });
  rig.run({ do: 'open', subject: 's', counter: 3 }, { do: 'open', subject: 't', counter: 4 });
  rig.transcript.owners = [];
  return rig;
}

test('[S7] a revoke with what is behind it takes along what the same process has open there, each with its owner; closes on their way change nothing', () => {
  const rig = crowded();
  assert.deepEqual(rig.runAs(LEADER, { do: 'revoke-behind', subject: 's', base: 1 }), [
    's 1+1 REVOKED',
    's 2+1 REVOKED',
    's 5+1 REVOKED',
  ]);
  assert.deepEqual(rig.transcript.owners, ['0/1 0.1', '0/1 0.2', '0/1 0.3']);
  assert.equal(rig.verdict('s', 3), 'OPEN', 'another node keeps its own');
  assert.equal(rig.verdict('t', 1), 'OPEN', 'another subject is left alone');
  assert.deepEqual(rig.run({ do: 'stored', subject: 's', base: 1 }, { do: 'stored', subject: 's', base: 2 }), [
    's 1+1 REVOKED not applied',
    's 2+1 REVOKED not applied',
  ]);
  assert.deepEqual({ ...rig.machine.counts(), bytes: 0 }, { ...rig.machine.counts(), bytes: 0, open: 2, revoked: 3 });
});

test('[S7] what stands in front of the one that is revoked stays, and what comes after the revoke is open', () => {
  const rig = crowded();
  rig.runAs(LEADER, { do: 'revoke-behind', subject: 's', base: 2 });
  rig.run({ do: 'open', subject: 's' });
  assert.deepEqual(
    [1, 2, 3, 5, 6].map((id) => rig.verdict('s', id)),
    ['OPEN', 'REVOKED', 'OPEN', 'REVOKED', 'OPEN'],
  );
});

test('[S7] a later process of the node is another writer: what it has open stays', () => {
  const rig = crowded();
  const next: Origin = { node: 'a', incarnation: 2 };
  rig.runAs(next, { do: 'node-started', keepOpen: true }, { do: 'open', subject: 's' });
  assert.deepEqual(rig.runAs(LEADER, { do: 'revoke-behind', subject: 's', base: 2 }), [
    's 2+1 REVOKED',
    's 5+1 REVOKED',
  ]);
  assert.equal(rig.verdict('s', 6), 'OPEN');
});

for (const from of ['revoke', 'stored'] as const) {
  test(`[S7] a revoke with what is behind it that comes behind a ${from} takes nothing along`, () => {
    const rig = crowded();
    rig.run({ do: from, subject: 's', base: 1 });
    assert.equal(rig.runAs(LEADER, { do: 'revoke-behind', subject: 's', base: 1 }).length, 1);
    assert.equal(rig.verdict('s', 2), 'OPEN');
  });
}

test('a revoke of the writer itself, as in all earlier logs, takes nothing along', () => {
  const rig = crowded();
  assert.deepEqual(rig.run({ do: 'revoke', subject: 's', base: 1 }), ['s 1+1 REVOKED']);
  assert.equal(rig.verdict('s', 2), 'OPEN');
});

test('[S7] sequences of what is taken along are forgotten: they get new ids', () => {
  const rig = Rig.started();
  const open = (sequence: number) =>
    ({ do: 'open', subject: 's', parts: [{ count: 1, producer: 'p', sequence }] }) as const;
  rig.run(open(1), open(2));
  rig.runAs(LEADER, { do: 'node-started', keepOpen: true }, { do: 'revoke-behind', subject: 's', base: 1 });
  assert.deepEqual(rig.run(open(1), open(2)), [
    'parts 0.0 3+1 at 1000: ALLOTTED 3',
    'parts 0.0 4+1 at 1000: ALLOTTED 4',
  ]);
});

test('[S7] a leader that revokes what is open for too long takes along what is behind it, also of its own node', () => {
  const rig = Rig.started();
  rig.run({ do: 'open', subject: 's' });
  rig.time += 60_000;
  rig.run({ do: 'open', subject: 's' });
  const [command, ...others] = new Supervision('a', 20, 60_000).revokes(rig.machine, 0, rig.time);
  assert.equal(others.length, 0, 'only the first is old');
  const run = Buffer.concat([encode(HOME, []), command as Uint8Array]);
  const heard = new Transcript();
  rig.machine.apply(rig.index + 1, rig.time, run, heard);
  assert.deepEqual(heard.take(), ['s 1+1 REVOKED', 's 2+1 REVOKED']);
});

test('[R26] [R28] a snapshot that is under way when a revoke takes others along is of the state before it; a machine restored from one goes on alike', () => {
  const rig = crowded();
  const before = rig.machine.stateHash();
  const writer = rig.machine.beginSnapshot();
  const chunks = [writer.nextChunk(1)].filter((chunk) => chunk !== null);
  const restored = new Rig(LIMITS);
  restored.index = rig.index;
  restored.time = rig.time;
  rig.runAs(LEADER, { do: 'revoke-behind', subject: 's', base: 1 });
  for (let chunk = writer.nextChunk(1); chunk !== null; chunk = writer.nextChunk(1)) chunks.push(chunk);
  restored.machine = AllotMachine.restore(chunks, LIMITS);
  assert.equal(restored.machine.stateHash(), before);
  restored.runAs(LEADER, { do: 'revoke-behind', subject: 's', base: 1 });
  assert.equal(restored.machine.hash(), rig.machine.hash());
  assert.equal(restored.machine.stateHash(), rig.machine.stateHash());
});

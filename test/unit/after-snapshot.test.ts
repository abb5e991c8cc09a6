/** What a node tells its shards when a snapshot of the leader stands in the place of entries that it has not applied. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AllotMachine } from '../../src/allot/allot-machine.ts';
import { bornSince, revokedSince } from '../../src/replica/after-snapshot.ts';
import { drain, HOME, LIMITS, Rig, text } from './allot-rig.ts';

const OTHER = { node: 'b', incarnation: 4 };

/** The state that a node had, and a rig that goes on from it. */
function split(rig: Rig): AllotMachine {
  return AllotMachine.restore(drain(rig.machine, 4096), LIMITS);
}

function told(before: AllotMachine, after: AllotMachine, node: string | null = HOME.node): string[] {
  const lines: string[] = [];
  revokedSince(before, after, node === null ? null : text(node), ({ subject, base }) =>
    lines.push(`${Buffer.from(subject)}/${base}`),
  );
  return lines;
}

test('[S7] what was open and was revoked since is told, whether it waits for its mark, is void or settled', () => {
  const rig = Rig.started();
  for (let i = 0; i < 6; i++) rig.run({ do: 'open', subject: 's', count: 10 });
  rig.run({ do: 'open', subject: 'other' });
  // Ids 1, 11, 21, 31, 41 and 51 of s.
  rig.run({ do: 'stored', subject: 's', base: 1 });
  rig.run({ do: 'revoke', subject: 's', base: 51 });
  const before = split(rig);
  rig.run({ do: 'revoke', subject: 's', base: 11 }, { do: 'void', subject: 's', base: 11 });
  assert.equal(rig.verdict('s', 11), 'SETTLED');
  rig.run({ do: 'revoke', subject: 's', base: 41 }, { do: 'void', subject: 's', base: 41 });
  assert.equal(rig.verdict('s', 41), 'VOID');
  rig.run({ do: 'revoke', subject: 'other', base: 1 });
  rig.run({ do: 'open', subject: 's' });
  const after = split(rig);
  // Open in both, and what was revoked before the node lost touch, are none.
  assert.deepEqual(told(before, after).sort(), ['other/1', 's/11', 's/41']);
  assert.deepEqual(told(before, before), []);
});

test('of allotments of others only what the log still knows is told: what is settled may be stored', () => {
  const rig = Rig.started();
  rig.runAs(OTHER, { do: 'node-started', keepOpen: true });
  for (let i = 0; i < 4; i++) rig.runAs(OTHER, { do: 'open', subject: 's' });
  const before = split(rig);
  rig.runAs(OTHER, { do: 'stored', subject: 's', base: 1 });
  rig.runAs(OTHER, { do: 'stored', subject: 's', base: 4 });
  rig.run({ do: 'revoke', subject: 's', base: 3 });
  const after = split(rig);
  assert.deepEqual(told(before, after), ['s/3']);
  // To its owner the first one can only be void, unless runs of its own are in the snapshot: then nobody can tell.
  assert.equal(rig.verdict('s', 1), 'SETTLED');
  assert.deepEqual(told(before, after, OTHER.node), ['s/1', 's/3']);
  assert.deepEqual(told(before, after, null), ['s/3']);
});

test('subjects that the snapshot has and the state before had not are told', () => {
  const rig = Rig.started();
  rig.run({ do: 'open', subject: 'old' });
  const before = split(rig);
  rig.run({ do: 'open', subject: 'new' }, { do: 'open', subject: 'old' });
  const after = split(rig);
  const born: string[] = [];
  bornSince(before, after, (subject) => born.push(String(Buffer.from(after.nameOf(subject)))));
  assert.deepEqual(born, ['new']);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Address } from '../../src/gossip/types.ts';
import { addressOf, alive, dead, Rig, suspect } from './gossip-members-rig.ts';

/** What went straight to `node`. */
function toldTo(rig: Rig, node: string): unknown[] {
  return rig.port.packets.filter((packet) => packet.node === node).flatMap(({ messages }) => messages);
}

function rigAt(incarnation: number): Rig {
  return new Rig({ others: ['a', 'b'], options: { incarnation } });
}

for (const accuse of [suspect, dead]) {
  test(`[G1] a ${accuse.name} message that our last refutation has overtaken is contradicted to who sends it`, () => {
    const rig = rigAt(5);
    rig.take(accuse('self', 4, 'a'), addressOf('a'));
    assert.deepEqual(toldTo(rig, 'a'), [alive('self', 5)]);
    assert.equal(rig.list.counters.refutations, 0);
  });

  test(`a ${accuse.name} message that has to be refuted is answered to who sends it too`, () => {
    const rig = rigAt(5);
    rig.take(accuse('self', 5, 'a'), addressOf('a'));
    assert.deepEqual(toldTo(rig, 'a'), [alive('self', 6)]);
  });
}

const silent: readonly [why: string, from: string, address: Address, accused: string][] = [
  ['it was passed on by another', 'a', addressOf('b'), 'self'],
  ['a stranger sent it', 'z', addressOf('z'), 'self'],
  ['it is about another', 'a', addressOf('a'), 'b'],
];
for (const [why, from, address, accused] of silent) {
  test(`[G6] an accusation gets no answer of its own when ${why}`, () => {
    const rig = rigAt(5);
    rig.take(suspect(accused, accused === 'self' ? 4 : 1, from), address);
    assert.deepEqual(rig.port.packets, []);
  });
}

test('who leaves does not contradict', () => {
  const rig = rigAt(5);
  rig.list.leave(0);
  rig.take(suspect('self', 4, 'a'), addressOf('a'));
  assert.deepEqual(toldTo(rig, 'a'), []);
});

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { open, openEntries, type Running, run, three } from './raft-peers-rig.ts';

const subjects = (all: readonly Running[]): number[] => all.map(({ node }) => node.status().subjects);

describe('three nodes', () => {
  it('join, become voters, and apply what any of them asks for, once', async (t) => {
    const all = await three(t);
    all.forEach(({ node }, at) => {
      for (let i = 0; i < 100; i++) open(node, 1_000 * at + i);
    });
    await until(
      () => subjects(all).every((count) => count === 300),
      () => 'they do not come so far',
    );
    assert.equal(new Set(all.map(({ node }) => node.machine.hash())).size, 1);
  });

  it('go on without their leader', async (t) => {
    const [a, b, c] = (await three(t)) as [Running, Running, Running];
    await a.stop();
    open(b.node, 1);
    open(c.node, 2);
    await until(
      () => subjects([b, c]).every((count) => count === 2),
      () => 'they do not come so far',
    );
  });

  it('give a node that was away for long a snapshot', async (t) => {
    const small = { snapshotEntries: 50 };
    const [a, b, c] = (await three(t, small)) as [Running, Running, Running];
    await c.stop();
    await openEntries(a, 300);
    const count = a.node.status().subjects;
    const again = await run(t, 'c', null, { ...small, folder: c.folder });
    await until(
      () => subjects([b, again]).every((each) => each === count),
      () => 'they do not come so far',
    );
    assert.ok(again.lines.some(({ message }) => message === 'installed a snapshot of the leader'));
    await again.node.start();
    // An entry may be behind its start, such as its new address, which one of the two has applied and the other has not.
    await until(
      () => again.node.status().applied === a.node.status().applied,
      () => 'they do not come so far',
    );
    assert.equal(again.node.machine.hash(), a.node.machine.hash());
  });

  it('[R23] refuse a member that comes back without its data directory', async (t) => {
    const [a, , c] = (await three(t)) as [Running, Running, Running];
    await c.stop();
    const wiped = await run(t, 'c', a.node.cluster().members, { instanceId: 'f'.repeat(32) });
    await until(
      () => wiped.lines.some(({ message }) => message === 'a member refuses this node'),
      () => 'they do not come so far',
    );
    const { reason } = await a.node.change({
      kind: 'add',
      member: wiped.node.own,
    });
    assert.equal(reason, 'NODE_ID_TAKEN');
  });
});

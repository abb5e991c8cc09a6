/** Three real nodes on a real PostgreSQL: one cluster for whoever talks to any of them. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { type Client, type ClusterMembers, connect } from '../../src/client/index.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess } from '../support/broker.ts';
import { command } from '../support/commands.ts';
import { freePorts } from '../support/ports.ts';
import { until } from '../support/until.ts';

/** Longest wait for a leader, a promotion or a message on another node, in ms: this machine does other things too. */
const PATIENCE_MS = 60_000;

class Node {
  readonly name: string;
  readonly process: BrokerProcess;
  readonly client: Client;

  private constructor(name: string, process: BrokerProcess) {
    this.name = name;
    this.process = process;
    this.client = connect(process.address, { timeoutMs: PATIENCE_MS });
  }

  static async create(name: string, flags: readonly string[]): Promise<Node> {
    const [port] = await freePorts(1);
    const own = ['--node-id', name, '--raft-listen', `127.0.0.1:${port}`, '--shards', '1'];
    return new Node(name, await BrokerProcess.create({ flags: [...flags, ...own] }));
  }

  async dispose(): Promise<void> {
    await this.client.close().catch(() => undefined);
    await this.process.dispose();
  }
}

const server = await PostgresServer.start();
const nodes: Node[] = [];
after(async () => {
  await Promise.all(nodes.map((node) => node.dispose()));
  await server.remove();
});

/** The members as a node that runs sees them, once that is so. */
async function membersUntil(node: Node, holds: (found: ClusterMembers) => boolean): Promise<ClusterMembers> {
  let last: ClusterMembers | null = null;
  const deadline = Date.now() + PATIENCE_MS;
  while (Date.now() < deadline) {
    last = await node.client.members({ timeoutMs: 2_000 }).catch(() => last);
    if (last !== null && holds(last)) return last;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return assert.fail(`${node.name}: ${JSON.stringify(last)}\n${node.process.logs}`);
}

const votersOf = ({ members }: ClusterMembers): string[] =>
  members
    .filter(({ role }) => role === 'voter')
    .map(({ nodeId }) => nodeId)
    .sort();

/** What `broker check` says of the cluster at one of its nodes, and how it ends. */
async function checked(node: Node): Promise<{ readonly code: number | null; readonly levels: string }> {
  const only = 'leader,tolerance,clock_skew,versions';
  const { code, row, err } = await command(['check', '--only', only, '--address', node.process.address]);
  assert.equal(err, '');
  const checks = row.checks as { check: string; level: string }[];
  return { code, levels: checks.map(({ check, level }) => `${check} ${level}`).join(', ') };
}

const nodeOf = (name: string): Node => nodes.find((node) => node.name === name) ?? assert.fail(`no node ${name}`);

/** Publishes through each node, and fetches every message from every node. */
async function exchange(subject: string, among: readonly Node[]): Promise<void> {
  for (const source of among) {
    const id = await source.client.publish(subject, `from ${source.name}`);
    for (const target of among) {
      assert.equal(
        (await target.client.fetch(subject, id)).text,
        `from ${source.name}`,
        `${source.name} > ${target.name}`,
      );
    }
  }
}

describe('A cluster of three nodes', { timeout: 240_000 }, () => {
  const flags = server.brokerFlags();
  const seeds: string[] = [];

  before(async () => {
    for (const name of ['n1', 'n2', 'n3']) {
      const node = await Node.create(name, [...flags, ...(name === 'n1' ? ['--bootstrap'] : ['--join', seeds.join()])]);
      nodes.push(node);
      seeds.push(node.process.address);
      await node.process.restart();
    }
  });

  it('has taken in two nodes, and made them voters', async () => {
    for (const node of nodes) {
      const found = await membersUntil(node, (seen) => votersOf(seen).length === 3 && seen.toleratesNow === 1);
      assert.deepEqual(votersOf(found), ['n1', 'n2', 'n3']);
      assert.deepEqual(found.warnings, []);
      assert.equal(found.nodeId, node.name);
    }
    const levels = 'leader ok, tolerance ok, clock_skew ok, versions ok';
    assert.deepEqual(await checked(nodeOf('n2')), { code: 0, levels });
  });

  it('takes a publish on any node, with ids of one row, and every node serves it', async () => {
    await exchange('c.any', nodes);
    await exchange('c.any', nodes);
    const { head, settled } = await nodeOf('n2').client.subject('c.any');
    assert.deepEqual([head, settled], [6, 6]);
  });

  it('delivers to subscribers of every node, in the order of the ids', async () => {
    const received = nodes.map(() => [] as number[]);
    const subscriptions = nodes.map((node, i) => {
      const subscription = node.client.subscribe('c.live', { start: 'earliest' });
      void (async () => {
        for await (const { id } of subscription) received[i]?.push(id);
      })();
      return subscription;
    });
    for (let round = 0; round < 10; round += 1) {
      for (const node of nodes) await node.client.publish('c.live', String(round));
    }
    await until(
      () => received.every(({ length }) => length === 30),
      () => JSON.stringify(received),
    );
    const expected = Array.from({ length: 30 }, (_, i) => i + 1);
    for (const ids of received) assert.deepEqual(ids, expected);
    await Promise.all(subscriptions.map((subscription) => subscription.close()));
  });

  it('hands the lead over without a failed call', async () => {
    const { leader } = await nodeOf('n1').client.members();
    const next = nodes.find(({ name }) => name !== leader)?.name ?? '';
    let isOver = false;
    const load = (async () => {
      let done = 0;
      while (!isOver) {
        await nodes[done % nodes.length]?.client.publish('c.transfer', 'x');
        done += 1;
      }
      return done;
    })();
    assert.equal((await nodeOf('n1').client.transferLeader(next)).leader, next);
    await membersUntil(nodeOf('n3'), (seen) => seen.leader === next);
    isOver = true;
    assert.ok((await load) > 0);
  });

  it('goes on without its leader, says what is lost, and takes it back', async () => {
    const { leader } = await nodeOf('n1').client.members();
    const dead = nodeOf(leader);
    await dead.process.kill();
    const alive = nodes.filter((node) => node !== dead);
    const found = await membersUntil(alive[0] as Node, (seen) => seen.leader !== leader && seen.toleratesNow === 0);
    assert.match(found.warnings.join(), new RegExp(`voter ${leader} is not heard of: 2 of 3`));
    await exchange('c.failover', alive);
    assert.deepEqual(await checked(alive[1] as Node), {
      code: 1,
      levels: 'leader ok, tolerance warning, clock_skew ok, versions unknown',
    });
    // What the dead one acknowledged is there.
    assert.equal((await (alive[0] as Node).client.fetch('c.any', 1)).text, 'from n1');
    await dead.process.restart();
    await membersUntil(dead, (seen) => seen.toleratesNow === 1);
    await exchange('c.failover', nodes);
  });

  it('[R23] does not let a wiped voter back under its old identity, until that is removed', async () => {
    const wiped = nodeOf('n3');
    const { members } = await wiped.client.members();
    const old = members.find(({ nodeId }) => nodeId === 'n3')?.instanceId ?? '';
    await wiped.process.kill();
    rmSync(wiped.process.dataDir, { recursive: true });
    const rejoin = [...flags, '--join', seeds.slice(0, 2).join(), '--node-id', 'n3', '--shards', '1'];
    const [port] = await freePorts(1);
    const again = { flags: [...rejoin, '--raft-listen', `127.0.0.1:${port}`] };
    await assert.rejects(wiped.process.restart(again), /JOIN_REFUSED/);
    assert.match(wiped.process.logs, /NODE_ID_TAKEN/);
    await membersUntil(nodeOf('n1'), (seen) => seen.leader !== '' && seen.leader !== 'n3');
    await nodeOf('n1').client.removeMember('n3', old);
    await wiped.process.restart(again);
    const found = await membersUntil(wiped, (seen) => votersOf(seen).length === 3);
    assert.notEqual(found.members.find(({ nodeId }) => nodeId === 'n3')?.instanceId, old);
    await exchange('c.rejoined', nodes);
  });

  it('refuses a removal that would leave no majority of voters that are heard', async () => {
    await nodeOf('n3').process.kill();
    const { members } = await membersUntil(nodeOf('n1'), (seen) => seen.leader !== '' && seen.toleratesNow === 0);
    await assert.rejects(nodeOf('n1').client.removeMember('n2'), /QUORUM_AT_RISK/);
    assert.equal(members.length, 3);
    await nodeOf('n1').client.removeMember('n3');
    const left = await membersUntil(nodeOf('n2'), (seen) => votersOf(seen).length === 2);
    assert.match(left.warnings.join(), /2 voters survive the loss of none/);
    await exchange('c.two', nodes.slice(0, 2));
  });

  it('stops and starts as a whole, and has everything', async () => {
    const two = nodes.slice(0, 2);
    for (const node of two) assert.equal((await node.process.stop()).code, 0);
    for (const node of two) node.process.launch();
    for (const node of two) await node.process.ready();
    assert.equal((await nodeOf('n2').client.fetch('c.any', 1)).text, 'from n1');
    await exchange('c.again', two);
  });
});

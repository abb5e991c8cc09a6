/** Three real nodes on a real PostgreSQL that find each other by encrypted gossip, and what gossip may and may not do to their cluster. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { after, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { type ClusterMembers, connect, type GossipKeys } from '../../src/client/index.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess, LAUNCHER } from '../support/broker.ts';
import { freePorts } from '../support/ports.ts';
import { until } from '../support/until.ts';

const run = promisify(execFile);
const server = await PostgresServer.start();
const storeFlags = server.brokerFlags();
const NAMES = ['n1', 'n2', 'n3'] as const;
const KEY = randomBytes(32);

interface Ports {
  readonly raft: string;
  readonly gossip: string;
}

async function newPorts(count: number): Promise<Ports[]> {
  const ports = await freePorts(2 * count);
  return Array.from({ length: count }, (_, index) => ({
    raft: `127.0.0.1:${ports[index]}`,
    gossip: `127.0.0.1:${ports[count + index]}`,
  }));
}

function flagsOf(name: string, own: Ports, seeds: readonly Ports[], more: readonly string[] = []): string[] {
  return [
    ...storeFlags,
    ...['--node-id', name, '--raft-listen', own.raft, '--gossip-listen', own.gossip, '--shards', '1'],
    ...['--gossip-join', seeds.map(({ gossip }) => gossip).join(), '--gossip-profile', 'local', ...more],
  ];
}

const nodes: BrokerProcess[] = [];
let ports = await newPorts(NAMES.length);
const env = { BROKER_GOSSIP_KEY: KEY.toString('base64') };
for (const [index, name] of NAMES.entries()) {
  const flags = flagsOf(name, ports[index] as Ports, ports, ['--bootstrap-expect', '3']);
  nodes.push(await BrokerProcess.create({ flags, env, readyTimeoutMs: 60_000 }));
}
after(async () => {
  await Promise.all(nodes.map((node) => node.dispose()));
  await server.remove();
});

const [n1, n2, n3] = [() => nodes[0], () => nodes[1], () => nodes[2]] as (() => BrokerProcess)[] as [
  () => BrokerProcess,
  () => BrokerProcess,
  () => BrokerProcess,
];

/** What a node says of the cluster, once that is so. */
async function membersUntil(node: BrokerProcess, holds: (found: ClusterMembers) => boolean): Promise<ClusterMembers> {
  const client = connect(node.address, { retries: false });
  let last: ClusterMembers | null = null;
  try {
    await until(
      async () => {
        last = await client.members({ timeoutMs: 2_000 }).catch(() => null);
        return last !== null && holds(last);
      },
      () => `${JSON.stringify(last)}\n${node.logs}`,
      60_000,
    );
  } finally {
    await client.close();
  }
  return last as unknown as ClusterMembers;
}

const votersOf = ({ members }: ClusterMembers): string[] =>
  members.flatMap(({ role, nodeId }) => (role === 'voter' ? [nodeId] : [])).sort();
const isWhole = (found: ClusterMembers): boolean => votersOf(found).length === 3 && found.toleratesNow === 1;
const statusOf = ({ seen }: ClusterMembers, node: string): string =>
  seen.find(({ nodeId }) => nodeId === node)?.status ?? '';

async function keysOf(node: BrokerProcess, change: Parameters<ReturnType<typeof connect>['gossipKeys']>[0]) {
  const client = connect(node.address);
  try {
    let found: GossipKeys | null = null;
    await until(
      async () => {
        found = await client.gossipKeys(change);
        return found.answered === 3 && found.failures.length === 0;
      },
      () => JSON.stringify(found),
      30_000,
    );
    return found as unknown as GossipKeys;
  } finally {
    await client.close();
  }
}

describe('Three nodes that expect each other', () => {
  it('[G3] are one cluster without a word of who begins, and every node shows both views of it', async () => {
    await Promise.all(nodes.map((node) => node.restart()));
    const views = await Promise.all(
      nodes.map((node) =>
        membersUntil(node, (found) => isWhole(found) && NAMES.every((one) => statusOf(found, one) === 'alive')),
      ),
    );
    assert.equal(new Set(views.map(({ clusterId }) => clusterId)).size, 1);
    for (const { seen, members } of views) {
      assert.deepEqual(seen.map(({ nodeId, difference, isMember }) => [nodeId, difference, isMember]).sort(), [
        ['n1', '', true],
        ['n2', '', true],
        ['n3', '', true],
      ]);
      for (const { nodeId, instanceId, raftAddress, grpcAddress } of members) {
        const there = seen.find((one) => one.nodeId === nodeId);
        assert.deepEqual(
          [there?.instanceId, there?.raftAddress, there?.grpcAddress],
          [instanceId, raftAddress, grpcAddress],
        );
      }
    }
    const { stdout } = await run(process.execPath, [LAUNCHER, 'cluster', 'members', '--address', n2().address]);
    assert.match(stdout, /^NODE +ROLE +LEADER +HEARD +GOSSIP .*\nn1 +voter .* alive /);
  });

  it('take a message through one and give it to a reader of another', async () => {
    const [writer, reader] = [connect(n1().address), connect(n3().address)];
    const id = await writer.publish('gossip.cluster', Buffer.from('found'));
    assert.equal((await reader.fetch('gossip.cluster', id)).body.toString(), 'found');
    await Promise.all([writer.close(), reader.close()]);
  });
});

describe('A key of gossip', () => {
  it('[G6] is asked of whoever wants to be taken in: a node with another one is not met, and refused where it is told whom to ask', async (t) => {
    const [own] = (await newPorts(1)) as [Ports];
    const flags = flagsOf('n4', own, ports, ['--join', n1().address]);
    const key = randomBytes(32).toString('base64');
    const stranger = await BrokerProcess.create({ flags, env: { BROKER_GOSSIP_KEY: key } });
    t.after(() => stranger.dispose());
    await assert.rejects(stranger.restart(), /JOIN_UNPROVEN/);
    const found = await membersUntil(n1(), isWhole);
    assert.equal(found.members.length, 3);
    assert.equal(statusOf(found, 'n4'), '');
  });

  it('is replaced on all nodes, step by step, and each keeps it over a restart', async () => {
    const next = randomBytes(32);
    const [old] = (await keysOf(n2(), { action: 'list' })).keys;
    assert.deepEqual([old?.nodes, old?.primaryOn], [3, 3]);
    await keysOf(n2(), { action: 'install', key: next });
    const used = await keysOf(n1(), { action: 'use', key: next });
    const [first, second] = used.keys;
    assert.deepEqual([first?.primaryOn, second?.fingerprint, second?.nodes], [3, old?.fingerprint, 3]);
    const removed = await keysOf(n3(), { action: 'remove', fingerprint: old?.fingerprint ?? '' });
    assert.deepEqual(removed.keys, [{ fingerprint: first?.fingerprint, nodes: 3, primaryOn: 3 }]);
    await n3().stop();
    await n3().restart();
    await membersUntil(n1(), (found) => isWhole(found) && statusOf(found, 'n3') === 'alive');
    assert.deepEqual((await keysOf(n3(), { action: 'list' })).keys, removed.keys);
  });
});

describe('What gossip says', () => {
  it('[P9] [G1] of a voter that stands still changes no vote: it is failed for gossip, and a voter when it comes back', async () => {
    process.kill(n3().pid, 'SIGSTOP');
    try {
      const found = await membersUntil(n1(), (view) => statusOf(view, 'n3') === 'failed');
      assert.deepEqual(votersOf(found), [...NAMES]);
    } finally {
      process.kill(n3().pid, 'SIGCONT');
    }
    const back = await membersUntil(n1(), (found) => isWhole(found) && statusOf(found, 'n3') === 'alive');
    assert.deepEqual(votersOf(back), [...NAMES]);
  });

  it('[G8] of one that was stopped is that it left, and what helps stands beside it', async () => {
    await n3().stop();
    const found = await membersUntil(n1(), (view) => statusOf(view, 'n3') === 'left' && view.toleratesNow === 0);
    assert.deepEqual(votersOf(found), [...NAMES]);
    assert.match(found.seen.find(({ nodeId }) => nodeId === 'n3')?.difference ?? '', /`broker cluster remove n3`/);
    await n3().restart();
    await membersUntil(n1(), isWhole);
  });

  it('[G4] heals a cluster whose nodes have all moved at once: nobody is where the log says', async () => {
    await Promise.all(nodes.map((node) => node.stop()));
    ports = await newPorts(NAMES.length);
    await Promise.all(
      nodes.map((node, index) =>
        node.restart({ flags: flagsOf(NAMES[index] as string, ports[index] as Ports, ports) }),
      ),
    );
    // Each tells the log where it is by now, as soon as a leader hears it.
    const now = ports.map(({ raft }) => raft).sort();
    const isThere = ({ members }: ClusterMembers): boolean =>
      members
        .map(({ raftAddress }) => raftAddress)
        .sort()
        .join() === now.join();
    for (const node of nodes) await membersUntil(node, (found) => isWhole(found) && isThere(found));
  });
});

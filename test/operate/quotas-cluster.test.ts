/** A quota is for the cluster: nodes take equal shares of it, and others take the share of one that is gone. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { connect } from '../../src/client/index.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { Cluster, type ClusterNode } from '../support/cluster.ts';
import { until } from '../support/until.ts';

const server = await PostgresServer.start();
after(() => server.remove());

async function nodesOf(node: ClusterNode): Promise<number> {
  const client = connect(node.address, { timeoutMs: 5_000 });
  const { nodes } = await client.tenants();
  await client.close();
  return nodes;
}

/** How many publishes the node takes before it refuses one, when that may come again, and what others may have come meanwhile. */
async function take(node: ClusterNode, secondsEach: number) {
  const client = new BrokerClient(node.address, { tenant: 'acme' });
  const startedAt = performance.now();
  try {
    for (let taken = 0; ; taken++) {
      const refusal = await client.publish({ subject: 's', body: Buffer.from('x') }).then(
        () => null,
        (error: unknown) => error,
      );
      if (refusal === null) continue;
      assert.ok(refusal instanceof CallError && refusal.reason === 'QUOTA_EXCEEDED', String(refusal));
      const more = Math.ceil((performance.now() - startedAt) / 1_000 / secondsEach);
      return { taken, more, delayMs: refusal.retryAfterMs ?? 0 };
    }
  } finally {
    client.close();
  }
}

test('three nodes share a quota; when one is killed two do', { timeout: 180_000 }, async () => {
  // Of all together 18 at once, then one in 3.3 s; of each of three nodes 6 at once, then one in 10 s.
  const flags = ['--quotas-rules', 'acme=0.3msg/s', '--quotas-burst', '1m', '--shards', '1'];
  await using cluster = await Cluster.start({ nodes: 3, storeFlags: server.brokerFlags(), flags });
  for (const node of cluster.nodes) {
    await until(
      async () => (await nodesOf(node)) === 3,
      () => node.broker.logs,
    );
  }
  const [first, second, third] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
  for (const node of [first, second]) {
    const { taken, more, delayMs } = await take(node, 10);
    assert.ok(taken >= 6 && taken <= 6 + more, `${taken}, of which up to ${more} since`);
    assert.ok(delayMs > 0 && delayMs <= 10_000, `${delayMs}`);
  }
  await third.kill();
  await until(
    async () => (await nodesOf(second)) === 2,
    () => second.broker.logs,
  );
  // The whole is there again for the two that are left.
  const { delayMs } = await take(second, 20 / 3);
  assert.ok(delayMs > 0 && delayMs <= 7_000, `${delayMs}`);
});

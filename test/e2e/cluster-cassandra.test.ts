/** Three real nodes on a real Cassandra: one cluster for whoever talks to any of them, also when its leader is killed under load. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, test } from 'node:test';
import { chooseCassandra, ServerMissing } from '../servers/chosen-server.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { Cluster, type ClusterNode } from '../support/cluster.ts';
import { largest } from '../support/largest.ts';
import { until } from '../support/until.ts';

const SUBJECT = 'cassandra.kill';
/** Publishes on their way to each node. */
const LANES = 4;
/** Of all nodes, before the leader is killed, and again after it. */
const ACKED = 60;

const server = await chooseCassandra().catch((error: unknown) => {
  if (error instanceof ServerMissing) return error;
  throw error;
});
after(async () => {
  if (!(server instanceof ServerMissing)) await server.remove();
});

test('[P1, P5] a cluster on Cassandra: any node takes and serves messages, and a kill -9 of the leader loses none', {
  timeout: 180_000,
}, async (t) => {
  if (server instanceof ServerMissing) return t.skip(server.message);
  const storeFlags = server.flags(`t_${randomBytes(6).toString('hex')}`);
  await using cluster = await Cluster.start({ nodes: 3, storeFlags, flags: ['--shards', '1'] });
  const clients = new Map(cluster.nodes.map((node) => [node, new BrokerClient(node.address)]));
  t.after(() => {
    for (const client of clients.values()) client.close();
  });
  await exchange('cassandra.any', cluster.nodes, clients);

  const acked = new Map<number, string>();
  let isOver = false;
  const lanes = cluster.nodes.flatMap((node) =>
    Array.from({ length: LANES }, async (_, lane) => {
      for (let n = 0; !isOver; n++) {
        const body = `${node.id} ${lane} ${n}`;
        try {
          const id = await (clients.get(node) as BrokerClient).publish({ subject: SUBJECT, body: Buffer.from(body) });
          assert.equal(acked.get(id), undefined, `id ${id} was given twice`);
          acked.set(id, body);
        } catch (error) {
          if (!(error instanceof CallError)) throw error;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      }
    }),
  );
  await until(
    () => acked.size >= ACKED,
    () => `only ${acked.size} were acknowledged`,
  );
  const leader = await cluster.untilLeader();
  await leader.kill();
  const others = cluster.nodes.filter((node) => node !== leader);
  const before = acked.size;
  await until(
    () => acked.size >= before + ACKED,
    () => `${acked.size - before} were acknowledged after the kill; logs in ${cluster.keep()}`,
  );
  isOver = true;
  await Promise.all(lanes);

  // What the dead one had open is given up by the new leader: each id up to the last one is a message or void.
  const last = largest(acked.keys());
  for (const node of others) await assertDecided(clients.get(node) as BrokerClient, last, acked);
  await cluster.startAll();
  await assertDecided(clients.get(leader) as BrokerClient, last, acked);
  await exchange('cassandra.any', cluster.nodes, clients);
});

/** Publishes through each node, and fetches every message from every node. */
async function exchange(
  subject: string,
  nodes: readonly ClusterNode[],
  clients: ReadonlyMap<ClusterNode, BrokerClient>,
): Promise<void> {
  for (const source of nodes) {
    const id = await (clients.get(source) as BrokerClient).publish({ subject, body: Buffer.from(source.id) });
    for (const target of nodes) {
      const { body } = await (clients.get(target) as BrokerClient).fetch(subject, id);
      assert.equal(String(body), source.id, `from ${source.id} to ${target.id}`);
    }
  }
}

async function assertDecided(client: BrokerClient, last: number, acked: ReadonlyMap<number, string>): Promise<void> {
  for (let id = 1; id <= last; id++) {
    let found = 'nothing';
    await until(
      async () => {
        found = await read(client, id);
        return found !== 'undecided';
      },
      () => `id ${id} has no verdict at ${client.address}`,
    );
    const expected = acked.get(id);
    if (expected !== undefined) assert.equal(found, expected, `id ${id} at ${client.address}`);
  }
}

/** Body of a message, or `void`, or `undecided`. */
async function read(client: BrokerClient, id: number): Promise<string> {
  try {
    return String((await client.fetch(SUBJECT, id)).body);
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    return error.reason === 'ID_VOID' ? 'void' : 'undecided';
  }
}

/** How real processes find out whether they begin a cluster, join one, wait or are refused, and how a member leaves, on a real PostgreSQL. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { after, describe, it, type TestContext } from 'node:test';
import { connect } from '../../src/client/index.ts';
import { askSeed } from '../../src/workers/membership/ask-seed.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient, type CallError } from '../support/client.ts';
import { Gate } from '../support/gate.ts';
import { freePorts } from '../support/ports.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';

const server = await PostgresServer.start();
after(() => server.remove());

async function created(t: TestContext, flags: readonly string[]): Promise<BrokerProcess> {
  const [port] = await freePorts(1);
  const broker = await BrokerProcess.create({ flags: [...flags, '--raft-listen', `127.0.0.1:${port}`] });
  t.after(() => broker.dispose());
  return broker;
}

/** Starts it, and resolves when it has said that it waits. */
async function waiting(broker: BrokerProcess, words: RegExp): Promise<void> {
  broker.launch();
  await until(
    () => words.test(broker.logs),
    () => broker.logs,
  );
}

describe('A cluster with an access file and no TLS', () => {
  it('takes in who has its gossip key, also where nobody gossips, and without a key no stranger', async (t) => {
    const access = join(temporaryFolder(t), 'access.yaml');
    writeFileSync(access, 'roles: {}\n');
    const flags = [...server.brokerFlags(), '--shards', '1', '--access-file', access];
    const [grpc, admin, firstRaft, raft] = await freePorts(4);
    // Beyond loopback: on this machine alone nobody would be asked.
    const open = ['--insecure', '--bootstrap', '--raft-listen', `127.0.0.1:${firstRaft}`];
    const advertised = ['--grpc-advertise', `127.0.0.1:${grpc}`];
    const first = await startBroker({
      addresses: { grpc: `0.0.0.0:${grpc}`, admin: `127.0.0.1:${admin}` },
      flags: [...flags, ...open, ...advertised],
    });
    t.after(() => first.dispose());
    const { clusterId } = JSON.parse(readFileSync(join(first.dataDir, 'node.json'), 'utf8'));
    const addresses = { raft: '127.0.0.1:1', grpc: '127.0.0.1:2' };
    const stranger = { node: 'x', instance: '0'.repeat(32), ...addresses, protocol: 1 };
    const address = `127.0.0.1:${grpc}`;
    const answer = await askSeed(address, clusterId, stranger, new AbortController().signal, null);
    assert.ok(answer.kind === 'refused' && answer.reason === 'JOIN_UNPROVEN', JSON.stringify(answer));
    const isAudited = (words: string): boolean =>
      first.logs.split('\n').some((line) => line.includes('"audit":true') && line.includes(words));
    await until(
      () => isAudited('"reason":"JOIN_UNPROVEN"'),
      () => first.logs,
    );
    const env = { BROKER_GOSSIP_KEY: randomBytes(32).toString('base64') };
    await first.stop();
    await first.restart({ env });
    const joining = ['--join', address, '--raft-listen', `127.0.0.1:${raft}`];
    const second = await startBroker({ flags: [...flags, ...joining], env });
    await second.dispose();
    await until(
      () => isAudited('a node was taken in'),
      () => first.logs,
    );
  });
});

describe('A node on a database', () => {
  it('of another cluster is refused, and told how to join it; nothing of it stays in the way', async (t) => {
    const flags = server.brokerFlags();
    await using first = await startBroker({ flags });
    for (const more of [[], ['--bootstrap']]) {
      const second = await created(t, [...flags, ...more]);
      await assert.rejects(second.restart(), /CLUSTER_EXISTS|name a member with --join HOST:PORT/);
      assert.match(second.logs, /"reason":"CLUSTER_EXISTS"/);
    }
    const client = connect(first.address);
    const { members, leader, nodeId, tolerates, warnings } = await client.members();
    assert.deepEqual([members.length, leader, tolerates, warnings], [1, nodeId, 0, []]);
    assert.deepEqual([members[0]?.isLeader, members[0]?.grpcAddress], [true, first.address]);
    const { role, leader: lead } = await client.status();
    assert.deepEqual([role, lead], ['alone', nodeId]);
    await assert.rejects(client.promoteMember('n2'), /NOT_CLUSTERED/);
    await client.close();
  });

  it('without a cluster waits for one if it is to join, and ends the wait at SIGTERM', async (t) => {
    const broker = await created(t, [...server.brokerFlags(), '--join', '127.0.0.1:1']);
    await waiting(broker, /waiting for a cluster in the database/);
    assert.equal((await broker.stop()).code, 0);
    assert.match(broker.logs, /"stopped"/);
  });

  it('ends at SIGTERM while it waits for a database that says nothing', async (t) => {
    const silent = createServer().listen(0, '127.0.0.1');
    await once(silent, 'listening');
    t.after(() => silent.close());
    const url = `postgres://nobody@127.0.0.1:${(silent.address() as AddressInfo).port}/nothing`;
    const broker = await created(t, ['--store', 'postgres', '--postgres-url', url, '--store-timeout', '5m']);
    broker.launch();
    await once(silent, 'connection');
    assert.equal((await broker.stop()).code, 0);
    assert.match(broker.logs, /"stopped"/);
  });

  it('waits for a member that answers; after a kill -9 it goes on as the same instance, and never begins a cluster', async (t) => {
    const flags = server.brokerFlags();
    await using first = await startBroker({ flags });
    const client = connect(first.address);
    const { clusterId } = await client.members();
    await client.close();
    await first.kill();
    const broker = await created(t, [...flags, '--join', first.address, '--bootstrap']);
    const identity = () => JSON.parse(readFileSync(join(broker.dataDir, 'node.json'), 'utf8'));
    await waiting(broker, /waiting for a member of the cluster/);
    const { instanceId } = identity();
    assert.equal(identity().clusterId, clusterId);
    await broker.kill();
    await waiting(broker, /waiting for a member of the cluster[\s\S]*waiting for a member of the cluster/);
    assert.deepEqual([identity().clusterId, identity().instanceId], [clusterId, instanceId]);
    assert.equal((await broker.stop()).code, 0);
  });

  it('without --join is refused once it has begun to join', async (t) => {
    const flags = server.brokerFlags();
    await using first = await startBroker({ flags });
    await first.kill();
    const broker = await created(t, [...flags, '--join', first.address]);
    await waiting(broker, /waiting for a member of the cluster/);
    await broker.kill();
    await assert.rejects(broker.restart({ flags: [...flags, '--bootstrap'] }), /JOIN_REFUSED/);
  });
});

describe('A member whose Raft thread hangs', () => {
  it('ends its subscriptions at SIGTERM within shutdown.drain: the last questions to that thread have no answer', async (t) => {
    const gate = new Gate(t);
    gate.open();
    const [raft] = await freePorts(1);
    const member = ['--shards', '1', '--bootstrap', '--raft-listen', `127.0.0.1:${raft}`];
    await using broker = await startBroker({
      flags: [...server.brokerFlags(), ...member, '--shutdown-drain', '1s'],
      env: { BROKER_FAILPOINTS: gate.each('raft.before-append') },
    });
    const client = new BrokerClient(broker.address, { timeoutMs: 60_000 });
    const live = Promise.withResolvers<void>();
    const end: { reason: string | undefined } = { reason: undefined };
    const onEnd = (error: CallError | null): void => {
      end.reason = error?.reason ?? 'none';
    };
    const on = { onMessage: () => undefined, onLive: () => live.resolve(), onEnd };
    client.subscribe('t.hangs', { at: 'new' }, on);
    await live.promise;
    gate.shut();
    const body = Buffer.from('x');
    const publishing = client.publish({ subject: 't.hangs', body }).catch((error: CallError) => error.outcome);
    // Behind it on the same connection: when this is answered, the message is on its way to the Raft thread.
    await client.broadcast({ subject: 't.other', body });
    process.kill(broker.pid, 'SIGTERM');
    await until(
      () => end.reason !== undefined,
      () => broker.logs,
    );
    assert.equal(end.reason, 'SHUTTING_DOWN');
    await broker.kill();
    assert.equal(await publishing, 'unknown');
    client.close();
  });
});

/** A broker on a real PostgreSQL, judged by the checker: kill -9 of the broker, and a server that is stopped or silent, under load. */
import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess } from '../support/broker.ts';
import { History } from '../support/checker.ts';
import { BrokerClient } from '../support/client.ts';
import { KillLoad, reader, readStreams } from './kill-load.ts';

const STREAMS_TIMEOUT_MS = 20_000;

interface Rig {
  readonly server: PostgresServer;
  readonly broker: BrokerProcess;
  readonly history: History;
  readonly load: KillLoad;
}

async function startRig(t: TestContext, env: Readonly<Record<string, string>> = {}): Promise<Rig> {
  const seed = Number(process.env.BROKER_TEST_SEED ?? randomInt(1, 2 ** 31));
  t.diagnostic(`seed ${seed}: repeat with BROKER_TEST_SEED=${seed}`);
  const server = await PostgresServer.start();
  t.after(() => server.remove());
  const broker = await BrokerProcess.create({
    flags: [
      '--store',
      'postgres',
      '--store-experimental',
      '--postgres-url',
      server.url,
      '--store-timeout',
      '2s',
      '--log-format',
      'json',
    ],
    env,
    logLinesMax: 4_000,
  });
  t.after(() => broker[Symbol.asyncDispose]());
  await broker.restart();
  const history = new History();
  return { server, broker, history, load: new KillLoad(history, seed, `p${randomBytes(2).toString('hex')}`) };
}

/** Everything that was answered is read back, in both ways, and judged. */
async function judge({ broker, history, load }: Rig): Promise<number> {
  const client = new BrokerClient(broker.address);
  try {
    await load.settle(client);
    await load.publishLast(client);
    await history.readBack(reader(client), { from: 'start' });
    await readStreams(client, history, STREAMS_TIMEOUT_MS);
  } finally {
    client.close();
  }
  const { violations, counts } = history.judge();
  assert.deepEqual(violations, [], broker.logs);
  return counts.acked;
}

test('[P3] the broker is killed with -9 under load, 4 times: nothing acknowledged is lost, nothing is there twice', async (t) => {
  const rig = await startRig(t);
  for (let run = 0; run < 4; run++) {
    rig.load.start(rig.broker.address, `kill.run.${run}`);
    await sleep(randomInt(300, 1_500));
    await rig.broker.kill();
    await rig.load.stop();
    await rig.broker.restart();
  }
  assert.ok((await judge(rig)) > 100, 'the load was no load');
});

test('[S14] PostgreSQL is stopped in the middle of it and started again: refused meanwhile, by itself ready again, nothing lost', async (t) => {
  const rig = await startRig(t);
  rig.load.start(rig.broker.address, 'kill.stopped');
  await sleep(1_000);
  await rig.server.stop('SIGQUIT');
  await sleep(1_500);
  await rig.server.run();
  const back = Date.now();
  while (rig.load.lastAckedSentAt < back) await sleep(20);
  await sleep(500);
  await rig.load.stop();
  assert.ok((rig.load.refusals.get('UNAVAILABLE STORE_UNAVAILABLE') ?? 0) > 0, 'nothing was refused');
  assert.ok((await judge(rig)) > 100, 'the load was no load');
});

test('PostgreSQL says nothing for longer than store.timeout: what was on its way is void or stored, never both', async (t) => {
  const rig = await startRig(t);
  rig.load.start(rig.broker.address, 'kill.silent');
  await sleep(1_000);
  const backends = rig.server.backends();
  for (const pid of backends) process.kill(pid, 'SIGSTOP');
  await sleep(5_000);
  for (const pid of backends) process.kill(pid, 'SIGCONT');
  const back = Date.now();
  while (rig.load.lastAckedSentAt < back) await sleep(20);
  await sleep(500);
  await rig.load.stop();
  assert.ok((await judge(rig)) > 100, 'the load was no load');
});

for (const failpoint of ['shard.before-append=throw@30', 'shard.round=throw@300']) {
  test(`[S12] shard threads die under load (${failpoint}): what was on its way is stored or void, and nothing acknowledged is lost`, async (t) => {
    const rig = await startRig(t, { BROKER_FAILPOINTS: failpoint });
    const resolved = (): number => {
      const lines = rig.broker.logs.split('\n').filter((line) => line.includes('"shard is up"'));
      return lines.filter((line) => !line.includes('"closed":0,"revoked":0')).length;
    };
    rig.load.start(rig.broker.address, 'kill.shards');
    while (resolved() < 3 && rig.broker.running) await sleep(20);
    assert.ok(rig.broker.running, rig.broker.logs);
    await rig.load.stop();
    await rig.broker.restart({ env: { BROKER_FAILPOINTS: '' } });
    assert.ok((await judge(rig)) > 30, 'the load was no load');
  });
}

test('a data directory and a database that are not of one cluster are refused', async (t) => {
  const { server, broker } = await startRig(t);
  await broker.stop();
  const other = await BrokerProcess.create({
    flags: ['--store', 'postgres', '--store-experimental', '--postgres-url', server.url],
  });
  t.after(() => other[Symbol.asyncDispose]());
  await assert.rejects(other.restart(), /belongs to cluster/);
  await assert.rejects(broker.restart({ flags: [] }), /keeps its messages in a database/);
});

/** A broker on a real PostgreSQL, judged by the checker: kill -9 of the broker, a server that is stopped or silent, and lost replies, under load. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { after, type TestContext, test } from 'node:test';
import { PostgresServer } from '../servers/postgres.ts';
import { Relay } from '../servers/relay.ts';
import { BrokerProcess } from '../support/broker.ts';
import { resizeStorm } from './resize-campaign.ts';
import { FaultRig, pause } from './rig.ts';

/** Times that the connections are cut between request and reply. */
const CUTS = process.env.BROKER_TEST_LONG === '1' ? 200 : 12;

const server = await PostgresServer.start();
after(() => server.remove());

function seedOf(t: TestContext): number {
  const seed = Number(process.env.BROKER_TEST_SEED ?? randomInt(1, 2 ** 31));
  t.diagnostic(`seed ${seed}: repeat with BROKER_TEST_SEED=${seed}`);
  return seed;
}

function startRig(t: TestContext, url = server.url, env: Readonly<Record<string, string>> = {}): Promise<FaultRig> {
  const flags = [...server.brokerFlags(url), '--store-timeout', '2s'];
  return FaultRig.start({ flags, env, logLinesMax: 4_000 }, seedOf(t));
}

/** Until something is acknowledged that was sent after this call. */
async function untilAcked({ load, broker }: FaultRig): Promise<void> {
  const since = Date.now();
  while (load.lastAckedSentAt <= since) {
    assert.ok(broker.running, broker.logs);
    await pause(10);
  }
}

test('[P3] the broker is killed with -9 under load, 4 times: nothing acknowledged is lost, nothing is there twice', async (t) => {
  await using rig = await startRig(t);
  for (let run = 0; run < 4; run++) {
    rig.startLoad();
    await rig.loaded(randomInt(30, 300));
    await rig.broker.kill();
    await rig.load.stop();
    await rig.broker.restart();
  }
  await rig.assertKept(100);
});

test('[S14] PostgreSQL is stopped in the middle of it and started again: refused meanwhile, by itself ready again, nothing lost', async (t) => {
  await using rig = await startRig(t);
  rig.startLoad({ witness: true });
  await rig.loaded(100);
  await server.stop('SIGQUIT');
  const refused = (): number => rig.load.refusals.get('UNAVAILABLE STORE_UNAVAILABLE') ?? 0;
  while (refused() < 100) await pause(10);
  await server.run();
  await untilAcked(rig);
  await rig.broker.ready();
  await rig.load.stop();
  await rig.catchUp();
  await rig.assertKept(100);
});

test('PostgreSQL says nothing for longer than store.timeout: what was on its way is void or stored, never both', async (t) => {
  await using rig = await startRig(t);
  rig.startLoad({ witness: true });
  await rig.loaded(100);
  const backends = server.backends();
  for (const pid of backends) process.kill(pid, 'SIGSTOP');
  const refused = (): number => rig.load.refusals.get('UNAVAILABLE STORE_UNAVAILABLE') ?? 0;
  while (refused() === 0) await pause(10);
  for (const pid of backends) process.kill(pid, 'SIGCONT');
  await untilAcked(rig);
  await rig.load.stop();
  await rig.catchUp();
  await rig.assertKept(100);
});

test(`[S14, R25, R27] replies are lost behind the requests, ${CUTS} times under load: producers that retry have nothing twice, and nothing is lost`, async (t) => {
  const relay = await Relay.start('127.0.0.1', server.port);
  t.after(() => relay.close());
  await using rig = await startRig(t, relay.through(server.url));
  rig.startLoad({ witness: true });
  for (let cut = 0; cut < CUTS; cut++) {
    await untilAcked(rig);
    assert.ok((await relay.dropReplies()) > 0);
    relay.breakAll();
    relay.restore();
  }
  await untilAcked(rig);
  await rig.load.stop();
  await rig.catchUp();
  await rig.assertKept(100);
});

test('[R25, R27, W8] 1 -> 4 -> 2 shards under load: no client is told of an error, and subscribers see each id once and in order', async (t) => {
  const result = await resizeStorm([4, 2], null, seedOf(t), server.brokerFlags());
  t.diagnostic(JSON.stringify({ acked: result.acked, changes: result.changes }));
  assert.deepEqual(result.violations, []);
  assert.deepEqual(result.errors, []);
  assert.deepEqual(
    result.changes.map(({ error, slotsMoved, slotsTotal }) => [error, slotsMoved === slotsTotal]),
    [
      ['', true],
      ['', true],
    ],
  );
  assert.deepEqual(result.slots, [512, 512]);
  assert.ok(result.acked > 50, 'the load was no load');
});

for (const failpoint of ['shard.before-append=throw@30', 'shard.round=throw@300']) {
  test(`[S12] shard threads die under load (${failpoint}): what was on its way is stored or void, and nothing acknowledged is lost`, async (t) => {
    await using rig = await startRig(t, server.url, { BROKER_FAILPOINTS: failpoint });
    const resolved = (): number => {
      const lines = rig.broker.logs.split('\n').filter((line) => line.includes('"shard is up"'));
      return lines.filter((line) => !line.includes('"closed":0,"revoked":0')).length;
    };
    rig.startLoad();
    while (resolved() < 3 && rig.broker.running) await pause(20);
    assert.ok(rig.broker.running, rig.broker.logs);
    await rig.load.stop();
    await rig.broker.restart({ env: { BROKER_FAILPOINTS: '' } });
    await rig.assertKept(30);
  });
}

test('a data directory and a database that are not of one cluster are refused', async (t) => {
  const flags = server.brokerFlags();
  const [broker, other] = [await BrokerProcess.create({ flags }), await BrokerProcess.create({ flags })];
  t.after(() => Promise.all([broker.dispose(), other.dispose()]));
  await broker.restart();
  await broker.stop();
  await assert.rejects(other.restart(), /belongs to cluster/);
  await assert.rejects(broker.restart({ flags: [] }), /keeps its messages in a database/);
});

/**
 * A broker on a real Cassandra: what it serves, over TLS and with a login; what it refuses to start with; and, judged by the checker, kill -9 of the broker and
 * of Cassandra, and a Cassandra that is silent, under load. One server for all: it is slow to start.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { after, type TestContext, test } from 'node:test';
import { CASSANDRA_TLS_NAME, CassandraServer, ownCassandraMissing } from '../servers/cassandra.ts';
import { Relay } from '../servers/relay.ts';
import { type BrokerOptions, BrokerProcess, httpStatus, LAUNCHER, startBroker } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { ConsumeStream } from '../support/consume-stream.ts';
import { lookupStorm } from '../support/lookup-storm.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { copyTakesOver, overtakenUnderLoad } from './copied-directory.ts';
import { FaultRig, pause } from './rig.ts';

/** Times that the connections are cut between request and reply. */
const CUTS = process.env.BROKER_TEST_LONG === '1' ? 100 : 6;

const missing = ownCassandraMissing();
const server = missing === null ? await CassandraServer.start({ isGuarded: true }) : null;
after(() => server?.remove());

const LOGIN = { username: 'broker', password: `${randomBytes(6).toString('hex')} "'$` };
if (server !== null) {
  const password = LOGIN.password.replaceAll("'", "''");
  await server.execute(`CREATE ROLE ${LOGIN.username} WITH PASSWORD = '${password}' AND LOGIN = true`);
  // What docs/stores.md says that it needs.
  await server.execute(`GRANT CREATE ON ALL KEYSPACES TO ${LOGIN.username}`);
  await server.execute(`GRANT SELECT ON KEYSPACE system_views TO ${LOGIN.username}`);
}

/** A test that has the server to itself; the server is up and answers when the next one begins. */
function cassandraTest(name: string, body: (server: CassandraServer, t: TestContext) => Promise<void>): void {
  test(name, { timeout: 300_000 }, async (t) => {
    if (server === null) return t.skip(missing ?? '');
    await body(server, t);
  });
}

interface Settings {
  readonly keyspace?: string;
  readonly flags?: readonly string[];
}

function brokerOptions({ keyspace = newKeyspace(), flags = [] }: Settings = {}): BrokerOptions {
  const own: Record<string, string> = {
    '--store': 'cassandra',
    '--store-timeout': '2s',
    '--cassandra-contact-points': server?.contactPoint as string,
    '--cassandra-datacenter': 'datacenter1',
    '--cassandra-keyspace': keyspace,
    '--cassandra-username': LOGIN.username,
  };
  const isGiven = (name: string): boolean => flags.includes(name);
  return {
    flags: [
      ...Object.entries(own).flatMap(([name, value]) => (isGiven(name) ? [] : [name, value])),
      ...['--shards', '2', ...flags],
    ],
    env: { BROKER_CASSANDRA_PASSWORD: LOGIN.password },
    // The tables of a new keyspace take a busy server some seconds.
    readyTimeoutMs: 60_000,
  };
}

function newKeyspace(): string {
  return `t_${randomBytes(6).toString('hex')}`;
}

async function reasonOf(call: Promise<unknown>): Promise<string | null> {
  try {
    await call;
    return null;
  } catch (error) {
    if (error instanceof CallError && error.reason !== null) return error.reason;
    throw error;
  }
}

/** How a call was refused. */
async function refusalOf(call: Promise<unknown>): Promise<CallError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof CallError) return error;
    throw error;
  }
  return assert.fail('it was not refused');
}

/** A client command of the CLI; its first line of JSON. */
function cli(address: string, ...args: string[]): Record<string, unknown> {
  const command = [LAUNCHER, ...args, '--address', address, '-o', 'json'];
  const { stdout, stderr, status } = spawnSync(process.execPath, command, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout.split('\n', 1)[0] as string) as Record<string, unknown>;
}

async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await pause(20);
}

cassandraTest(
  '[P5] over TLS and with a login: published, streamed, fetched, subscribed, consumed, expired and trimmed',
  async (cassandra) => {
    const keyspace = newKeyspace();
    const tls = ['--cassandra-tls', 'verify', '--cassandra-tls-ca', cassandra.tlsCa];
    const flags = [...tls, '--cassandra-tls-name', CASSANDRA_TLS_NAME];
    await using broker = await BrokerProcess.create(brokerOptions({ keyspace, flags }));
    await broker.restart();
    const client = new BrokerClient(broker.address);
    for (let id = 1; id <= 8; id++) {
      assert.equal(await client.publish({ subject: 'c.a', body: Buffer.from(`a${id}`) }), id);
    }
    using stream = await PublishStream.open(broker.address, 'p');
    assert.equal(stream.opened?.durability, 1);
    stream.send({ subject: 'c.b', sequence: 1, bodies: ['b1', 'b2'] }, { subject: 'c.a', sequence: 2, bodies: ['a9'] });
    assert.deepEqual(await stream.outcomes(1, 2), ['1..2', '9..9']);
    assert.equal(await client.incIdx('c.a'), 10);
    assert.equal(await reasonOf(client.fetch('c.a', 10)), 'ID_VOID');
    assert.equal(await reasonOf(client.fetch('c.a', 11)), 'ID_NOT_FOUND');
    assert.equal(cli(broker.address, 'status').durability, 'durable');

    const short = await client.publish({ subject: 'c.short', body: Buffer.from('gone'), expirationSeconds: 1 });
    await until(async () => (await reasonOf(client.fetch('c.short', short))) === 'ID_EXPIRED');
    await client.publish({ subject: 'c.long', body: Buffer.from('kept'), expirationSeconds: 3_600 });
    const lives = `SELECT TTL(bytes) AS life FROM ${keyspace}.batches WHERE subject = textAsBlob('c.long') AND bucket = 0`;
    const life = Number((await cassandra.execute(lives))[0]?.get('life'));
    assert.ok(life > 3_600 && life <= 4_201, `the row lives ${life} s: its hour and ten minutes`);

    cli(broker.address, 'subjects', 'trim', 'c.a', '--before', '6');
    const bases = `SELECT base FROM ${keyspace}.batches WHERE subject = textAsBlob('c.a') AND bucket = 0`;
    await until(async () => (await cassandra.execute(bases)).every((row) => Number(row.get('base')) >= 6));
    assert.equal(await reasonOf(client.fetch('c.a', 5)), 'ID_TRIMMED');
    client.close();

    assert.deepEqual(await broker.stop(), { code: 0, signal: null });
    await broker.restart();
    const again = new BrokerClient(broker.address);
    assert.equal((await again.fetch('c.a', 9)).body.toString(), 'a9');
    assert.equal(await reasonOf(again.fetch('c.a', 10)), 'ID_VOID');
    const seen: string[] = [];
    const subscription = again.subscribe(
      'c.a',
      { at: 'earliest' },
      { onMessage: ({ body }) => seen.push(body.toString()) },
    );
    await until(() => seen.length >= 4);
    subscription.cancel();
    assert.deepEqual(seen, ['a6', 'a7', 'a8', 'a9']);
    using consumer = await ConsumeStream.open(broker.address, [{ subject: 'c.*', earliest: true }]);
    await consumer.until(() => consumer.messages >= 7);
    assert.deepEqual(consumer.violations, []);
    assert.deepEqual(consumer.bodies.get('c.b'), ['b1', 'b2']);
    assert.deepEqual(consumer.bodies.get('c.a'), ['a6', 'a7', 'a8', 'a9']);
    assert.equal(await again.publish({ subject: 'c.a', body: Buffer.from('a11') }), 11);
    again.close();
    assert.doesNotMatch(broker.logs, new RegExp(LOGIN.password.slice(0, 12)));
  },
);

cassandraTest(
  'what cannot work is refused at the start, in one line that names the key, before the port opens',
  async (cassandra) => {
    const keyspace = newKeyspace();
    const verify = ['--cassandra-tls', 'verify'];
    const cases: readonly (readonly [string[], RegExp, number])[] = [
      [['--cassandra-datacenter', 'nowhere'], /cassandra\.datacenter: .*nowhere.*datacenter1/, 1],
      [['--cassandra-username', 'nobody'], /cassandra\.username and cassandra\.password: .*nobody/, 1],
      [['--cassandra-contact-points', '127.0.0.1:1'], /Cassandra cannot be used: 127\.0\.0\.1:1: .*ECONNREFUSED/, 1],
      [verify, /Cassandra cannot be used: .*self-signed certificate/, 1],
      [[...verify, '--cassandra-tls-ca', cassandra.tlsCa, '--cassandra-tls-name', 'other.test'], /other\.test/, 1],
      [[...verify, '--cassandra-tls-ca', '/nowhere.pem'], /cassandra\.tls_ca: ENOENT/, 1],
      [
        ['--cassandra-replication', "{'class': 'NetworkTopologyStrategy', 'dc9': 1}"],
        /Cassandra cannot be used: .*dc9/,
        1,
      ],
      [['--cassandra-consistency', 'ONE'], /cassandra\.consistency .* must be at least LOCAL_QUORUM/, 2],
    ];
    for (const [flags, line, code] of cases) {
      const options = brokerOptions({ keyspace, flags });
      await using broker = await BrokerProcess.create(options);
      broker.launch();
      const exit = await broker.exited;
      assert.deepEqual(exit, { code, signal: null }, broker.logs);
      assert.match(broker.logs.split('\n').findLast((text) => text !== '') as string, line);
    }
  },
);

cassandraTest('a keyspace, a data centre and a data directory belong together', async (cassandra) => {
  const keyspace = newKeyspace();
  const options = brokerOptions({ keyspace });
  await using broker = await BrokerProcess.create(options);
  await broker.restart();
  await broker.stop();
  await using other = await BrokerProcess.create(options);
  await assert.rejects(other.restart(), /belongs to cluster/);
  await assert.rejects(broker.restart({ flags: [] }), /keeps its messages in a database \(cassandra\)/);
  const { flags = [] } = brokerOptions({ keyspace: newKeyspace() });
  await assert.rejects(broker.restart({ flags }), /is empty, and the messages of this data directory are in another/);
  await cassandra.execute(`UPDATE ${keyspace}.birth SET settings = 'cassandra.datacenter=dc9' WHERE one = 1`);
  await assert.rejects(broker.restart(), /was written with cassandra\.datacenter=dc9/);
});

cassandraTest(
  'a copy of the data directory starts beside its original: that ends with DATA_DIRECTORY_COPIED, and is refused from then on',
  async (_, t) => copyTakesOver(t, brokerOptions({ flags: ['--log-format', 'json'] })),
);

cassandraTest(
  'another process claims the keyspace under load: the broker ends, no call hangs, and what was acknowledged is there',
  async (cassandra) => {
    const keyspace = newKeyspace();
    const claim = `UPDATE ${keyspace}.incarnation SET incarnation = 'theirs' WHERE node = 'a' IF EXISTS`;
    const flags = ['--node-id', 'a'];
    await overtakenUnderLoad(brokerOptions({ keyspace, flags }), () => cassandra.execute(claim));
  },
);

cassandraTest(
  'settings that are changed under a broker are told, in the log and by the status, and it goes on',
  async (cassandra) => {
    const keyspace = newKeyspace();
    await using broker = await BrokerProcess.create(brokerOptions({ keyspace }));
    await broker.restart();
    const client = new BrokerClient(broker.address);
    const durable = (isOn: boolean) => cassandra.execute(`ALTER KEYSPACE ${keyspace} WITH durable_writes = ${isOn}`);
    const isSaid = (word: string) => until(() => cli(broker.address, 'status').durability === word);
    await durable(false);
    await isSaid('replicated');
    await until(() => /STORE_WEAK.*durable_writes off/.test(broker.logs));
    assert.equal(await client.publish({ subject: 's', body: Buffer.from('m') }), 1);
    await durable(true);
    await isSaid('durable');
    client.close();
  },
);

cassandraTest(
  '[S13] settings that lose acknowledged messages are refused, and if accepted answers say `replicated`',
  async (cassandra) => {
    const keyspace = newKeyspace();
    await using broker = await BrokerProcess.create(brokerOptions({ keyspace }));
    await broker.restart();
    await broker.stop();
    await cassandra.execute(`ALTER KEYSPACE ${keyspace} WITH durable_writes = false`);
    await assert.rejects(broker.restart(), /STORE_WEAK.*durable_writes off/);
    const weak = ['--store-accept-weak-durability', '--cassandra-consistency', 'LOCAL_ONE'];
    await broker.restart({ flags: brokerOptions({ keyspace, flags: weak }).flags ?? [] });
    using stream = await PublishStream.open(broker.address, 'p');
    assert.equal(stream.opened?.durability, 2);
    stream.send({ subject: 's', sequence: 1, bodies: ['one'] });
    assert.deepEqual(await stream.outcomes(1), ['1..1']);
    assert.equal(cli(broker.address, 'status').durability, 'replicated');
    for (const weakness of [/durable_writes off/, /LOCAL_ONE/]) assert.match(broker.logs, weakness);
  },
);

async function startRig(t: TestContext, settings: Settings & { readonly env?: Record<string, string> } = {}) {
  const seed = Number(process.env.BROKER_TEST_SEED ?? randomInt(1, 2 ** 31));
  t.diagnostic(`seed ${seed}: repeat with BROKER_TEST_SEED=${seed}`);
  const options = brokerOptions(settings);
  return FaultRig.start({ ...options, env: { ...options.env, ...settings.env } }, seed);
}

/** Under load for a while that is never the same. */
async function load(rig: FaultRig): Promise<void> {
  const began = Date.now();
  rig.startLoad();
  await until(() => rig.load.lastAckedSentAt > began);
  await rig.loaded(randomInt(40, 150));
}

/** Acknowledged again, and for some time. */
async function loadGoesOn(rig: FaultRig): Promise<void> {
  const back = Date.now();
  await until(() => rig.load.lastAckedSentAt > back);
  await rig.loaded(20);
  await rig.load.stop();
}

cassandraTest(
  '[P3] the broker is killed with -9 under load, and stopped: nothing acknowledged is lost, nothing is there twice',
  async (_, t) => {
    await using rig = await startRig(t);
    for (let run = 0; run < 3; run++) {
      await load(rig);
      if (run < 2) await rig.broker.kill();
      else assert.deepEqual(await rig.broker.stop(), { code: 0, signal: null });
      await rig.load.stop();
      await rig.broker.restart();
    }
    await rig.assertKept(100);
  },
);

cassandraTest(
  '[W1] a shard thread dies with a write on its way to Cassandra: it is replaced, and nothing is lost',
  async (_, t) => {
    await using rig = await startRig(t, { env: { BROKER_FAILPOINTS: 'shard.before-append=throw@40' } });
    await load(rig);
    await until(() => rig.lines.some(({ message }) => message.startsWith('a shard thread died')));
    await loadGoesOn(rig);
    await rig.assertKept(50);
  },
);

cassandraTest(
  '[S13] Cassandra says nothing for longer than store.timeout: refused meanwhile, by itself back, void or stored, never both',
  async (cassandra, t) => {
    await using rig = await startRig(t);
    await load(rig);
    process.kill(cassandra.pid, 'SIGSTOP');
    try {
      await until(() => rig.load.refusals.has('UNAVAILABLE STORE_UNAVAILABLE'));
      await until(async () => (await httpStatus(rig.broker.adminAddress, '/readyz')) === 503);
    } finally {
      process.kill(cassandra.pid, 'SIGCONT');
    }
    await loadGoesOn(rig);
    assert.equal(await httpStatus(rig.broker.adminAddress, '/readyz'), 200);
    await rig.assertKept(100);
  },
);

cassandraTest(
  `[S13, R25, R27] replies are lost behind the writes, ${CUTS} times under load: producers that retry have nothing twice, and nothing is lost`,
  async (cassandra, t) => {
    const relay = await Relay.start('127.0.0.1', cassandra.port);
    t.after(() => relay.close());
    await using rig = await startRig(t, { flags: ['--cassandra-contact-points', `127.0.0.1:${relay.port}`] });
    rig.startLoad({ witness: true });
    const ackedAgain = async (): Promise<void> => {
      const since = Date.now();
      await until(() => rig.load.lastAckedSentAt > since);
    };
    for (let cut = 0; cut < CUTS; cut++) {
      await ackedAgain();
      assert.ok((await relay.dropReplies()) > 0);
      relay.breakAll();
      relay.restore();
    }
    await ackedAgain();
    await rig.load.stop();
    await rig.catchUp();
    await rig.assertKept(100);
  },
);

cassandraTest(
  'its user may no longer write: STORE_UNAVAILABLE with a delay, reads go on; allowed again all goes on, and nothing is lost',
  async (cassandra, t) => {
    const keyspace = newKeyspace();
    await using rig = await startRig(t, { keyspace });
    const client = new BrokerClient(rig.broker.address);
    assert.equal(await client.publish({ subject: 'probe', body: Buffer.from('kept') }), 1);
    await load(rig);
    const tables = await cassandra.execute(
      `SELECT table_name FROM system_schema.tables WHERE keyspace_name = '${keyspace}'`,
    );
    // Who makes a keyspace or a table is granted everything on it.
    const resources = [`KEYSPACE ${keyspace}`, ...tables.map((row) => `TABLE ${keyspace}.${row.get('table_name')}`)];
    for (const resource of resources) await cassandra.execute(`REVOKE MODIFY ON ${resource} FROM ${LOGIN.username}`);
    await until(() => rig.load.refusals.has('UNAVAILABLE STORE_UNAVAILABLE'));
    await until(async () => (await httpStatus(rig.broker.adminAddress, '/readyz')) === 503);
    const refusal = await refusalOf(client.publish({ subject: 'probe', body: Buffer.from('refused') }));
    assert.equal(refusal.reason, 'STORE_UNAVAILABLE');
    assert.ok((refusal.retryAfterMs ?? 0) > 0, 'no RetryInfo');
    assert.equal((await client.fetch('probe', 1)).body.toString(), 'kept');
    for (const resource of resources) await cassandra.execute(`GRANT MODIFY ON ${resource} TO ${LOGIN.username}`);
    await loadGoesOn(rig);
    await until(async () => (await httpStatus(rig.broker.adminAddress, '/readyz')) === 200);
    client.close();
    await rig.assertKept(100);
  },
);

cassandraTest(
  'more lookups than a connection takes: every publish is acknowledged, and the broker stays ready',
  async () => {
    await using broker = await startBroker(brokerOptions());
    await lookupStorm(broker);
  },
);

/** The last one: it leaves the server with settings that a broker refuses. */
cassandraTest(
  '[S13] Cassandra is killed with -9 under load and started again: refused meanwhile, by itself back, nothing lost',
  async (cassandra, t) => {
    await using rig = await startRig(t);
    await load(rig);
    await cassandra.stop('SIGKILL');
    await until(() => rig.load.refusals.has('UNAVAILABLE STORE_UNAVAILABLE'));
    cassandra.configure('periodic');
    await cassandra.run();
    await loadGoesOn(rig);
    await rig.assertKept(100);
    // What it may lose from now on is noticed at the next start.
    await assert.rejects(rig.broker.restart(), /STORE_WEAK.*commitlog_sync of 127\.0\.0\.1:\d+ is periodic/);
  },
);

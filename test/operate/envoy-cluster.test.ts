/** Envoy before several brokers: which of them gets a call, and what becomes of calls when one goes. Lone brokers where no cluster is needed. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Server, ServerCredentials, type sendUnaryData } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { parse } from 'yaml';
import { connect } from '../../src/client/index.ts';
import { makeStatus } from '../../src/grpc/status.ts';
import { cluster, connectionManager, ENVOY_FILES, find, httpFilter, readEnvoyFile } from '../servers/envoy.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { type Rule, type Rules, ruleOf } from '../servers/ratelimit.ts';
import { BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { Cluster } from '../support/cluster.ts';
import { ROOT } from '../support/source-tree.ts';
import { pause, until } from '../support/until.ts';
import { type Answer, Caller, startEnvoy, startEnvoyAlone } from './envoy-rig.ts';

const OK = 0;
const UNKNOWN = 2;
const UNAVAILABLE = 14;
const FILE = 'envoy/cluster.yaml';
const FLAGS = ['--shards', '1'];

async function startBrokers(t: TestContext, count: number): Promise<BrokerProcess[]> {
  const brokers: BrokerProcess[] = [];
  for (let n = 0; n < count; n += 1) {
    const broker = await startBroker({ flags: FLAGS });
    t.after(() => broker.dispose());
    brokers.push(broker);
  }
  return brokers;
}

const addressesOf = (brokers: readonly { readonly address: string }[]): string[] =>
  brokers.map(({ address }) => address);

/** Publishes one after the other until `stop`; what each was answered. */
function keepPublishing(t: TestContext, address: string): { readonly answers: Answer[]; stop(): Promise<void> } {
  const answers: Answer[] = [];
  let isOver = false;
  t.after(() => {
    isOver = true;
  });
  const caller = new Caller(t, address);
  const done = (async () => {
    while (!isOver) answers.push(await caller.publish('kept'));
  })();
  const stop = (): Promise<void> => {
    isOver = true;
    return done;
  };
  return { answers, stop };
}

const failed = (answers: readonly Answer[]): Answer[] => answers.filter(({ code }) => code !== OK);

test('streams go to brokers that have few; while one broker stops, no call fails; when one has been killed, none fails for long', async (t) => {
  const late = [await BrokerProcess.create({ flags: FLAGS }), await BrokerProcess.create({ flags: FLAGS })];
  for (const broker of late) t.after(() => broker.dispose());
  const [full] = (await startBrokers(t, 1)) as [BrokerProcess];
  const brokers = [full, ...late];
  const envoy = await startEnvoyAlone(t, { file: FILE, brokers: addressesOf(brokers) });
  if (envoy === null) return;
  await envoy.waitForHealthy(1);
  const client = new BrokerClient(envoy.address);
  t.after(() => client.close());
  const open = async (count: number): Promise<void> => {
    for (let n = 1; n <= count; n += 1) {
      let isLive = false;
      client.subscribe(`few.${n}`, { at: 'new' }, { onMessage: () => undefined, onLive: () => (isLive = true) });
      await until(
        () => isLive,
        () => `stream ${n} is not live`,
      );
    }
  };
  /** Calls and streams that are open on the first broker. */
  const active = async (): Promise<number> => {
    const lines = (await envoy.admin('/clusters')).split('\n').map((line) => line.split('::'));
    const own = lines.find(
      ([name, address, key]) => name === 'brokers' && address === full.address && key === 'rq_active',
    );
    return Number(own?.[3]);
  };
  await open(60);
  assert.equal(await active(), 60);
  await Promise.all(late.map((broker) => broker.restart()));
  await envoy.waitForHealthy(3);
  // One in nine, where both that are looked at are this one; in turn it would be one in three. Each worker of Envoy hears of the new ones by itself, so the
  // first sixty may begin too early.
  const shares: number[] = [];
  for (let batch = 0; batch < 2 && !shares.some((share) => share < 15); batch += 1) {
    const before = await active();
    await open(60);
    shares.push((await active()) - before);
  }
  assert.ok(
    shares.some((share) => share < 15),
    `${shares.join(' and ')} of 60 went where 60 were`,
  );

  const [stopped, killed] = late as [BrokerProcess, BrokerProcess];
  const load = keepPublishing(t, envoy.address);
  const grown = async (): Promise<void> => {
    const seen = load.answers.length;
    await until(
      () => load.answers.length >= seen + 20,
      () => `${load.answers.length} calls`,
    );
  };
  await grown();
  await stopped.stop();
  await envoy.waitForHealthy(2);
  await grown();
  assert.deepEqual(failed(load.answers), []);
  await load.stop();

  // Nothing is on its way when it dies: what fails after that is only connections.
  await killed.kill();
  const after = [];
  for (let n = 0; n < 20; n += 1) {
    const caller = new Caller(t, envoy.address);
    let answer = await caller.publish('kept');
    // Of two brokers the dead one has the fewest calls: until Envoy has put it aside a repeat may meet it again. It had no effect, and is made again.
    for (let tries = 0; tries < 5 && answer.code === UNAVAILABLE; tries += 1) {
      await pause(100);
      answer = await caller.publish('kept');
    }
    after.push(answer);
  }
  const problems = failed(after);
  // Which brokers Envoy thought well of.
  const hosts = problems.length === 0 ? '' : await envoy.admin('/clusters');
  assert.deepEqual(problems, [], `${JSON.stringify(problems)}\n${hosts}`);
  await envoy.waitForHealthy(1);
});

test('while the only broker is away a call is refused at once and had no effect; when it is back calls go to it again', async (t) => {
  const [broker] = (await startBrokers(t, 1)) as [BrokerProcess];
  const envoy = await startEnvoy(t, { file: 'envoy/one-node.yaml', brokers: [broker.address] });
  if (envoy === null) return;
  await envoy.waitForHealthy(1);
  await broker.stop();
  await envoy.waitForHealthy(0);
  const seen = await envoy.stat('cluster.brokers.upstream_rq_total');
  const caller = new Caller(t, envoy.address);
  const refused = await caller.publish('drained');
  assert.deepEqual([refused.code, refused.details], [UNAVAILABLE, 'no healthy upstream']);
  assert.equal(await envoy.stat('cluster.brokers.upstream_rq_total'), seen);
  await broker.restart();
  await envoy.waitForHealthy(1);
  assert.equal((await caller.publish('drained')).id, 1);
});

test('a call that a broker may have begun ends as UNKNOWN, not as UNAVAILABLE, when the broker dies', async (t) => {
  const [broker] = (await startBrokers(t, 1)) as [BrokerProcess];
  const envoy = await startEnvoy(t, { file: 'envoy/one-node.yaml', brokers: [broker.address] });
  if (envoy === null) return;
  const caller = new Caller(t, envoy.address);
  assert.equal((await caller.publish('begun')).id, 1);
  process.kill(broker.pid, 'SIGSTOP');
  const pending = caller.publish('begun');
  await envoy.waitForStat('cluster.brokers.upstream_rq_active', (count) => count === 1);
  await broker.kill();
  assert.equal((await pending).code, UNKNOWN);
  assert.equal(await envoy.stat('cluster.brokers.upstream_rq_retry'), 0);
});

/** Says that it serves, and refuses everything. */
async function startBadBroker(t: TestContext): Promise<{ readonly address: string; calls: number }> {
  const server = new Server();
  new HealthImplementation({ '': 'SERVING', 'broker.Broker': 'SERVING' }).addToServer(server);
  const raw = (bytes: Buffer): Buffer => bytes;
  const codec = { requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw };
  const Publish = { path: '/broker.Broker/Publish', requestStream: false, responseStream: false, ...codec };
  const bad = { address: '', calls: 0 };
  server.addService(
    { Publish },
    {
      Publish: (_: unknown, done: sendUnaryData<Buffer>) => {
        bad.calls += 1;
        done(makeStatus('SHUTTING_DOWN', ''), null);
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  t.after(() => server.forceShutdown());
  bad.address = `127.0.0.1:${port}`;
  return bad;
}

test('a broker that seems healthy and refuses is left out for a while, and callers do not notice', async (t) => {
  const good = await startBrokers(t, 2);
  const bad = await startBadBroker(t);
  const envoy = await startEnvoy(t, { file: FILE, brokers: [...addressesOf(good), bad.address] });
  if (envoy === null) return;
  const caller = new Caller(t, envoy.address);
  const answers: Answer[] = [];
  await until(
    async () => {
      answers.push(await caller.publish('left-out'));
      return (await envoy.stat('cluster.brokers.outlier_detection.ejections_active')) === 1;
    },
    () => `not left out after ${bad.calls} refusals`,
  );
  assert.ok(bad.calls >= 10, `${bad.calls} refusals`);
  // The thread that has the connection hears of it a little later.
  await until(
    async () => {
      const before = bad.calls;
      for (let n = 0; n < 20; n += 1) answers.push(await caller.publish('left-out'));
      return bad.calls === before;
    },
    () => 'it is asked all the same',
  );
  assert.deepEqual(failed(answers), []);
});

test('three nodes of one cluster behind Envoy are one broker: ids, a publisher, a subscription, a node that is killed', async (t) => {
  const postgres = await PostgresServer.start();
  t.after(() => postgres.remove());
  await using nodes = await Cluster.start({ nodes: 3, storeFlags: postgres.brokerFlags() });
  const envoy = await startEnvoy(t, { file: FILE, brokers: addressesOf(nodes.nodes) });
  if (envoy === null) return;
  await using client = connect(envoy.address, { timeoutMs: 60_000 });
  const ids = [];
  for (let n = 0; n < 9; n += 1) ids.push(await client.publish('one', `${n}`));
  assert.deepEqual(ids, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  await using subscription = client.subscribe('one', { start: 'earliest' });
  await subscription.started;
  await using publisher = client.publisher();
  const sent = Array.from({ length: 300 }, (_, n) => publisher.publish('one', `${n + 9}`));
  await sent[0];
  await nodes.nodes[2]?.kill();
  for (let n = 300; n < 400; n += 1) sent.push(publisher.publish('one', `${n + 9}`));
  await Promise.all(sent);
  let expected = 0;
  let last = 0;
  for await (const { id, text } of subscription) {
    assert.ok(id > last, 'ids rise');
    last = id;
    assert.equal(text, `${expected}`);
    if (++expected === 409) break;
  }
});

/** Every method of the services that brokers have. */
function methods(): string[] {
  const files = [
    'broker.proto',
    ...['producer', 'consumer', 'admin', 'cluster', 'peer'].map((it) => `broker/v1/${it}.proto`),
  ];
  return files.flatMap((file) => {
    const text = readFileSync(join(ROOT, 'proto', file), 'utf8');
    const [, name] = /^package ([\w.]+);/m.exec(text) ?? [];
    const [, service] = /^service (\w+) /m.exec(text) ?? [];
    return [...text.matchAll(/^ {2}rpc (\w+)/gm)].map(([, method]) => `/${name}.${service}/${method}`);
  });
}

const PUBLIC = /^\/broker\.(Broker|v1\.Producer|v1\.Consumer)\//;

for (const file of ENVOY_FILES) {
  test(`${file}: what programs call has a route and a bucket of its own, and no other method of a broker has`, () => {
    const config = readEnvoyFile(file);
    const { routes } = find(connectionManager(config), 'route_config', 'virtual_hosts', 0) as unknown as {
      routes: { match: { safe_regex?: { regex: string } } }[];
    };
    const patterns = routes
      .flatMap(({ match }) => match.safe_regex?.regex ?? [])
      .map((it) => new RegExp(`^(?:${it})$`));
    const routed = methods().filter((path) => patterns.some((pattern) => pattern.test(path)));
    const open = methods().filter((path) => PUBLIC.test(path));
    assert.ok(open.length >= 7, 'nothing was compared');
    assert.deepEqual(routed.sort(), [...open, '/broker.v1.Admin/SubjectInfo'].sort());
    const { descriptors } = httpFilter(config, 'limit.method') as unknown as {
      descriptors: { entries: { value: string }[] }[];
    };
    assert.deepEqual(descriptors.map(({ entries }) => entries[0]?.value).sort(), open.sort());
    assert.equal(
      find(cluster(config, 'brokers'), 'health_checks', 0, 'grpc_health_check').service_name,
      'broker.Broker',
    );
  });
}

test('the rules of the rate-limit service leave no tenant, method or prefix without a limit', () => {
  const rules = parse(readFileSync(join(ROOT, 'envoy/ratelimit/broker.yaml'), 'utf8')) as Rules;
  const filter = httpFilter(readEnvoyFile(FILE), 'limit.global');
  assert.equal(rules.domain, filter.domain);
  const named = rules.descriptors.flatMap(({ key, value }: Rule) =>
    key === 'tenant' && value !== undefined ? [value] : [],
  );
  const paths = methods().filter((path) => PUBLIC.test(path));
  for (const tenant of [...named, 'of no line']) {
    const own = { key: 'tenant', value: tenant };
    const descriptors = [
      [own],
      ...paths.map((value) => [own, { key: 'method', value }]),
      [own, { key: 'subject_prefix', value: 'orders.' }],
    ];
    for (const entries of descriptors) {
      // One that has a line is not looked up among those without a value: a part that is left out is no limit.
      assert.ok(ruleOf(rules.descriptors, entries)?.rate_limit !== undefined, JSON.stringify(entries));
    }
  }
});

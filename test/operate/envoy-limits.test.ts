/** What the files of envoy/ let pass and what they refuse: a real Envoy before a real broker. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { parse } from 'yaml';
import { connect } from '../../src/client/index.ts';
import { cluster, ENVOY_FILES, httpFilter, type Node, requireEnvoy } from '../servers/envoy.ts';
import { type Rules, startRateLimit } from '../servers/ratelimit.ts';
import { makeDataDirectory, startBroker } from '../support/broker.ts';
import { ROOT } from '../support/source-tree.ts';
import { until } from '../support/until.ts';
import { encodeIncIdx } from '../support/wire.ts';
import { type Answer, Caller, setMethodBuckets, startEnvoy, tokens } from './envoy-rig.ts';

const OK = 0;
const RESOURCE_EXHAUSTED = 8;
const PUBLISH = '/broker.Broker/Publish';
const INC_IDX = '/broker.Broker/IncIdx';
const codes = (answers: readonly Answer[]): number[] => answers.map(({ code }) => code);

const broker = await startBroker();
after(() => broker.dispose());

for (const file of ENVOY_FILES) {
  test(`Envoy takes ${file} as it is, and finds nothing in it that is going away`, (t) => {
    const program = requireEnvoy(t);
    if (program === null) return;
    const args = ['--mode', 'validate', '--log-level', 'warning', '-c', join(ROOT, file)];
    const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    assert.equal(`${stdout}${stderr}`.trim(), `configuration '${join(ROOT, file)}' OK`);
  });
}

test('[P10] Envoy refuses the 11th request of 10 per second', async (t) => {
  const envoy = await startEnvoy(t, {
    file: 'envoy/one-node.yaml',
    brokers: [broker.address],
    change: (config) =>
      setMethodBuckets(config, { [PUBLISH]: { max_tokens: 10, tokens_per_fill: 10, fill_interval: '1s' } }),
  });
  if (envoy === null) return;
  const caller = new Caller(t, envoy.address);
  const begun = performance.now();
  const answers = await Promise.all(Array.from({ length: 60 }, () => caller.publish('ten')));
  const seconds = (performance.now() - begun) / 1_000;
  const passed = answers.filter(({ code }) => code === OK).length;
  // The bucket is filled all the time: what came in while the calls were on their way passes too.
  assert.ok(passed >= 10 && passed <= 10 + Math.ceil(10 * seconds), `${passed} passed in ${seconds} s`);
  const refused = answers.filter(({ code }) => code === RESOURCE_EXHAUSTED);
  assert.equal(refused.length, answers.length - passed);
  for (const { headers } of refused) assert.equal(headers['retry-after'], '1');
});

test('the N+1st call of a method is refused: status, headers, delay; it does not reach the broker, nor touch other methods', async (t) => {
  const fill = { max_tokens: 3, tokens_per_fill: 1, fill_interval: '7200s' };
  const envoy = await startEnvoy(t, {
    file: 'envoy/one-node.yaml',
    brokers: [broker.address],
    change: (config) => setMethodBuckets(config, { [PUBLISH]: fill, [INC_IDX]: tokens(3) }),
  });
  if (envoy === null) return;
  const caller = new Caller(t, envoy.address);
  const passed = [];
  for (let n = 1; n <= 3; n += 1) passed.push(await caller.publish('n'));
  assert.deepEqual(
    passed.map(({ id, headers }) => [
      id,
      headers['x-ratelimit-limit'],
      headers['x-ratelimit-remaining']?.split(', ')[0],
    ]),
    [
      [1, '3, 10000', '2'],
      [2, '3, 10000', '1'],
      [3, '3, 10000', '0'],
    ],
  );
  const refused = await caller.publish('n');
  assert.deepEqual([refused.code, refused.details], [RESOURCE_EXHAUSTED, 'local_rate_limited']);
  const { 'retry-after': after = '', 'x-ratelimit-remaining': remaining = '', ...rest } = refused.headers;
  assert.ok(Number(after) > 3_600 && Number(after) <= 7_200, after);
  assert.equal(rest['grpc-retry-pushback-ms'], `${after}000`);
  assert.equal(rest['x-ratelimit-reset']?.split(', ')[0], after);
  assert.equal(remaining.split(', ')[0], '0');
  // The next id is the one that the refused call did not take.
  assert.equal((await caller.call(INC_IDX, encodeIncIdx('n'))).id, 4);
  assert.equal(await envoy.stat('method.http_local_rate_limit.rate_limited'), 1);
});

test('the N+1st call of a connection is refused, and another connection has a bucket of its own', async (t) => {
  const envoy = await startEnvoy(t, {
    file: 'envoy/one-node.yaml',
    brokers: [broker.address],
    change: (config) => {
      httpFilter(config, 'limit.connection').token_bucket = tokens(2);
    },
  });
  if (envoy === null) return;
  const [greedy, other] = [new Caller(t, envoy.address), new Caller(t, envoy.address)];
  assert.deepEqual(codes([await greedy.publish('c'), await greedy.publish('c')]), [OK, OK]);
  const refused = await greedy.publish('c');
  assert.deepEqual([refused.code, refused.details], [RESOURCE_EXHAUSTED, 'local_rate_limited']);
  assert.ok(Number(refused.headers['retry-after']) > 3_600, refused.headers['retry-after']);
  assert.deepEqual(codes([await other.publish('c'), await other.publish('c')]), [OK, OK]);
});

test('a limit can be made to count only, and be switched off, while Envoy runs', async (t) => {
  const envoy = await startEnvoy(t, {
    file: 'envoy/one-node.yaml',
    brokers: [broker.address],
    change: (config) => setMethodBuckets(config, { [PUBLISH]: tokens(1) }),
  });
  if (envoy === null) return;
  const caller = new Caller(t, envoy.address);
  assert.deepEqual(codes([await caller.publish('r'), await caller.publish('r')]), [OK, RESOURCE_EXHAUSTED]);
  const counted = 'method.http_local_rate_limit.rate_limited';
  await envoy.admin('/runtime_modify?limit.method.enforced=0', 'POST');
  await until(
    async () => (await caller.publish('r')).code === OK,
    () => 'still enforced',
  );
  const before = await envoy.stat(counted);
  await caller.publish('r');
  assert.equal(await envoy.stat(counted), before + 1);
  await envoy.admin('/runtime_modify?limit.method.enabled=0', 'POST');
  await until(
    async () => {
      const seen = await envoy.stat(counted);
      await caller.publish('r');
      return (await envoy.stat(counted)) === seen;
    },
    () => 'still counted',
  );
});

const day = (requests_per_unit: number) => ({ unit: 'day', requests_per_unit }) as const;
/** Small limits in the shape of the file: calls of a day, so that nothing depends on the clock. */
const RULES: Rules = {
  domain: 'broker',
  descriptors: [
    {
      key: 'tenant',
      rate_limit: day(6),
      descriptors: [
        { key: 'method', rate_limit: day(5) },
        { key: 'subject_prefix', rate_limit: day(3) },
      ],
    },
    {
      key: 'tenant',
      value: 'honest',
      rate_limit: day(1_000),
      descriptors: [{ key: 'method', rate_limit: day(1_000) }],
    },
    { key: 'tenant', value: 'default', rate_limit: day(2) },
    { key: 'tenant', value: 'two-a-second', rate_limit: { unit: 'second', requests_per_unit: 2 } },
  ],
};

/** One service for the whole file; each test has tenants of its own. */
const serviceFolder = makeDataDirectory('ratelimit-');
const service = await startRateLimit(RULES, serviceFolder);
after(async () => {
  await service.stop();
  rmSync(serviceFolder, { recursive: true });
});

async function startLimited(t: Parameters<typeof startEnvoy>[0], change: (config: Node) => void = () => undefined) {
  return await startEnvoy(t, {
    file: 'envoy/one-node.yaml',
    brokers: [broker.address],
    ratelimit: service.address,
    change: (config) => {
      // Calls and service may share a thread here: how long it takes is not what is tested.
      httpFilter(config, 'limit.global').timeout = '20s';
      change(config);
    },
  });
}

test('a greedy tenant is refused with the delay of the service, and an honest one beside it is untouched', async (t) => {
  const envoy = await startLimited(t);
  if (envoy === null) return;
  const caller = new Caller(t, envoy.address);
  const greedy: Answer[] = [];
  const honest: Answer[] = [];
  for (let n = 0; n < 10; n += 1) {
    const both = [caller.publish('g', { 'x-tenant': 'greedy' }), caller.publish('h', { 'x-tenant': 'honest' })];
    const [one, two] = (await Promise.all(both)) as [Answer, Answer];
    greedy.push(one);
    honest.push(two);
  }
  assert.deepEqual(codes(honest), Array(10).fill(OK));
  assert.deepEqual(codes(greedy), [...Array(5).fill(OK), ...Array(5).fill(RESOURCE_EXHAUSTED)]);
  const last = greedy.at(-1)?.headers ?? {};
  assert.equal(last['x-envoy-ratelimited'], 'true');
  const delay = Number(last['retry-after']);
  assert.ok(delay >= 1 && delay <= 86_400, String(delay));
  assert.equal(last['grpc-retry-pushback-ms'], `${delay}000`);
  assert.equal(last['x-ratelimit-remaining']?.split(', ')[0], '0');
  assert.match(last['x-ratelimit-limit'] ?? '', /;w=86400/);
  assert.equal(await envoy.stat('cluster.brokers.ratelimit.global.over_limit'), 5);
});

test('tenants are counted each by itself, by method and by prefix of subject; who does not say a name is `default`', async (t) => {
  const envoy = await startLimited(t);
  if (envoy === null) return;
  const caller = new Caller(t, envoy.address);
  const of = async (count: number, metadata: Record<string, string>, path = PUBLISH): Promise<number[]> => {
    const request = (): Promise<Answer> =>
      path === PUBLISH ? caller.publish('t', metadata) : caller.call(path, encodeIncIdx('t'), metadata);
    const answers = [];
    for (let n = 0; n < count; n += 1) answers.push(await request());
    return codes(answers);
  };
  const prefixed = { 'x-tenant': 'prefixed', 'x-subject-prefix': 'orders.' };
  assert.deepEqual(await of(4, prefixed), [OK, OK, OK, RESOURCE_EXHAUSTED]);
  assert.deepEqual(await of(1, { ...prefixed, 'x-subject-prefix': 'other.' }), [OK]);
  assert.deepEqual(await of(6, { 'x-tenant': 'by-method' }), [OK, OK, OK, OK, OK, RESOURCE_EXHAUSTED]);
  assert.deepEqual(await of(1, { 'x-tenant': 'by-method' }, INC_IDX), [RESOURCE_EXHAUSTED], '6 of the tenant are over');
  assert.deepEqual(await of(1, { 'x-tenant': 'fresh' }, INC_IDX), [OK]);
  assert.deepEqual(await of(1, {}), [OK]);
  assert.deepEqual(await of(1, { 'x-tenant': '' }), [OK]);
  for (const name of ['', 'a b', 'x'.repeat(65), 'one,two']) {
    assert.deepEqual(await of(1, { 'x-tenant': name }), [RESOURCE_EXHAUSTED], `"${name}" is default`);
  }
});

test('a client that is not in a trusted network does not choose its tenant', async (t) => {
  const envoy = await startLimited(t, (config) => {
    const [from] = trustRules(config);
    from.cidr_ranges = [{ address_prefix: '192.0.2.0', prefix_len: 24 }];
  });
  if (envoy === null) return;
  const caller = new Caller(t, envoy.address);
  const answers = [];
  for (let n = 0; n < 4; n += 1) {
    answers.push(await caller.publish('u', { 'x-tenant': 'honest', 'x-forwarded-for': '192.0.2.7' }));
  }
  // What is left of `default` is at most two, whatever the tests before have used.
  assert.deepEqual(codes(answers).slice(2), [RESOURCE_EXHAUSTED, RESOURCE_EXHAUSTED]);
});

function trustRules(config: Node): [Node] {
  const filter = httpFilter(config, 'tenant.untrusted') as { xds_matcher: Node };
  const text = JSON.stringify(filter.xds_matcher);
  assert.ok(text.includes('cidr_ranges'));
  const seek = (value: unknown): Node | null => {
    if (typeof value !== 'object' || value === null) return null;
    if (Object.hasOwn(value, 'cidr_ranges')) return value as Node;
    return (
      Object.values(value)
        .map(seek)
        .find((found) => found !== null) ?? null
    );
  };
  return [seek(filter.xds_matcher) as Node];
}

test('without the rate-limit service calls pass, and a counter says so; the local limits hold all the same', async (t) => {
  const envoy = await startEnvoy(t, {
    file: 'envoy/one-node.yaml',
    brokers: [broker.address],
    change: (config) => setMethodBuckets(config, { [PUBLISH]: tokens(4) }),
  });
  if (envoy === null) return;
  const caller = new Caller(t, envoy.address);
  const answers = [];
  for (let n = 0; n < 5; n += 1) answers.push(await caller.publish('w', { 'x-tenant': 'greedy' }));
  assert.deepEqual(codes(answers), [OK, OK, OK, OK, RESOURCE_EXHAUSTED]);
  assert.equal(await envoy.stat('cluster.brokers.ratelimit.global.failure_mode_allowed'), 4);
});

test('the client waits as long as Envoy says, and then succeeds: calls, publishers, subscriptions', async (t) => {
  const second = { max_tokens: 1, tokens_per_fill: 1, fill_interval: '1s' };
  const envoy = await startEnvoy(t, {
    file: 'envoy/one-node.yaml',
    brokers: [broker.address],
    change: (config) =>
      setMethodBuckets(config, {
        [PUBLISH]: second,
        '/broker.v1.Producer/PublishStream': second,
        '/broker.v1.Consumer/Consume': second,
      }),
  });
  if (envoy === null) return;
  const client = connect(envoy.address, { timeoutMs: 60_000 });
  t.after(() => client.close());
  const ids = await Promise.all(Array.from({ length: 3 }, () => client.publish('wait', 'm')));
  assert.deepEqual(ids.sort(), [1, 2, 3]);
  // Each waits a second for the next token: with its own backoff alone (50 ms, doubling) it would have asked much more often, or given up.
  assert.ok(client.stats.attempts <= 3 + 2 + 1 + 2, `${client.stats.attempts} attempts`);
  for (let n = 0; n < 2; n += 1) {
    await using publisher = client.publisher();
    assert.ok((await publisher.publish('wait', 'p')) > 3);
  }
  for (let n = 0; n < 2; n += 1) {
    await using subscription = client.subscribe('wait', { start: 'earliest' });
    for await (const { id } of subscription) {
      assert.equal(id, 1);
      break;
    }
  }
  assert.ok((await envoy.stat('method.http_local_rate_limit.rate_limited')) >= 4);
});

test('a long stream through Envoy is metered by the broker, message by message, and stays; an honest tenant is untouched', async (t) => {
  const [perSecond, messages] = [300, 900];
  const metered = await startBroker({ flags: ['--quotas-rules', `greedy=${perSecond}msg/s;honest=unlimited`] });
  t.after(() => metered.dispose());
  const envoy = await startEnvoy(t, { file: 'envoy/one-node.yaml', brokers: [metered.address] });
  if (envoy === null) return;
  const begun = performance.now();
  const publishAll = async (tenant: string): Promise<number> => {
    await using client = connect(envoy.address, { tenant });
    await using publisher = client.publisher();
    // Batches far below a second's worth: a larger one is let through as a whole, and paid off later.
    for (let at = 0; at < messages; at += 100) {
      const sent = Array.from({ length: 100 }, (_, n) => publisher.publish(`of.${tenant}`, `${n}`));
      assert.equal((await Promise.all(sent)).at(-1), at + 100);
    }
    return performance.now() - begun;
  };
  const [greedyMs, honestMs] = await Promise.all([publishAll('greedy'), publishAll('honest')]);
  // What is above a second's worth, which a quiet tenant may send at once, takes its time.
  const leastMs = ((messages - perSecond) / perSecond) * 1_000;
  assert.ok(greedyMs >= leastMs * 0.95, `greedy: ${greedyMs} ms, at least ${leastMs}`);
  assert.ok(honestMs < greedyMs, `honest ${honestMs} ms, greedy ${greedyMs} ms`);
  await using direct = connect(metered.address);
  const { tenants } = await direct.tenants();
  assert.deepEqual(
    tenants.filter(({ tenant }) => tenant === 'honest').map(({ refused, shrunk }) => [refused, shrunk]),
    [[0, 0]],
  );
  // Envoy has counted two calls: one stream of each, none of which was cut and opened again.
  assert.equal(await envoy.stat('method.http_local_rate_limit.enabled'), 2);
});

test('a listener takes so many connections and no more', async (t) => {
  const envoy = await startEnvoy(t, {
    file: 'envoy/one-node.yaml',
    brokers: [broker.address],
    change: (config) => {
      const [layer] = (config.layered_runtime as { layers: { static_layer: Node }[] }).layers;
      const key = 'envoy.resource_limits.listener.grpc.connection_limit';
      assert.ok(layer !== undefined && Object.hasOwn(layer.static_layer, key));
      layer.static_layer[key] = 2;
    },
  });
  if (envoy === null) return;
  const callers = [new Caller(t, envoy.address), new Caller(t, envoy.address)];
  for (const caller of callers) assert.equal((await caller.publish('l')).code, OK);
  assert.equal((await new Caller(t, envoy.address).publish('l')).code, 14, 'UNAVAILABLE: nobody takes the connection');
  for (const caller of callers) assert.equal((await caller.publish('l')).code, OK);
  const [overflow] = [...(await envoy.stats(/^listener\..*\.downstream_cx_overflow$/)).values()].filter(
    (count) => count > 0,
  );
  assert.ok((overflow ?? 0) >= 1);
});

test('one-node.yaml and cluster.yaml limit the same in the same way', () => {
  const [one, many] = ENVOY_FILES.map((file) => parse(readFileSync(join(ROOT, file), 'utf8')) as Node) as [Node, Node];
  for (const config of [one, many]) {
    const brokers = cluster(config, 'brokers');
    for (const key of ['load_assignment', 'lb_policy', 'outlier_detection']) delete brokers[key];
    delete cluster(config, 'ratelimit').load_assignment;
    const drop = (value: unknown): void => {
      if (typeof value !== 'object' || value === null) return;
      for (const key of ['retry_host_predicate', 'host_selection_retry_max_attempts']) delete (value as Node)[key];
      for (const inner of Object.values(value)) drop(inner);
    };
    drop(config);
  }
  assert.deepEqual(one, many);
});

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { defaultConfig } from '../../src/config/load.ts';
import { backoffMs, KubernetesDiscovery, type KubernetesOptions } from '../../src/discovery/kubernetes.ts';
import { BODY_BYTES_MAX, LINE_BYTES_MAX } from '../../src/discovery/kubernetes-api.ts';
import { openDiscovery } from '../../src/discovery/open-discovery.ts';
import type { Discovery } from '../../src/discovery/types.ts';
import { type Asked, KubernetesServer, refuse, slice } from '../servers/kubernetes.ts';
import { freePorts } from '../support/ports.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';
import { Heard } from './discovery-rig.ts';

async function server(t: TestContext): Promise<KubernetesServer> {
  const started = await KubernetesServer.start(temporaryFolder(t));
  t.after(() => started.close());
  return started;
}

interface Watching {
  readonly heard: Heard;
  readonly discovery: Discovery;
}

function discover(
  t: TestContext,
  api: Pick<KubernetesServer, 'configFile'>,
  options: Partial<KubernetesOptions> = {},
): Watching {
  const heard = new Heard();
  const discovery = new KubernetesDiscovery(
    {
      service: 'brokers',
      namespace: 'mq',
      portName: 'gossip',
      configFile: api.configFile,
      random: () => 0,
      graceMs: 10,
      backoffMs: 10,
      ...options,
    },
    heard,
  );
  t.after(() => discovery.stop());
  discovery.start();
  return { heard, discovery };
}

const watched = (api: KubernetesServer): Promise<void> =>
  until(
    () => api.watchers === 1,
    () => `${api.watchers} watch, asked ${JSON.stringify(api.asked)}`,
  );
const asked = (api: KubernetesServer, kind: Asked['kind']): Asked[] => api.asked.filter((one) => one.kind === kind);

test('slices of the service are listed, then watched: what comes, changes and goes is seen, ready or not, of both families', async (t) => {
  const api = await server(t);
  api.put(slice('brokers-a', ['10.0.0.1']));
  api.put(
    slice('others', ['10.9.9.9'], { metadata: { name: 'others', labels: { 'kubernetes.io/service-name': 'others' } } }),
  );
  const { heard } = discover(t, api);
  await heard.hasSeeds('10.0.0.1:7946');
  await watched(api);
  api.put(slice('brokers-b', ['fd00::1'], { addressType: 'IPv6' }));
  await heard.hasSeeds('10.0.0.1:7946,[fd00::1]:7946');
  api.put(slice('brokers-a', ['10.0.0.1', '10.0.0.2'], { ports: [{ name: 'gossip', port: 7000 }] }));
  await heard.hasSeeds('10.0.0.1:7000,10.0.0.2:7000,[fd00::1]:7946');
  api.remove('brokers-a');
  await heard.hasSeeds('[fd00::1]:7946');
  assert.deepEqual(heard.problems, []);
  assert.equal(api.asked.length, 2);
  const [list, watch] = api.asked;
  assert.equal(list?.namespace, 'mq');
  assert.equal(list?.query.labelSelector, 'kubernetes.io/service-name=brokers');
  assert.deepEqual(watch?.query, {
    labelSelector: 'kubernetes.io/service-name=brokers',
    watch: 'true',
    allowWatchBookmarks: 'true',
    resourceVersion: '102',
    timeoutSeconds: '240',
  });
});

test('a list of many slices is read page by page', async (t) => {
  const api = await server(t);
  const hosts = Array.from({ length: 45 }, (_, index) => `10.0.0.${index}`);
  for (const host of hosts) api.put(slice(`brokers-${host}`, [host]));
  const { heard } = discover(t, api);
  await heard.hasSeeds(
    hosts
      .map((host) => `${host}:7946`)
      .toSorted()
      .join(),
  );
  assert.deepEqual(
    asked(api, 'list').map(({ query }) => query.continue),
    [undefined, '20', '40'],
  );
});

test('a service without addresses is a problem after some time; when they go, the last ones stay', async (t) => {
  const api = await server(t);
  const { heard } = discover(t, api);
  await heard.hasProblem(/^discovery kubernetes: service mq\/brokers has no addresses: does it exist, /);
  api.put(slice('brokers-a', ['10.0.0.1']));
  await heard.hasSeeds('10.0.0.1:7946');
  api.put(slice('brokers-a', [], { endpoints: null, ports: null }));
  await until(
    () => heard.problems.length === 2,
    () => heard.problems,
  );
  assert.equal(heard.seeds.length, 1);
});

test('in a pod: token, namespace and authority are those of the service account, and a token that is replaced is read anew', async (t) => {
  const api = await server(t);
  api.put(slice('brokers-a', ['10.0.0.1']));
  process.env.KUBERNETES_SERVICE_HOST = '127.0.0.1';
  process.env.KUBERNETES_SERVICE_PORT = String(api.port);
  t.after(() => {
    delete process.env.KUBERNETES_SERVICE_HOST;
    delete process.env.KUBERNETES_SERVICE_PORT;
  });
  const { heard } = discover(t, api, { configFile: null, namespace: null, root: api.root });
  await heard.hasSeeds('10.0.0.1:7946');
  await watched(api);
  assert.deepEqual(
    api.asked.map(({ namespace, authorization }) => [namespace, authorization]),
    [
      ['mq', 'Bearer secret-1'],
      ['mq', 'Bearer secret-1'],
    ],
  );
  // The client reads the file again after a minute.
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 61_000 });
  api.token = 'secret-2';
  writeFileSync(join(api.root, 'var/run/secrets/kubernetes.io/serviceaccount/token'), 'secret-2');
  api.endWatches();
  await until(
    () => asked(api, 'watch').at(-1)?.authorization === 'Bearer secret-2',
    () => api.asked,
  );
  assert.deepEqual(heard.problems, []);
});

test('outside of a pod, without a kubeconfig: that is said', async (t) => {
  const { heard } = discover(t, { configFile: '' }, { configFile: null });
  await heard.hasProblem(
    /^discovery kubernetes: this is no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set$/,
  );
});

test('a namespace that is not given is that of the context', async (t) => {
  const api = await server(t);
  discover(t, api, { namespace: null });
  await watched(api);
  assert.equal(api.asked[0]?.namespace, 'from-context');
});

test('a kubeconfig that is missing, or names no server, is a problem, and is looked for again', async (t) => {
  const api = await server(t);
  api.put(slice('brokers-a', ['10.0.0.1']));
  const configFile = join(temporaryFolder(t), 'kubeconfig');
  const { heard } = discover(t, { configFile });
  await heard.hasProblem(/^discovery kubernetes: cannot read .*kubeconfig: ENOENT/);
  writeFileSync(configFile, 'apiVersion: v1\nkind: Config\nclusters: []\n');
  await heard.hasProblem(/kubeconfig has no current context with a server$/);
  writeFileSync(configFile, '}{');
  await heard.hasProblem(/cannot read .*kubeconfig: /);
});

test('a server that another authority vouches for is not believed', async (t) => {
  const [api, other] = [await server(t), await server(t)];
  const configFile = join(temporaryFolder(t), 'kubeconfig');
  const text = readFileSync(api.configFile, 'utf8');
  writeFileSync(configFile, text.replace(`:${api.port}`, `:${other.port}`));
  const { heard } = discover(t, { configFile });
  await heard.hasProblem(/^discovery kubernetes: cannot list endpointslices: .*(certificate|self-signed|verify)/i);
  assert.equal(other.asked.length, 0);
});

test('nobody at the address is a problem, and looked for again', async (t) => {
  const api = await server(t);
  const [port = 0] = await freePorts(1);
  const configFile = join(temporaryFolder(t), 'kubeconfig');
  const text = readFileSync(api.configFile, 'utf8');
  writeFileSync(configFile, text.replace(`:${api.port}`, `:${port}`));
  const { heard } = discover(t, { configFile });
  await heard.hasProblem(/^discovery kubernetes: cannot list endpointslices: connect ECONNREFUSED /);
});

for (const kind of ['list', 'watch'] as const) {
  test(`403 for ${kind}: the problem names the verbs and the resource that the Role needs, once`, async (t) => {
    const api = await server(t);
    api.put(slice('brokers-a', ['10.0.0.1']));
    api.faults.set(kind, (_, response) => refuse(response, 403, 'endpointslices is forbidden: User "x" cannot'));
    const { heard } = discover(t, api);
    await heard.hasProblem(
      new RegExp(
        `^discovery kubernetes: may not ${kind}: the Role of this account in mq needs the verbs list and watch on endpointslices of discovery\\.k8s\\.io \\(endpointslices is forbidden: User "x" cannot\\)$`,
      ),
    );
    const before = api.asked.length;
    await until(
      () => api.asked.length > before + 6,
      () => api.asked.length,
    );
    assert.equal(heard.problems.length, 1);
    assert.equal(heard.last, kind === 'watch' ? '10.0.0.1:7946' : '');
    api.faults.clear();
    await watched(api);
    await heard.hasSeeds('10.0.0.1:7946');
  });
}

test('a token that is not taken is a problem without the token in it', async (t) => {
  const api = await server(t);
  api.token = 'another';
  const { heard } = discover(t, api);
  await heard.hasProblem(/^discovery kubernetes: the token is not taken, or no longer \(Unauthorized\)$/);
  assert.doesNotMatch(heard.problems.join(), /secret/);
});

test('a version that is too old to watch from (410) means a new list, and is no problem', async (t) => {
  const api = await server(t);
  api.put(slice('brokers-a', ['10.0.0.1']));
  const { heard } = discover(t, api);
  await watched(api);
  await api.silently(() => api.put(slice('brokers-b', ['10.0.0.2'])));
  api.send(
    `${JSON.stringify({ type: 'ERROR', object: { kind: 'Status', code: 410, message: 'too old resource version' } })}\n`,
  );
  await heard.hasSeeds('10.0.0.1:7946,10.0.0.2:7946');
  await watched(api);
  // As an answer to the request itself.
  await api.silently(() => api.put(slice('brokers-c', ['10.0.0.3'])));
  api.faults.set('watch', (_, response) => {
    api.faults.clear();
    refuse(response, 410, 'too old resource version');
  });
  api.endWatches();
  await heard.hasSeeds('10.0.0.1:7946,10.0.0.2:7946,10.0.0.3:7946');
  assert.equal(asked(api, 'list').length, 3);
  assert.deepEqual(heard.problems, []);
});

for (const end of ['endWatches', 'breakConnections'] as const) {
  test(`after ${end === 'endWatches' ? 'the end of a watch' : 'a broken connection'} it goes on from the last version, bookmarks included, without a list`, async (t) => {
    const api = await server(t);
    api.put(slice('brokers-a', ['10.0.0.1']));
    const { heard } = discover(t, api);
    await watched(api);
    api.bookmark();
    api.put(slice('brokers-b', ['10.0.0.2']));
    api.bookmark();
    const version = api.version;
    await heard.hasSeeds('10.0.0.1:7946,10.0.0.2:7946');
    api[end]();
    await until(
      () => asked(api, 'watch').length === 2,
      () => api.asked,
    );
    await watched(api);
    // What is on its way when a connection breaks may be lost with it, the last bookmark too.
    const least = end === 'endWatches' ? version : version - 1;
    assert.ok(Number(asked(api, 'watch')[1]?.query.resourceVersion) >= least);
    assert.equal(asked(api, 'list').length, 1);
    api.put(slice('brokers-b', []));
    await heard.hasSeeds('10.0.0.1:7946');
    assert.deepEqual(heard.problems, []);
  });
}

const GARBAGE: readonly [string, string, RegExp][] = [
  ['no JSON', '{"type":"ADDED"\n', /an answer that is no JSON/],
  ['another thing', '[1]\n', /an event that is none of an object/],
  ['an object without a version', '{"type":"ADDED","object":{"metadata":{"name":"x"}}}\n', /none of an object/],
  ['an object without a name', '{"type":"ADDED","object":{"metadata":{"resourceVersion":"1"}}}\n', /no EndpointSlice/],
  ['an error without a code', '{"type":"ERROR","object":null}\n', /an error without a message/],
  ['a line without an end', 'x'.repeat(LINE_BYTES_MAX + 1), /an event of more than 4194304 bytes/],
];
for (const [name, text, problem] of GARBAGE) {
  test(`[G7] ${name} in a watch ends it: a problem, then a new list`, async (t) => {
    const api = await server(t);
    api.put(slice('brokers-a', ['10.0.0.1']));
    const { heard } = discover(t, api);
    await watched(api);
    api.send(text);
    await heard.hasProblem(problem);
    await until(
      () => asked(api, 'list').length === 2,
      () => api.asked,
    );
    await until(
      () => heard.seeds.length === 2,
      () => heard.seeds,
    );
    assert.equal(heard.last, '10.0.0.1:7946');
    assert.equal(heard.problems.length, 1);
  });
}

const LISTS: readonly [string, string, RegExp][] = [
  ['no JSON', 'hello', /an answer that is no JSON/],
  ['nothing', '', /an answer that is no JSON/],
  ['another thing', '[]', /an answer that is no list/],
  ['no items', '{"metadata":{"resourceVersion":"1"}}', /an answer that is no list/],
  [
    'items of another kind',
    '{"metadata":{"resourceVersion":"1"},"items":[null]}',
    /something that is no EndpointSlice/,
  ],
  ['more than is read', ' '.repeat(BODY_BYTES_MAX + 1), /an answer of more than 16777216 bytes/],
];
for (const [name, text, problem] of LISTS) {
  test(`[G7] ${name} for a list is a problem, and what was known stays`, async (t) => {
    const api = await server(t);
    api.put(slice('brokers-a', ['10.0.0.1']));
    const { heard } = discover(t, api);
    await watched(api);
    api.faults.set('list', (_, response) => response.writeHead(200).end(text));
    api.send('garbage\n');
    await heard.hasProblem(problem);
    assert.deepEqual(heard.seeds, ['10.0.0.1:7946']);
    api.faults.clear();
    await until(
      () => heard.seeds.length === 2,
      () => heard.seeds,
    );
    assert.equal(heard.last, '10.0.0.1:7946');
  });
}

test('an answer that breaks off in the middle of a list is a problem', async (t) => {
  const api = await server(t);
  api.faults.set('list', (_, response) => {
    response.writeHead(200, { 'content-length': '1000' });
    response.write('{"metadata":', () => response.destroy());
  });
  const { heard } = discover(t, api);
  await heard.hasProblem(/^discovery kubernetes: cannot list endpointslices: /);
});

for (const [status, text] of [
  [500, '<html>proxy</html>'],
  [503, '{"message":"etcd is away"}'],
  [302, ''],
] as const) {
  test(`HTTP ${status} is a problem, with what the server says if it is the API that speaks`, async (t) => {
    const api = await server(t);
    api.fault = (_, response) => response.writeHead(status, { location: 'https://127.0.0.1:1/' }).end(text);
    const { heard } = discover(t, api);
    await heard.hasProblem(/^discovery kubernetes: cannot list endpointslices: (HTTP 500|etcd is away|HTTP 302)$/);
  });
}

test('a refusal that never ends is not read to its end', async (t) => {
  const api = await server(t);
  api.fault = (_, response) => {
    response.writeHead(403);
    response.write('x'.repeat(1024 * 1024));
  };
  const { heard } = discover(t, api);
  await heard.hasProblem(/^discovery kubernetes: may not list: /);
});

for (const state of ['asked', 'watching', 'waiting'] as const) {
  test(`a stop while it is ${state} closes its connections, and nothing is told any more`, async (t) => {
    const api = await server(t);
    api.put(slice('brokers-a', ['10.0.0.1']));
    if (state === 'asked') api.fault = () => undefined;
    if (state === 'waiting') api.fault = (_, response) => refuse(response, 500, 'no');
    const { heard, discovery } = discover(t, api, state === 'waiting' ? { backoffMs: 60_000 } : {});
    if (state === 'watching') await watched(api);
    else
      await until(
        () => api.asked.length > 0,
        () => api.asked.length,
      );
    if (state === 'waiting') await heard.hasProblem(/no/);
    const told = heard.seeds.length + heard.problems.length;
    discovery.stop();
    await until(
      () => api.connections === 0,
      () => api.connections,
    );
    api.fault = null;
    api.put(slice('brokers-b', ['10.0.0.2']));
    const timers = (): string[] => process.getActiveResourcesInfo().filter((name) => name === 'Timeout');
    assert.ok(timers().length <= 1, timers().join());
    assert.equal(heard.seeds.length + heard.problems.length, told);
  });
}

test('waits after failures grow from a half to the whole of twice the last one, up to 30 s', () => {
  assert.deepEqual(
    [0, 1, 2, 3, 7, 8, 1_000].map((failures) => backoffMs(500, failures, 0)),
    [250, 250, 500, 1_000, 15_000, 15_000, 15_000],
  );
  assert.equal(backoffMs(500, 3, 0.5), 1_500);
});

test('discovery made from the configuration asks the API that its file names, for the pods of its service', async (t) => {
  const api = await server(t);
  api.put(
    slice('queue-a', ['10.0.0.1'], {
      metadata: { name: 'queue-a', labels: { 'kubernetes.io/service-name': 'queue' } },
    }),
  );
  const flags = ['--kubernetes-service=queue', '--kubernetes-port-name=grpc', `--kubernetes-config=${api.configFile}`];
  const database = ['--store=postgres', '--postgres-url=postgres://db/x'];
  const { discovery: config } = defaultConfig([...database, '--discovery=kubernetes', ...flags]);
  const heard = new Heard();
  const discovery = openDiscovery(config, heard);
  t.after(() => discovery?.stop());
  discovery?.start();
  await heard.hasSeeds('10.0.0.1:8081');
});

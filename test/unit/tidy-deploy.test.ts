/** What the files for containers say by name exists under that name: keys, ports, paths. What dashboards and alerts ask for: operate/metrics.test.ts. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { parseEndpoint } from '../../src/config/endpoint.ts';
import { loadConfig } from '../../src/config/load.ts';
import { parseDuration } from '../../src/config/units.ts';
import { ROOT } from '../support/source-tree.ts';

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const DEFAULTS = loadConfig({ argv: [], environment: {} }).config;

interface ComposeService {
  readonly environment?: Readonly<Record<string, string>>;
  readonly stop_grace_period?: string;
  readonly volumes?: readonly string[];
  readonly ports?: readonly string[];
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly healthcheck?: object;
  readonly mem_limit?: string;
  readonly restart?: string;
}

/** With the defaults of its variables. */
function composeFile(): { readonly services: Readonly<Record<string, ComposeService>>; readonly volumes: object } {
  const filled = (text: string): string =>
    text.replace(/\$\{\w+:([-?])([^}]*)\}/g, (_, kind, rest) => (kind === '-' ? rest : 'set'));
  const fill = (_: unknown, value: unknown): unknown => (typeof value === 'string' ? filled(value) : value);
  // What has no value is handed on if it is there: it is not.
  const passedOn = (key: unknown, value: unknown): unknown =>
    value === null && /^BROKER_/.test(String(key)) ? undefined : value;
  return parse(read('docker-compose.yml'), (key, value) => fill(key, passedOn(key, value)), { merge: true });
}

const { services, volumes } = composeFile();
const brokers = Object.entries(services).filter(([name]) => name.startsWith('broker-'));

/** `ENV` of the Dockerfile. */
function imageEnvironment(): Record<string, string> {
  const block = /^ENV PATH=(?:.*\\\n)*.*$/m.exec(read('Dockerfile'))?.[0] ?? '';
  return Object.fromEntries([...block.matchAll(/(\w+)=(\S+)/g)].map(([, name, value]) => [name, value ?? '']));
}

test('the image and each broker of the compose file have a configuration that is right as a whole', () => {
  const image = imageEnvironment();
  assert.ok(Object.keys(image).filter((name) => name.startsWith('BROKER_')).length >= 4);
  assert.throws(
    () => loadConfig({ argv: [], environment: image }),
    /these are open to strangers: grpc.listen 0.0.0.0:8081/,
  );
  const insecure = { ...image, BROKER_INSECURE: 'true' };
  assert.equal(loadConfig({ argv: [], environment: insecure }).config.dataDir, '/data');
  assert.equal(brokers.length, 3);
  const ids = brokers.map(([name, { environment }]) => {
    const { config } = loadConfig({ argv: [], environment: { ...image, ...environment } });
    assert.equal(config.grpc.advertise?.host, name);
    assert.equal(config.raft.advertise?.host, name);
    assert.equal(config.gossip.advertise?.host, name);
    assert.equal(config.bootstrapExpect, brokers.length);
    return config.nodeId;
  });
  assert.deepEqual(ids, ['broker-1', 'broker-2', 'broker-3']);
});

test('the image listens on the ports of the defaults, on every interface', () => {
  const { config } = loadConfig({ argv: ['--insecure'], environment: imageEnvironment() });
  for (const name of ['grpc', 'admin', 'raft', 'gossip'] as const) {
    assert.deepEqual(config[name].listen, { host: '0.0.0.0', port: DEFAULTS[name].listen.port });
    assert.match(read('Dockerfile'), new RegExp(`^EXPOSE .*\\b${DEFAULTS[name].listen.port}\\b`, 'm'));
  }
});

test('containers of brokers are given more time to stop than they take', () => {
  for (const [name, { stop_grace_period }] of brokers) {
    const ms = parseDuration(stop_grace_period ?? '');
    assert.ok(ms !== null && ms >= DEFAULTS.shutdown.drainMs + 5_000, name);
  }
});

test('every service of the compose file is bounded and restarted, is published on loopback only, and mounts what exists', () => {
  for (const [name, service] of Object.entries(services)) {
    assert.equal(service.restart, 'unless-stopped', name);
    assert.ok(service.mem_limit !== undefined, name);
    for (const port of service.ports ?? []) assert.match(port, /^127\.0\.0\.1:\d+:\d+$/);
    for (const mount of service.volumes ?? []) {
      const [source] = mount.split(':') as [string];
      assert.ok(source.startsWith('./') ? existsSync(join(ROOT, source)) : Object.hasOwn(volumes, source), mount);
    }
    for (const [needed, { condition }] of Object.entries(service.depends_on ?? {})) {
      assert.equal(condition, 'service_healthy');
      // The image of the broker has its own.
      assert.ok(needed.startsWith('broker-') || services[needed]?.healthcheck !== undefined, needed);
    }
  }
});

test('Envoy and Prometheus know every broker of the compose file', () => {
  for (const [name, { environment }] of brokers) {
    const grpc = parseEndpoint(environment?.BROKER_GRPC_ADVERTISE ?? '');
    assert.ok(read('envoy/cluster.yaml').includes(`address: ${name}, port_value: ${grpc?.port} `), name);
    assert.ok(read('deploy/prometheus/prometheus.yml').includes(`"${name}:${DEFAULTS.admin.listen.port}"`), name);
  }
});

/** Every overlay of k8s/, as kustomize renders it: held against strict schemas of its kinds, and against rules of our own. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { parse } from 'yaml';
import { openListeners } from '../../src/config/listener-rules.ts';
import { ROOT } from '../support/source-tree.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { requireTool } from '../support/tools.ts';
import { type Ended, manifestTools, run } from './go-tools.ts';
import { NETWORK_RULES } from './network-rules.ts';
import { MISTAKES } from './planted-mistakes.ts';
import { POD_RULES } from './pod-rules.ts';
import { OVERLAYS, ofKind, parseManifests, render } from './rendered.ts';
import { theStatefulSet } from './rule.ts';
import { SCHEMA_FILE, writeSchemas } from './schemas.ts';
import { SETTING_RULES } from './setting-rules.ts';
import { brokerOf, settingsOf } from './settings.ts';

const RULES = [...POD_RULES, ...NETWORK_RULES, ...SETTING_RULES];
const MONITORED = { components: ['monitoring'] };
const PEERS = 'app.kubernetes.io/component';

test('every overlay, with monitoring, is valid by strict schemas, and a misspelt field or a wrong type is not', async (t) => {
  if (!requireTool(t, 'go-1.26')) return;
  const conform = await strictly(t);
  for (const overlay of OVERLAYS) {
    const text = await render(overlay, MONITORED);
    const { code, out, said } = await conform(text);
    assert.equal(code, 0, `${overlay}: ${out}${said}`);
    assert.match(out, new RegExp(`Valid: ${parseManifests(text).length}, Invalid: 0, Errors: 0, Skipped: 0`));
  }
  const recovering = await conform(await render('postgres', { components: ['monitoring', 'recover'] }));
  assert.equal(recovering.code, 0, recovering.out);
  const text = await render('postgres', MONITORED);
  const misspelt: readonly (readonly [string | RegExp, string])[] = [
    ['serviceName:', 'serviceNam:'],
    ['replicas: 3', 'replicas: "3"'],
    ['maxUnavailable:', 'maxUnavailible:'],
    ['scrapeTimeout:', 'scrapeTimeOut:'],
    [/alert: BrokerDown/, 'alarm: BrokerDown'],
    ['mountPath:', 'path:'],
    ['podManagementPolicy: Parallel', 'podManagementPolicy: 1'],
  ];
  for (const [from, to] of misspelt) {
    const { code, out } = await conform(changed(text, from, to));
    assert.equal(code, 1, `${from} as ${to} is taken: ${out}`);
  }
});

/** kubeconform over a text; exit code 1 if anything in it is not valid. */
async function strictly(t: TestContext): Promise<(text: string) => Promise<Ended>> {
  const folder = temporaryFolder(t);
  await writeSchemas(folder);
  const { kubeconform } = await manifestTools();
  return (text) => {
    const path = join(folder, 'manifests.yaml');
    writeFileSync(path, text);
    return run(kubeconform, ['-strict', '-summary', '-schema-location', `${folder}/${SCHEMA_FILE}`, path]);
  };
}

for (const overlay of OVERLAYS) {
  test(`the overlay ${overlay} keeps every rule, in its own namespace and in another one`, async (t) => {
    if (!requireTool(t, 'go-1.26')) return;
    for (const more of [{ namespace: 'broker' }, { namespace: 'messages' }]) {
      const manifests = parseManifests(await render(overlay, { ...MONITORED, more }));
      const broken = RULES.flatMap(({ name, problems }) => problems(manifests).map((one) => `${name}: ${one}`));
      assert.deepEqual(broken, []);
      const outside = manifests.filter(
        ({ kind, metadata }) => kind !== 'Namespace' && metadata.namespace === undefined,
      );
      assert.deepEqual(outside, []);
    }
  });
}

test('each rule sees the mistake that it is there for', async (t) => {
  if (!requireTool(t, 'go-1.26')) return;
  const text = await render('postgres', MONITORED);
  const seen = new Set<string>();
  for (const { rule, from, to, said } of MISTAKES) {
    const found = RULES.find(({ name }) => name.startsWith(rule));
    assert.ok(found !== undefined, `no rule begins with "${rule}"`);
    const problems = found.problems(parseManifests(changed(text, from, to)));
    assert.ok(
      problems.some((problem) => problem.includes(said)),
      `${from} as ${to}: "${said}" is not among ${JSON.stringify(problems)}`,
    );
    seen.add(found.name);
  }
  assert.deepEqual(
    RULES.map(({ name }) => name).filter((name) => !seen.has(name)),
    [],
    'rules that nobody has seen fail',
  );
});

test('the overlay with TLS opens nothing to strangers, and mounts what its settings name for each of its brokers', async (t) => {
  if (!requireTool(t, 'go-1.26')) return;
  const manifests = parseManifests(await render('postgres-tls', MONITORED));
  const set = theStatefulSet(manifests);
  const container = brokerOf(set);
  const { config } = settingsOf(set, manifests);
  assert.equal(config.insecure, false);
  assert.deepEqual(openListeners(config, { isClustered: true }), []);
  const probes = [container.startupProbe, container.readinessProbe, container.livenessProbe];
  assert.deepEqual(
    probes.map((probe) => probe?.httpGet?.scheme),
    ['HTTPS', 'HTTPS', 'HTTPS'],
  );
  const text = JSON.stringify(set.spec.template.spec);
  for (let replica = 0; replica < set.spec.replicas; replica += 1) {
    for (const file of ['tls.crt', 'tls.key', 'ca.crt']) assert.ok(text.includes(`"broker-${replica}/${file}"`), file);
  }
  const mounts = (container.volumeMounts ?? []).map(({ mountPath }) => mountPath);
  for (const path of [config.tls.cert, config.tls.key, config.tls.ca, config.access.file]) {
    assert.ok(
      mounts.some((mount) => path?.startsWith(`${mount}/`)),
      `${path} is in no volume`,
    );
  }
});

test('Prometheus has the same rules here as in Docker, and finds what they ask for under the same names', async (t) => {
  if (!requireTool(t, 'go-1.26')) return;
  const manifests = parseManifests(await render('postgres', MONITORED));
  const [rule, monitor] = [ofKind(manifests, 'PrometheusRule')[0], ofKind(manifests, 'ServiceMonitor')[0]];
  const rules = readFileSync(join(ROOT, 'deploy', 'prometheus', 'rules.yml'), 'utf8');
  assert.deepEqual(rule?.spec.groups, (parse(rules) as { groups: unknown }).groups, 'run `npm run generate`');
  const [service] = ofKind(manifests, 'Service').filter(({ metadata }) => metadata.labels?.[PEERS] === 'peers');
  assert.equal(service?.metadata.labels?.[monitor?.spec.jobLabel ?? ''], 'broker');
});

function changed(text: string, from: string | RegExp, to: string): string {
  const result = text.replace(from, to);
  assert.notEqual(result, text, `nothing in the manifests is like ${from}`);
  return result;
}

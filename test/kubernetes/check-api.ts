/** What the API server says of the manifests, and what the account of the brokers may ask of it. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../support/until.ts';
import type { CheckReport } from './check-report.ts';
import type { ControlPlane } from './control-plane.ts';
import { OVERLAYS, parseManifests } from './rendered.ts';
import { theStatefulSet } from './rule.ts';

const NODES = 6;
const VOLUMES = 20;
const READY_TIMEOUT_MS = 120_000;
const ACCOUNTS = '/run/secrets/kubernetes.io/serviceaccount';

export async function checkApi(
  report: CheckReport,
  plane: ControlPlane,
  folder: string,
  played: readonly string[],
): Promise<void> {
  const overlay = (name: string): string => join(folder, 'overlays', `${name}.yaml`);
  await report.check('machines, volumes and the kinds of the Prometheus operator', async () => {
    await plane.kubectl('apply', '--server-side', '-f', join(folder, 'definitions.yaml'));
    await plane.kubectl('wait', '--for=condition=Established', '--timeout=60s', 'crd', '--all');
    writeFileSync(join(folder, 'machines.json'), JSON.stringify({ apiVersion: 'v1', kind: 'List', items: machines() }));
    await plane.kubectl('apply', '-f', join(folder, 'machines.json'));
    for (const name of OVERLAYS) {
      const [space] = parseManifests(readFileSync(overlay(name), 'utf8')).filter(({ kind }) => kind === 'Namespace');
      writeFileSync(join(folder, 'space.json'), JSON.stringify(space));
      await plane.kubectl('apply', '-f', join(folder, 'space.json'));
    }
    return `${NODES} machines in 3 zones, ${VOLUMES} volumes`;
  });
  for (const name of OVERLAYS) {
    await report.check(`the API server takes the overlay ${name} (dry run)`, async () => {
      const dryRun = ['apply', '--server-side', '--dry-run=server', '-f'];
      const out = await plane.kubectl(...dryRun, overlay(name));
      const text = readFileSync(overlay(name), 'utf8');
      const wrong = join(folder, 'wrong.yaml');
      writeFileSync(wrong, text.replace('serviceName:', 'serviceNam:'));
      const refused = await plane.tryKubectl(...dryRun, wrong);
      assert.match(refused.said, /serviceNam: field not declared in schema/);
      return `${out.trim().split('\n').length} objects; one with a misspelt field is refused`;
    });
  }
  for (const name of played) {
    await report.check(`the StatefulSet of ${name} becomes ready under Pod Security (pods by kwok)`, async () => {
      const { spec } = theStatefulSet(parseManifests(readFileSync(overlay(name), 'utf8')));
      const out = await plane.tryKubectl('apply', '--server-side', '-f', overlay(name));
      assert.equal(out.code, 0, out.said);
      assert.doesNotMatch(out.said, /Warning/);
      await until(
        async () => (await readyReplicas(plane, name)) === spec.replicas,
        () => `not ready: ${plane.log('kube-controller-manager')}`,
        READY_TIMEOUT_MS,
      );
      return `${spec.replicas} ready`;
    });
  }
  await report.check('Pod Security refuses a pod that is not restricted', async () => {
    const container = { name: 'x', image: 'x:1' };
    const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'x' }, spec: { containers: [container] } };
    const { status, body } = await plane.call('POST', '/api/v1/namespaces/broker/pods', pod);
    assert.equal(status, 403, JSON.stringify(body));
    return 'refused with 403';
  });
}

export async function readyReplicas(plane: ControlPlane, namespace: string): Promise<number> {
  const { body } = await plane.call('GET', `/apis/apps/v1/namespaces/${namespace}/statefulsets/broker`);
  return (body as { readonly status?: { readonly readyReplicas?: number } }).status?.readyReplicas ?? 0;
}

function machines(): object[] {
  const capacity = { cpu: '8', memory: '32Gi', pods: '50', 'ephemeral-storage': '50Gi' };
  const nodes = Array.from({ length: NODES }, (_, index) => {
    const name = `machine-${index + 1}`;
    const labels = { 'kubernetes.io/hostname': name, 'topology.kubernetes.io/zone': `zone-${(index % 3) + 1}` };
    return { apiVersion: 'v1', kind: 'Node', metadata: { name, labels }, status: { allocatable: capacity, capacity } };
  });
  const volumes = Array.from({ length: VOLUMES }, (_, index) => ({
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name: `volume-${index + 1}` },
    spec: { capacity: { storage: '50Gi' }, accessModes: ['ReadWriteOnce'], hostPath: { path: `/volume-${index + 1}` } },
  }));
  return [...nodes, ...volumes];
}

/** What may not be asked with the account of the brokers, as method and path. */
const FORBIDDEN: readonly (readonly [method: string, path: string])[] = [
  ['GET', '/api/v1/namespaces/broker/pods'],
  ['GET', '/api/v1/namespaces/broker/secrets'],
  ['GET', '/api/v1/namespaces/broker/secrets/broker-postgres'],
  ['GET', '/api/v1/namespaces/broker/configmaps'],
  ['GET', '/api/v1/namespaces/broker/services'],
  ['GET', '/api/v1/namespaces/broker/endpoints'],
  ['GET', '/apis/apps/v1/namespaces/broker/statefulsets'],
  ['GET', '/apis/discovery.k8s.io/v1/endpointslices'],
  ['GET', '/apis/discovery.k8s.io/v1/namespaces/cassandra/endpointslices'],
  ['POST', '/apis/discovery.k8s.io/v1/namespaces/broker/endpointslices'],
  ['DELETE', '/apis/discovery.k8s.io/v1/namespaces/broker/endpointslices'],
  ['GET', '/api/v1/nodes'],
  ['DELETE', '/api/v1/namespaces/broker/pods/broker-0'],
];

/** With the token of the brokers: the endpoints of their namespace, and a refusal of everything else. */
export async function checkRights(plane: ControlPlane, token: string): Promise<string> {
  const allowed =
    '/apis/discovery.k8s.io/v1/namespaces/broker/endpointslices?labelSelector=kubernetes.io/service-name%3Dbroker-peers';
  assert.equal((await plane.call('GET', allowed, undefined, token)).status, 200);
  const watched = await plane.call('GET', `${allowed}&watch=true&timeoutSeconds=1`, undefined, token);
  assert.equal(watched.status, 200);
  for (const [method, path] of FORBIDDEN) {
    const { status } = await plane.call(method, path, method === 'POST' ? {} : undefined, token);
    assert.equal(status, 403, `${method} ${path} is answered ${status}`);
  }
  const anonymous = await plane.call('GET', allowed, undefined, 'nobody');
  assert.equal(anonymous.status, 401);
  return `list and watch; ${FORBIDDEN.length} other requests are refused with 403`;
}

/** A token of the account, where its pods find it. */
export async function mountAccount(plane: ControlPlane, namespace: string, account: string): Promise<string> {
  const token = (await plane.kubectl('-n', namespace, 'create', 'token', account)).trim();
  mkdirSync(ACCOUNTS, { recursive: true });
  writeFileSync(join(ACCOUNTS, 'token'), token);
  writeFileSync(join(ACCOUNTS, 'ca.crt'), plane.certificate);
  writeFileSync(join(ACCOUNTS, 'namespace'), namespace);
  return token;
}

export function objectsOf(folder: string, overlay: string): ReturnType<typeof parseManifests> {
  return parseManifests(readFileSync(join(folder, 'overlays', `${overlay}.yaml`), 'utf8'));
}

/** The postgres overlay with real brokers: installing, an upgrade, scaling, draining, all under load. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { loadConfig } from '../../src/config/load.ts';
import { openDiscovery } from '../../src/discovery/open-discovery.ts';
import { LAUNCHER } from '../support/broker.ts';
import { until } from '../support/until.ts';
import { checkRights, mountAccount, objectsOf, readyReplicas } from './check-api.ts';
import { CheckLoad } from './check-load.ts';
import type { CheckReport } from './check-report.ts';
import type { ControlPlane } from './control-plane.ts';
import { runOrFail } from './go-tools.ts';
import { Kubelet } from './kubelet.ts';
import type { PodNetwork } from './pod-network.ts';
import { theStatefulSet } from './rule.ts';
import { brokerOf, environmentOf, SECRETS } from './settings.ts';

const NAMESPACE = 'broker';
const SERVICE = 'broker-peers';
const REPLICAS = 3;
const MORE = 5;
const READY_TIMEOUT_MS = 180_000;
const ROLLOUT_TIMEOUT = '180s';

export interface BrokerChecksOptions {
  readonly report: CheckReport;
  readonly plane: ControlPlane;
  readonly network: PodNetwork;
  readonly folder: string;
  /** URL, as pods reach it. */
  readonly database: string;
}

interface Member {
  readonly node: string;
  readonly role: string | null;
  readonly leader: boolean | string;
}

export class BrokerChecks {
  readonly #options: BrokerChecksOptions;
  #kubelet: Kubelet | null = null;
  #load: CheckLoad | null = null;

  constructor(options: BrokerChecksOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    const { report } = this.#options;
    const isThere = await report.check('three brokers find each other and become ready', () => this.#install());
    if (!isThere) return;
    await report.check('the account of the brokers may follow its endpoints and nothing else', () => this.#rights());
    await report.check('discovery knows the pods, with that account', () => this.#discovered(REPLICAS));
    await report.check('machines are drained one broker at a time', () => this.#drain());
    await report.check('an upgrade replaces one broker after the other', () => this.#upgrade());
    await report.check('an upgrade is undone', () => this.#undo());
    await report.check('one volume is lost', () => this.#replaceVolume());
    await report.check('from three to five', () => this.#grow());
    await report.check('back to three: removed first, then stopped', () => this.#shrink());
    await report.check('to five that vote', () => this.#growVoters());
    await report.check('and back to three that vote', () => this.#shrinkVoters());
    await report.check('every acknowledged message is there, once', () => (this.#load as CheckLoad).judge());
    await report.check('two of three volumes are lost, and the component recover helps', () => this.#recover());
    await report.check('no broker ended by itself, and none would have been restarted', () => {
      assert.deepEqual(this.#kubelet?.incidents, []);
      return Promise.resolve('no incident');
    });
  }

  async stop(): Promise<void> {
    await this.#load?.close();
    await this.#kubelet?.stop();
  }

  /** As docs/kubernetes.md has it. */
  async #install(): Promise<string> {
    const { plane, network, folder, database } = this.#options;
    const key = randomBytes(32).toString('base64');
    await this.#kubectl('create', 'secret', 'generic', 'broker-postgres', `--from-literal=url=${database}`);
    await this.#kubectl('create', 'secret', 'generic', 'broker-gossip', `--from-literal=key=${key}`);
    const pods = join(folder, 'pods');
    mkdirSync(pods);
    const secrets = { ...SECRETS, 'broker-postgres/url': database, 'broker-gossip/key': key };
    await this.#apply('overlays/postgres.yaml');
    await mountAccount(plane, NAMESPACE, 'broker');
    const began = performance.now();
    this.#kubelet = new Kubelet({ plane, network, namespace: NAMESPACE, service: SERVICE, folder: pods, secrets });
    await this.#untilReady(REPLICAS);
    const readyMs = performance.now() - began;
    this.#load = new CheckLoad(this.#names());
    await until(
      () => (this.#load as CheckLoad).acked > 0,
      () => 'nothing was acknowledged',
      READY_TIMEOUT_MS,
    );
    await this.#untilMembers(REPLICAS, REPLICAS);
    return `ready after ${seconds(readyMs)}, three voters`;
  }

  async #rights(): Promise<string> {
    const token = await this.#options.plane.kubectl('-n', NAMESPACE, 'create', 'token', 'broker');
    return checkRights(this.#options.plane, token.trim());
  }

  /** Our own discovery in this process, with the settings of the manifests and the account of the pods. */
  async #discovered(count: number): Promise<string> {
    const { plane, folder } = this.#options;
    process.env.KUBERNETES_SERVICE_HOST = plane.host;
    process.env.KUBERNETES_SERVICE_PORT = String(plane.port);
    const manifests = objectsOf(folder, 'postgres');
    const environment = environmentOf(brokerOf(theStatefulSet(manifests)), manifests);
    const { config } = loadConfig({ argv: [], environment });
    let found: readonly string[] = [];
    const problems: string[] = [];
    const discovery = openDiscovery(config.discovery, {
      onSeeds: (seeds) => {
        found = seeds.map(({ host, port }) => `${host}:${port}`);
      },
      onProblem: (reason) => problems.push(reason),
    });
    assert.ok(discovery !== null);
    discovery.start();
    try {
      const expected = (): string[] => (this.#kubelet?.pods ?? []).map(({ address }) => `${address}:7946`).sort();
      await until(
        () => found.length === count && found.join() === expected().join(),
        () => `found ${found.join(', ')}, not ${expected().join(', ')}; ${problems.join('; ')}`,
        READY_TIMEOUT_MS,
      );
    } finally {
      discovery.stop();
    }
    assert.deepEqual(problems, []);
    return found.join(', ');
  }

  async #drain(): Promise<string> {
    const { plane } = this.#options;
    this.#load?.gapMs();
    const machine = await this.#kubectl('get', 'pod', 'broker-0', '-o', 'jsonpath={.spec.nodeName}');
    const draining = plane.tryKubectl('drain', machine, '--ignore-daemonsets', '--timeout=120s');
    await until(
      () => this.#kubelet?.pods.some(({ name, isStopping }) => name === 'broker-0' && isStopping) === true,
      () => 'broker-0 was not evicted',
    );
    const eviction = {
      apiVersion: 'policy/v1',
      kind: 'Eviction',
      metadata: { name: 'broker-1', namespace: NAMESPACE },
    };
    const path = `/api/v1/namespaces/${NAMESPACE}/pods/broker-1/eviction`;
    const second = await plane.call('POST', path, eviction);
    assert.equal(second.status, 429, `a second broker was evicted: ${JSON.stringify(second.body)}`);
    const { code, said } = await draining;
    assert.equal(code, 0, said);
    await this.#untilReady(REPLICAS);
    const other = await this.#kubectl('get', 'pod', 'broker-0', '-o', 'jsonpath={.spec.nodeName}');
    assert.notEqual(other, machine);
    await plane.kubectl('uncordon', machine);
    return `the second eviction was refused with 429; ${this.#gap()}`;
  }

  async #upgrade(): Promise<string> {
    this.#load?.gapMs();
    const before = new Set(this.#kubelet?.pods.map(({ uid }) => uid));
    await this.#apply('next.yaml');
    await this.#kubectl('rollout', 'status', 'statefulset/broker', `--timeout=${ROLLOUT_TIMEOUT}`);
    await this.#untilReady(REPLICAS);
    assert.ok(this.#kubelet?.pods.every(({ uid }) => !before.has(uid)));
    await this.#untilMembers(REPLICAS, REPLICAS);
    return this.#gap();
  }

  async #undo(): Promise<string> {
    this.#load?.gapMs();
    const image = (): Promise<string> =>
      this.#kubectl('get', 'statefulset', 'broker', '-o', 'jsonpath={.spec.template.spec.containers[0].image}');
    const before = await image();
    await this.#kubectl('rollout', 'undo', 'statefulset/broker');
    await this.#kubectl('rollout', 'status', 'statefulset/broker', `--timeout=${ROLLOUT_TIMEOUT}`);
    await this.#untilReady(REPLICAS);
    await this.#untilMembers(REPLICAS, REPLICAS);
    const after = await image();
    assert.notEqual(after, before);
    return `${before} is ${after} again; ${this.#gap()}`;
  }

  /** As docs/kubernetes.md has it; the pod that comes back on its own is refused, with the command that helps. */
  async #replaceVolume(): Promise<string> {
    this.#load?.gapMs();
    const name = `broker-${REPLICAS - 1}`;
    const old = this.#kubelet?.pod(name)?.uid;
    await this.#broker('cluster', 'remove', name);
    await this.#kubectl('delete', 'pvc', `data-${name}`, '--wait=false');
    await this.#kubectl('delete', 'pod', name);
    await until(
      () => this.#kubelet?.pods.every(({ uid }) => uid !== old) === true,
      () => `${name} does not go`,
      READY_TIMEOUT_MS,
    );
    await this.#untilReady(REPLICAS);
    await this.#untilMembers(REPLICAS, REPLICAS);
    return `${name} has joined with an empty volume; ${this.#gap()}`;
  }

  async #growVoters(): Promise<string> {
    this.#load?.gapMs();
    await this.#apply('five.yaml');
    await this.#kubectl('rollout', 'status', 'statefulset/broker', `--timeout=${ROLLOUT_TIMEOUT}`);
    await this.#untilReady(MORE);
    await this.#untilMembers(MORE, MORE);
    return this.#gap();
  }

  async #shrinkVoters(): Promise<string> {
    this.#load?.gapMs();
    // While all five run: three are wanted when two of them are removed.
    await this.#apply('five-back.yaml');
    await this.#kubectl('rollout', 'status', 'statefulset/broker', `--timeout=${ROLLOUT_TIMEOUT}`);
    await this.#untilReady(MORE);
    return await this.#shrink();
  }

  async #grow(): Promise<string> {
    await this.#kubectl('scale', 'statefulset/broker', `--replicas=${MORE}`);
    await this.#untilReady(MORE);
    await this.#untilMembers(MORE, REPLICAS);
    return `two learners more; ${await this.#discovered(MORE)}`;
  }

  async #shrink(): Promise<string> {
    this.#load?.gapMs();
    for (const node of ['broker-4', 'broker-3']) await this.#broker('cluster', 'remove', node);
    await this.#kubectl('scale', 'statefulset/broker', `--replicas=${REPLICAS}`);
    await until(
      () => this.#kubelet?.pods.length === REPLICAS,
      () => `${this.#kubelet?.pods.length} pods`,
      READY_TIMEOUT_MS,
    );
    await this.#kubectl('delete', 'pvc', 'data-broker-4', 'data-broker-3', '--wait=false');
    await this.#untilMembers(REPLICAS, REPLICAS);
    await this.#discovered(REPLICAS);
    return this.#gap();
  }

  #gap(): string {
    return `longest wait for an acknowledgement ${seconds(this.#load?.gapMs() ?? 0)}`;
  }

  async #apply(file: string): Promise<void> {
    const { plane, folder } = this.#options;
    await plane.kubectl('apply', '--server-side', '--force-conflicts', '-f', join(folder, file));
  }

  /** The volumes of two of three brokers are lost. */
  async #recover(): Promise<string> {
    const load = this.#load as CheckLoad;
    await this.#kubectl('scale', 'statefulset/broker', '--replicas=0');
    await this.#kubectl('wait', '--for=delete', 'pod', '-l', 'app.kubernetes.io/name=broker', '--timeout=120s');
    await this.#kubectl('delete', 'pvc', 'data-broker-1', 'data-broker-2');
    await this.#apply('recover.yaml');
    await this.#kubectl('wait', '--for=condition=complete', 'job/broker-recover', `--timeout=${ROLLOUT_TIMEOUT}`);
    await this.#kubectl('delete', 'job', 'broker-recover');
    await this.#apply('overlays/postgres.yaml');
    await this.#untilReady(REPLICAS);
    await this.#untilMembers(REPLICAS, REPLICAS);
    return load.judgeGap();
  }

  #kubectl(...args: readonly string[]): Promise<string> {
    return this.#options.plane.kubectl('-n', NAMESPACE, ...args);
  }

  #names(): string[] {
    return Array.from({ length: REPLICAS }, (_, index) => `broker-${index}.${SERVICE}.${NAMESPACE}.svc:8081`);
  }

  /** Our own command, as `kubectl exec` would run it in a pod. */
  #broker(...args: readonly string[]): Promise<string> {
    return runOrFail(process.execPath, [LAUNCHER, ...args, '--address', this.#names().join()], {
      env: { ...process.env, UV_THREADPOOL_SIZE: '8' },
    });
  }

  async #untilReady(count: number): Promise<void> {
    await until(
      async () => (await readyReplicas(this.#options.plane, NAMESPACE)) === count && this.#areReady(count),
      () => `not ready: ${JSON.stringify(this.#kubelet?.pods.map(({ name, isReady, log }) => [name, isReady, log]))}`,
      READY_TIMEOUT_MS,
    );
  }

  #areReady(count: number): boolean {
    const ready = this.#kubelet?.pods.filter(({ isReady, isStopping }) => isReady && !isStopping);
    return ready?.length === count;
  }

  async #untilMembers(count: number, voters: number): Promise<void> {
    let members: readonly Member[] = [];
    await until(
      async () => {
        const out = await this.#broker('cluster', 'members', '-o', 'json').catch(() => '');
        members = out
          .split('\n')
          .filter(Boolean)
          .map((line) => JSON.parse(line) as Member)
          // Gossip remembers those that have been removed.
          .filter(({ role }) => role !== null);
        return members.length === count && members.filter(({ role }) => role === 'voter').length === voters;
      },
      () => `the members are ${JSON.stringify(members)}`,
      READY_TIMEOUT_MS,
    );
  }
}

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`;

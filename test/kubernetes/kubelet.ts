/**
 * Plays the kubelets: every pod of one namespace that has been given a node becomes a real broker, in a network namespace of its own, with
 * the variables that its manifest says; its probes are asked, and its status is what they answer. It stops as the manifest says.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { httpStatus, LAUNCHER } from '../support/broker.ts';
import { pause } from '../support/until.ts';
import { type ControlPlane, stopProcess } from './control-plane.ts';
import type { PodNetwork } from './pod-network.ts';
import type { ConfigMap, Container, Manifest, PodSpec } from './rendered.ts';
import { environmentOf } from './settings.ts';

const LOOK_MS = 200;
/** Answers in a row without which a real kubelet would restart the container: counted, as it must not come to that. */
const LIVENESS_FAILURES_MAX = 6;
const RESTART_DELAY_MS = 5_000;
const KEPT_VARIABLES = ['PATH', 'LANG', 'TZ', 'NODE_EXTRA_CA_CERTS'];

interface Volume {
  readonly name: string;
  readonly persistentVolumeClaim?: { readonly claimName: string };
}

interface PodObject extends Manifest {
  readonly metadata: Manifest['metadata'] & { readonly uid: string; readonly deletionTimestamp?: string };
  readonly spec: PodSpec & {
    readonly nodeName?: string;
    readonly restartPolicy?: string;
    readonly volumes?: readonly Volume[];
  };
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

export interface Pod {
  readonly name: string;
  readonly uid: string;
  readonly address: string;
  readonly log: string;
  isReady: boolean;
  isStopping: boolean;
  /** Ends that nobody asked for. */
  restarts: number;
}

interface RunningPod extends Pod {
  readonly object: PodObject;
  readonly under: readonly string[];
  child: ChildProcess | null;
  livenessFailures: number;
}

function isToldReady({ status }: PodObject): boolean {
  return status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True';
}

export interface KubeletOptions {
  readonly plane: ControlPlane;
  readonly network: PodNetwork;
  readonly namespace: string;
  /** Headless service whose names the pods get. */
  readonly service: string;
  /** For volumes and logs. */
  readonly folder: string;
  /** Values of Secrets by `name/key`. */
  readonly secrets: Readonly<Record<string, string>>;
}

export class Kubelet {
  readonly #options: KubeletOptions;
  readonly #pods = new Map<string, RunningPod>();
  readonly #stops: Promise<void>[] = [];
  /** What went wrong, a line each: containers that ended or would have been restarted. */
  readonly incidents: string[] = [];
  #isRunning = true;
  readonly #loop: Promise<void>;

  constructor(options: KubeletOptions) {
    this.#options = options;
    this.#loop = this.#run();
  }

  /** Those that run, stopping ones too. */
  get pods(): readonly Pod[] {
    return [...this.#pods.values()];
  }

  pod(name: string): Pod | undefined {
    return this.pods.find((pod) => pod.name === name && !pod.isStopping);
  }

  /** Stops looking, and all brokers. */
  async stop(): Promise<void> {
    this.#isRunning = false;
    await this.#loop;
    await Promise.all([...this.#pods.values()].map(({ child }) => child && stopProcess(child, 1_000)));
    await Promise.allSettled(this.#stops);
  }

  async #run(): Promise<void> {
    while (this.#isRunning) {
      try {
        await this.#look();
      } catch (error) {
        this.incidents.push(`kubelet: ${(error as Error).message}`);
      }
      await pause(LOOK_MS);
    }
  }

  async #look(): Promise<void> {
    const objects = await this.#list<PodObject>('pods');
    for (const object of objects) {
      const { uid, deletionTimestamp } = object.metadata;
      const known = this.#pods.get(uid);
      if (known === undefined) {
        if (object.spec.nodeName !== undefined && deletionTimestamp === undefined) await this.#start(object);
        else if (deletionTimestamp !== undefined) await this.#forget(object);
      } else if (deletionTimestamp !== undefined && !known.isStopping) {
        this.#beginEnd(known);
      } else if (!known.isStopping && isToldReady(object) !== known.isReady) {
        // Others may change it too: the controller of nodes, for one.
        await this.#tell(known);
      }
    }
    // Deleted by force, without waiting for its kubelet.
    const listed = new Set(objects.map(({ metadata }) => metadata.uid));
    for (const pod of this.#pods.values()) if (!listed.has(pod.uid) && !pod.isStopping) this.#beginEnd(pod);
    await Promise.all([...this.#pods.values()].map((pod) => this.#probe(pod)));
  }

  #beginEnd(pod: RunningPod): void {
    pod.isStopping = true;
    this.#stops.push(this.#end(pod));
  }

  async #list<Kind>(plural: string): Promise<readonly Kind[]> {
    const { status, body } = await this.#options.plane.call('GET', this.#path(plural));
    if (status !== 200) throw new Error(`${plural}: ${status}`);
    return (body as { readonly items: readonly Kind[] }).items;
  }

  #path(...parts: readonly string[]): string {
    return ['/api/v1/namespaces', this.#options.namespace, ...parts].join('/');
  }

  async #start(object: PodObject): Promise<void> {
    const { network, namespace, service, folder } = this.#options;
    const { name, uid } = object.metadata;
    const { under, address } = network.add(name);
    const log = join(folder, `${name}.log`);
    const state = { isReady: false, isStopping: false, restarts: 0, livenessFailures: 0, child: null };
    const pod: RunningPod = { name, uid, address, log, object, under, ...state };
    this.#pods.set(uid, pod);
    network.call(`${name}.${service}.${namespace}.svc`, address);
    await this.#launch(pod);
    await this.#tell(pod);
  }

  async #launch(pod: RunningPod): Promise<void> {
    const { plane, namespace, folder, secrets } = this.#options;
    const [container] = pod.object.spec.containers as [Container];
    const maps = (await this.#list<ConfigMap>('configmaps')).map((map) => ({ ...map, kind: 'ConfigMap' }));
    const fields = { 'metadata.name': pod.name, 'metadata.namespace': namespace, 'status.podIP': pod.address };
    const volume = join(folder, 'volumes', await this.#volumeOf(pod));
    mkdirSync(volume, { recursive: true });
    const env = {
      ...Object.fromEntries(KEPT_VARIABLES.map((name) => [name, process.env[name]])),
      KUBERNETES_SERVICE_HOST: plane.host,
      KUBERNETES_SERVICE_PORT: String(plane.port),
      UV_THREADPOOL_SIZE: '8',
      ...environmentOf(container, maps, { fields, secrets }),
      // The image has a volume there.
      BROKER_DATA_DIR: volume,
    };
    const [program, ...args] = [...pod.under, process.execPath, LAUNCHER, ...(container.args ?? [])] as [string];
    const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    pod.child = child;
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (text: Buffer) => appendFileSync(pod.log, text));
    child.once('exit', (code, signal) => this.#ended(pod, child, String(signal ?? code)));
  }

  /** Name of the volume that its claim is bound to: a claim that is made anew has another one. */
  async #volumeOf({ name, object }: RunningPod): Promise<string> {
    const claim = object.spec.volumes?.find((volume) => volume.name === 'data')?.persistentVolumeClaim?.claimName;
    const { body } = await this.#options.plane.call('GET', this.#path('persistentvolumeclaims', claim ?? ''));
    const volume = (body as { readonly spec?: { readonly volumeName?: string } }).spec?.volumeName;
    if (volume === undefined) throw new Error(`${name} has no volume`);
    return volume;
  }

  #ended(pod: RunningPod, child: ChildProcess, how: string): void {
    if (pod.child !== child) return;
    pod.child = null;
    if (pod.isStopping || !this.#isRunning) return;
    if (pod.object.spec.restartPolicy === 'Never') {
      const status = { phase: how === '0' ? 'Succeeded' : 'Failed' };
      void this.#options.plane.call('PATCH', this.#path('pods', pod.name, 'status'), { status });
      return;
    }
    pod.restarts += 1;
    this.incidents.push(`${pod.name} ended by itself with ${how}`);
    void pause(RESTART_DELAY_MS).then(() => (pod.isStopping || !this.#isRunning ? undefined : this.#launch(pod)));
  }

  async #probe(pod: RunningPod): Promise<void> {
    if (pod.child === null || pod.isStopping) return;
    const admin = `${pod.address}:8000`;
    const [container] = pod.object.spec.containers as [Container];
    const paths = [container.readinessProbe, container.livenessProbe].map((probe) => probe?.httpGet?.path ?? '/');
    const [ready, alive] = await Promise.all(paths.map((path) => httpStatus(admin, path)));
    pod.livenessFailures = alive === 200 ? 0 : pod.livenessFailures + 1;
    if (alive === 503 && pod.livenessFailures === LIVENESS_FAILURES_MAX) {
      this.incidents.push(`${pod.name} would have been restarted: /healthz`);
    }
    const isReady = ready === 200;
    if (isReady === pod.isReady) return;
    pod.isReady = isReady;
    await this.#tell(pod);
  }

  async #tell(pod: RunningPod): Promise<void> {
    const { address, isReady, restarts, object } = pod;
    const [{ name, image }] = object.spec.containers as [Container];
    const at = new Date().toISOString();
    const condition = (type: string, isTrue: boolean): object => ({
      type,
      status: isTrue ? 'True' : 'False',
      lastTransitionTime: at,
    });
    const conditions = [
      condition('PodScheduled', true),
      condition('Initialized', true),
      condition('ContainersReady', isReady),
      condition('Ready', isReady),
    ];
    const container = { name, image, imageID: '', ready: isReady, started: true, restartCount: restarts };
    const status = {
      phase: 'Running',
      podIP: address,
      podIPs: [{ ip: address }],
      startTime: at,
      conditions,
      containerStatuses: [{ ...container, state: { running: { startedAt: at } } }],
    };
    const path = this.#path('pods', pod.name, 'status');
    const answer = await this.#options.plane.call('PATCH', path, { metadata: { uid: pod.uid }, status });
    if (answer.status !== 200 && !pod.isStopping)
      throw new Error(`status of ${pod.name}: ${JSON.stringify(answer.body)}`);
  }

  /** preStop, SIGTERM, and SIGKILL when the time is over; then the pod is gone. */
  async #end(pod: RunningPod): Promise<void> {
    const { network, namespace, service } = this.#options;
    const { terminationGracePeriodSeconds: grace = 30, containers } = pod.object.spec;
    const seconds = containers[0]?.lifecycle?.preStop?.sleep?.seconds ?? 0;
    await pause(seconds * 1_000);
    const { child } = pod;
    if (child !== null) {
      await stopProcess(child, (grace - seconds) * 1_000);
      const how = child.signalCode ?? child.exitCode;
      if (how !== 0) this.incidents.push(`${pod.name} was stopped and ended with ${how}`);
    }
    this.#pods.delete(pod.uid);
    if (this.pod(pod.name) === undefined) network.call(`${pod.name}.${service}.${namespace}.svc`, null);
    await this.#forget(pod.object);
  }

  /** A pod of the same name may be there already. */
  async #forget({ metadata: { name, uid } }: PodObject): Promise<void> {
    const options = { apiVersion: 'v1', kind: 'DeleteOptions', gracePeriodSeconds: 0, preconditions: { uid } };
    await this.#options.plane.call('DELETE', this.#path('pods', name), options);
  }
}

/**
 * Seeds by the Kubernetes API: the EndpointSlices of one service, listed once and then watched. What is done on each kind of end follows
 * the API's own concepts ("Efficient detection of changes") and what its Go client does (client-go tools/cache/reflector.go).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { EndpointSlices, field, list } from './endpoint-slices.ts';
import { Findings } from './findings.ts';
import { ApiError, KubernetesApi, type Query } from './kubernetes-api.ts';
import type { Discovery, DiscoveryEvents } from './types.ts';

/** Slices of one answer: a page of full ones stays well below the cap of an answer. */
const PAGE_SLICES = 20;
const PAGES_MAX = 10;
/** The server ends a watch after this and up to as much again, so that not all come back at once. */
const WATCH_S = 240;
/** A watch that lives longer than it was to has lost its server. */
const WATCH_LIFE_MS = (2 * WATCH_S + 30) * 1_000;
/** Wait after a failure: doubled from one to the next, and half of it up to chance. */
const BACKOFF_MS = { first: 500, max: 30_000 } as const;
const VERSION_LENGTH_MAX = 256;

export interface KubernetesOptions {
  readonly service: string;
  /** Null: that of the pod, or of the kubeconfig. */
  readonly namespace: string | null;
  /** Of the port in the service. */
  readonly portName: string;
  /** A kubeconfig; null: the service account of the pod. */
  readonly configFile: string | null;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** In front of the folder of the service account. */
  readonly root?: string;
  readonly graceMs?: number;
  /** First wait after a failure. */
  readonly backoffMs?: number;
}

export class KubernetesDiscovery implements Discovery {
  readonly #options: KubernetesOptions;
  readonly #findings: Findings;
  readonly #slices: EndpointSlices;
  readonly #stop = new AbortController();
  /** How far the API has been read; null: list it anew. */
  #version: string | null = null;

  constructor(options: KubernetesOptions, events: DiscoveryEvents) {
    this.#options = options;
    this.#findings = new Findings(events, 'discovery kubernetes', options.graceMs);
    this.#slices = new EndpointSlices(options.portName);
  }

  start(): void {
    void this.#run();
  }

  stop(): void {
    this.#findings.close();
    this.#stop.abort();
  }

  async #run(): Promise<void> {
    const { configFile, root = '', random, backoffMs: first = BACKOFF_MS.first } = this.#options;
    let api: KubernetesApi | null = null;
    let failures = 0;
    while (!this.#stop.signal.aborted) {
      try {
        api ??= await KubernetesApi.open({ configFile, root });
        // A watch that ends at once and says nothing is no success: without a wait it would be asked for without end.
        failures = (await this.#follow(api)) ? 0 : failures + 1;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        failures += 1;
        this.#handle(error);
      }
      const delayMs = backoffMs(first, failures, random());
      await sleep(delayMs, undefined, { signal: this.#stop.signal }).catch(() => undefined);
    }
  }

  #handle(error: ApiError): void {
    // What is known may be wrong, or too old to go on from.
    this.#version = null;
    // Gone: the server remembers changes for some minutes only, which is no problem.
    if (error.status !== 410) this.#findings.problem(error.message);
  }

  /** Until the watch ends; true if it said anything. */
  async #follow(api: KubernetesApi): Promise<boolean> {
    const namespace = this.#options.namespace ?? api.namespace;
    const path = `/apis/discovery.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/endpointslices`;
    const query = { labelSelector: `kubernetes.io/service-name=${this.#options.service}` };
    let verb: 'list' | 'watch' = 'list';
    let saysSomething = false;
    try {
      if (this.#version === null) {
        this.#version = await this.#list(api, path, query);
        this.#report(namespace, false);
      }
      verb = 'watch';
      const events = await api.watch(path, this.#watchQuery(query), this.#stop.signal, WATCH_LIFE_MS);
      this.#report(namespace, true);
      for await (const event of events) {
        saysSomething = true;
        if (this.#take(event)) this.#report(namespace, true);
      }
    } catch (error) {
      throw error instanceof ApiError ? explained(error, verb, namespace) : error;
    }
    return saysSomething;
  }

  #watchQuery(query: Query): Query {
    return {
      ...query,
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion: this.#version ?? '',
      timeoutSeconds: String(Math.round(WATCH_S * (1 + this.#options.random()))),
    };
  }

  /** The version up to which the list goes. */
  async #list(api: KubernetesApi, path: string, query: Query): Promise<string> {
    const slices: unknown[] = [];
    let version: string | null = null;
    let next = '';
    for (let page = 0; page < PAGES_MAX; page += 1) {
      const asked = { ...query, limit: String(PAGE_SLICES), ...(next !== '' && { continue: next }) };
      const answer = await api.get(path, asked, this.#stop.signal);
      const metadata = field(answer, 'metadata');
      version = versionIn(metadata);
      if (version === null || !Array.isArray(field(answer, 'items'))) throw new ApiError('an answer that is no list');
      slices.push(...list(field(answer, 'items')));
      const more = field(metadata, 'continue');
      if (typeof more !== 'string' || more === '') break;
      next = more;
    }
    this.#slices.clear();
    for (const slice of slices) {
      if (!this.#slices.put(slice)) throw new ApiError('a list with something that is no EndpointSlice');
    }
    if (version === null) throw new ApiError('an answer that is no list');
    return version;
  }

  /** True if it may have changed what is known. */
  #take(event: unknown): boolean {
    const object = field(event, 'object');
    const type = field(event, 'type');
    if (type === 'ERROR') {
      const [code, message] = [field(object, 'code'), field(object, 'message')];
      throw new ApiError(String(message ?? 'an error without a message'), typeof code === 'number' ? code : null);
    }
    const version = versionIn(field(object, 'metadata'));
    if (version === null) throw new ApiError('an event that is none of an object');
    this.#version = version;
    if (type === 'BOOKMARK') return false;
    const isTaken = type === 'DELETED' ? this.#slices.remove(object) : this.#slices.put(object);
    if (!isTaken) throw new ApiError('an event of something that is no EndpointSlice');
    return true;
  }

  #report(namespace: string, isWell: boolean): void {
    const nothing = `service ${namespace}/${this.#options.service} has no addresses: does it exist, and publish those that are not ready?`;
    this.#findings.found(this.#slices.addresses(), nothing, isWell);
  }
}

/** `failures` in a row, 0 or more; `random` in [0, 1). */
export function backoffMs(first: number, failures: number, random: number): number {
  const whole = Math.min(BACKOFF_MS.max, first * 2 ** Math.max(0, Math.min(failures, 30) - 1));
  return whole * (0.5 + random / 2);
}

/** The same, with what would help. */
function explained(error: ApiError, verb: 'list' | 'watch', namespace: string): ApiError {
  const { status, message } = error;
  if (status === 403) {
    const role = `the Role of this account in ${namespace} needs the verbs list and watch on endpointslices of discovery.k8s.io`;
    return new ApiError(`may not ${verb}: ${role} (${message})`, status, error);
  }
  if (status === 401) return new ApiError(`the token is not taken, or no longer (${message})`, status, error);
  return new ApiError(`cannot ${verb} endpointslices: ${message}`, status, error);
}

function versionIn(metadata: unknown): string | null {
  const version = field(metadata, 'resourceVersion');
  return typeof version === 'string' && version !== '' && version.length <= VERSION_LENGTH_MAX ? version : null;
}

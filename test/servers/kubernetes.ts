/**
 * The part of the Kubernetes API that serves EndpointSlices, for faults of the wire: list in pages, watch with bookmarks, and all the ways to
 * fail. How a real control plane behaves is tested with one (npm run check:kubernetes).
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import { CertificateAuthority } from '../support/certificates.ts';

export interface Slice {
  readonly metadata: {
    readonly name: string;
    readonly labels: Readonly<Record<string, string>>;
    resourceVersion?: string;
  };
  readonly addressType: string;
  readonly ports: readonly unknown[] | null;
  readonly endpoints: readonly unknown[] | null;
}

export interface Asked {
  readonly kind: 'list' | 'watch';
  readonly namespace: string;
  readonly query: Readonly<Record<string, string>>;
  readonly authorization: string;
}

/** What the next requests meet instead of an answer; it may answer by itself. */
export type Fault = (asked: Asked, response: ServerResponse) => void;

const PATH = /^\/apis\/discovery\.k8s\.io\/v1\/namespaces\/([^/]+)\/endpointslices$/;
const SERVICE_ACCOUNT = 'var/run/secrets/kubernetes.io/serviceaccount';

/** A slice as the controller makes it, of a service whose gossip port is 7946. */
export function slice(name: string, addresses: readonly string[], changes: Partial<Slice> = {}): Slice {
  return {
    metadata: { name, labels: { 'kubernetes.io/service-name': 'brokers' } },
    addressType: 'IPv4',
    ports: [
      { name: 'grpc', port: 8081, protocol: 'TCP' },
      { name: 'gossip', port: 7946, protocol: 'TCP' },
    ],
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: false, serving: false } })),
    ...changes,
  };
}

export class KubernetesServer {
  readonly port: number;
  /** A kubeconfig that logs in with a token. */
  readonly configFile: string;
  /** Of a pod: `var/run/secrets/…` below it has token, namespace and certificate authority. */
  readonly root: string;
  readonly asked: Asked[] = [];
  token = 'secret-1';
  fault: Fault | null = null;
  /** Faults of the one kind of request alone. */
  readonly faults = new Map<Asked['kind'], Fault>();
  readonly #server: Server;
  readonly #slices = new Map<string, Slice>();
  readonly #watchers = new Set<ServerResponse>();
  readonly #sockets = new Set<Socket>();
  #version = 100;
  /** What happened at which version, for watches that begin behind it. */
  readonly #events: { readonly version: number; readonly text: string }[] = [];
  #isSilent = false;

  private constructor(server: Server, folder: string, authority: CertificateAuthority) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    this.root = `${join(folder, 'root')}/`;
    this.configFile = join(folder, 'kubeconfig');
    const account = join(this.root, SERVICE_ACCOUNT);
    mkdirSync(account, { recursive: true });
    writeFileSync(join(account, 'ca.crt'), readFileSync(authority.cert));
    writeFileSync(join(account, 'namespace'), 'mq\n');
    writeFileSync(join(account, 'token'), this.token);
    writeFileSync(this.configFile, kubeconfig(this.port, authority.cert, this.token));
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    server.on('request', (request, response) => this.#answer(request, response));
  }

  static async start(folder: string): Promise<KubernetesServer> {
    const authority = new CertificateAuthority(folder, 'kubernetes-ca');
    const { cert, key } = authority.issue('apiserver', 'IP:127.0.0.1');
    const server = createServer({ cert: readFileSync(cert), key: readFileSync(key) });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new KubernetesServer(server, folder, authority);
  }

  get connections(): number {
    return this.#sockets.size;
  }

  get watchers(): number {
    return this.#watchers.size;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  put(changed: Slice): void {
    const isNew = !this.#slices.has(changed.metadata.name);
    this.#tell(isNew ? 'ADDED' : 'MODIFIED', changed);
    this.#slices.set(changed.metadata.name, this.#last as Slice);
  }

  remove(name: string): void {
    const gone = this.#slices.get(name);
    if (gone === undefined) throw new Error(`there is no slice ${name}`);
    this.#slices.delete(name);
    this.#tell('DELETED', gone);
  }

  /** Changes that no watcher hears of, later ones neither. */
  async silently(change: () => void): Promise<void> {
    const watchers = [...this.#watchers];
    this.#watchers.clear();
    this.#isSilent = true;
    change();
    this.#isSilent = false;
    for (const watcher of watchers) this.#watchers.add(watcher);
  }

  bookmark(): void {
    this.#version += 1;
    this.send(
      `${JSON.stringify({ type: 'BOOKMARK', object: { metadata: { resourceVersion: String(this.#version) } } })}\n`,
    );
  }

  /** Whatever it is, to all watchers. */
  send(text: string): void {
    for (const watcher of this.#watchers) watcher.write(text);
  }

  endWatches(): void {
    for (const watcher of this.#watchers) watcher.end();
  }

  /** Without a goodbye. */
  breakConnections(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  get version(): number {
    return this.#version;
  }

  #last: Slice | null = null;

  #tell(type: string, object: Slice): void {
    this.#version += 1;
    const resourceVersion = String(this.#version);
    this.#last = { ...object, metadata: { ...object.metadata, resourceVersion } };
    const text = `${JSON.stringify({ type, object: this.#last })}\n`;
    if (!this.#isSilent) this.#events.push({ version: this.#version, text });
    this.send(text);
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '', 'https://localhost');
    const namespace = PATH.exec(url.pathname)?.[1];
    if (namespace === undefined || request.method !== 'GET') {
      refuse(response, 404, 'the server could not find it');
      return;
    }
    const query = Object.fromEntries(url.searchParams);
    const kind = query.watch === 'true' ? 'watch' : 'list';
    const asked: Asked = { kind, namespace, query, authorization: request.headers.authorization ?? '' };
    this.asked.push(asked);
    const fault = this.fault ?? this.faults.get(kind);
    if (fault !== undefined && fault !== null) fault(asked, response);
    else if (asked.authorization !== `Bearer ${this.token}`) refuse(response, 401, 'Unauthorized');
    else this.#serve(asked, response);
  }

  #serve({ kind, query }: Asked, response: ServerResponse): void {
    response.writeHead(200, { 'content-type': 'application/json' });
    if (kind === 'list') {
      response.end(JSON.stringify(this.#page(query)));
    } else {
      response.flushHeaders();
      // What came between the list and the watch.
      for (const { version, text } of this.#events) {
        if (version > Number(query.resourceVersion)) response.write(text);
      }
      this.#watchers.add(response);
      response.on('close', () => this.#watchers.delete(response));
    }
  }

  #page(query: Asked['query']): object {
    const [, service = ''] = /^kubernetes\.io\/service-name=(.*)$/.exec(query.labelSelector ?? '') ?? [];
    const all = [...this.#slices.values()].filter(
      ({ metadata }) => metadata.labels['kubernetes.io/service-name'] === service,
    );
    const begin = Number(query.continue ?? 0);
    const end = begin + Number(query.limit);
    const more = end < all.length ? { continue: String(end) } : {};
    return {
      kind: 'EndpointSliceList',
      metadata: { resourceVersion: String(this.#version), ...more },
      items: all.slice(begin, end),
    };
  }
}

export function refuse(response: ServerResponse, code: number, text: string): void {
  response.writeHead(code, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ kind: 'Status', status: 'Failure', code, message: text }));
}

function kubeconfig(port: number, authority: string, token: string): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster: { server: `https://127.0.0.1:${port}`, 'certificate-authority': authority } }],
    users: [{ name: 'test', user: { token } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test', namespace: 'from-context' } }],
    'current-context': 'test',
  });
}

import { once } from 'node:events';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { peerOf } from '../base/peer-address.ts';
import { contextOptions, HANDSHAKE_TIMEOUT_MS, type TlsVersion } from '../tls/contexts.ts';
import { carrierOf, HandshakeWatch, type TlsNews } from '../tls/handshake-watch.ts';
import type { TlsKeeper } from '../tls/tls-keeper.ts';
import { BrowserGuard, type Refusal } from './admin-guards.ts';

export interface Health {
  readonly ready: boolean;
  /** What is missing, for people; empty when ready. */
  readonly reasons: readonly string[];
}

/** What the pages ask of the broker. All answer at once, but for the metrics. */
export interface AdminSources {
  metrics(): Promise<string>;
  readonly metricsContentType: string;
  /** Does the process live: the Raft thread. Shards that die are replaced. A supervisor restarts the process when this says no. */
  alive(): Health;
  /** Should it get traffic: Raft quorum, last result of the store, not shutting down. */
  ready(): Health;
  /** A page failed: a defect, answered with 500. */
  onError(error: unknown): void;
  /** Pages for people, if there are any. */
  readonly pages?: AdminPages;
  /** Why somebody does not get the metrics; null if they do. Absent: everybody does. `peer`: HOST:PORT. */
  readonly refuseMetrics?: (authorization: string | undefined, peer: string) => Promise<Refusal | null>;
}

/** A request that has passed all guards. */
export interface AdminRequest {
  /** GET, HEAD or POST. */
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  /** HOST:PORT */
  readonly peer: string;
  /** It came by TLS. */
  readonly isSecure: boolean;
  /** Of a POST; at most `bodyBytes` of the limits. */
  readonly body: Buffer;
}

export interface AdminPage {
  readonly status: number;
  readonly type: string;
  readonly body: string | Buffer;
  /** Beside those that every answer has, or in place of them. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Pages beside those for machines, shown to browsers that call this node by a name that it knows. */
export interface AdminPages {
  /** By which browsers may call it, beside addresses and localhost. */
  readonly hosts: readonly string[];
  /** Null: there is no such page. */
  answer(request: AdminRequest): Promise<AdminPage | null>;
}

/** With it the port speaks HTTPS. Clients are not asked for certificates: browsers and probes have none. */
export interface AdminTls {
  readonly keeper: Pick<TlsKeeper, 'material' | 'listen'>;
  readonly minVersion: TlsVersion;
  readonly news: TlsNews;
}

/** Scrapers, probes and consoles are few and quick; whoever is not is cut off. Times in ms. */
export interface AdminLimits {
  readonly connections: number;
  readonly headerBytes: number;
  readonly bodyBytes: number;
  readonly headersTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly checkIntervalMs: number;
  readonly requestsPerConnection: number;
  /** Being made at one time, over all connections: one alone can ask for many before it reads an answer. */
  readonly answers: number;
}

const LIMITS: AdminLimits = {
  connections: 64,
  headerBytes: 8 * 1024,
  bodyBytes: 16 * 1024,
  headersTimeoutMs: 5_000,
  requestTimeoutMs: 10_000,
  idleTimeoutMs: 10_000,
  checkIntervalMs: 2_000,
  requestsPerConnection: 1_000,
  answers: 32,
};
/** Time for answers on their way when the server closes. */
const CLOSE_GRACE_MS = 500;
const RETRY_AFTER_S = '1';

/** Nothing of what this port shows is for another site, to embed, to run or to guess the kind of. */
const HEADERS: Readonly<Record<string, string>> = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
};

/** GET and HEAD of /metrics, /healthz and /readyz under any name, and the pages for people. */
export class AdminServer {
  readonly #sources: AdminSources;
  readonly #guard: BrowserGuard;
  readonly #limits: AdminLimits;
  readonly #server: Server;
  /** Open ones, in the order in which they came, or asked for something last. */
  readonly #sockets = new Set<Socket>();
  /** Those whose answer is being made. */
  readonly #asking = new WeakSet<Socket>();
  #answers = 0;

  constructor(sources: AdminSources, limits: Partial<AdminLimits> = {}, tls: AdminTls | null = null) {
    this.#sources = sources;
    this.#limits = { ...LIMITS, ...limits };
    this.#guard = new BrowserGuard(sources.pages?.hosts ?? []);
    const { headerBytes, headersTimeoutMs, requestTimeoutMs, idleTimeoutMs, checkIntervalMs } = this.#limits;
    const options = {
      maxHeaderSize: headerBytes,
      headersTimeout: headersTimeoutMs,
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: idleTimeoutMs,
      connectionsCheckingInterval: checkIntervalMs,
    };
    const onRequest = (request: IncomingMessage, response: ServerResponse): void =>
      void this.#answer(request, response);
    this.#server = tls === null ? createServer(options, onRequest) : secureServer(options, tls, onRequest);
    this.#server.on('connection', (socket) => this.#makeRoom(socket));
    this.#server.maxRequestsPerSocket = this.#limits.requestsPerConnection;
    this.#server.timeout = requestTimeoutMs + idleTimeoutMs;
  }

  /** Resolves with the port, which is of interest for port 0. Rejects with the system's error (EADDRINUSE, EACCES, …). */
  async listen(host: string, port: number): Promise<number> {
    this.#server.listen({ host, port });
    await once(this.#server, 'listening');
    return (this.#server.address() as AddressInfo).port;
  }

  /** Refuses new connections, lets answers on their way finish for a moment, then cuts. May be called again. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    // All of them: Node's own list lacks those in the middle of their handshake.
    const cut = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy();
    }, CLOSE_GRACE_MS);
    await closed;
    clearTimeout(cut);
  }

  /** Who has asked for nothing for the longest time goes, but none whose answer is being made: else whoever holds all connections would keep probes out, which would end a broker that is well. */
  #makeRoom(newest: Socket): void {
    this.#sockets.add(newest);
    newest.once('close', () => this.#sockets.delete(newest));
    if (this.#sockets.size <= this.#limits.connections) return;
    for (const socket of this.#sockets) {
      if (this.#asking.has(socket)) continue;
      socket.destroy();
      return;
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const socket = carrierOf(request.socket);
    // From now on it is the newest.
    if (this.#sockets.delete(socket)) this.#sockets.add(socket);
    let page: AdminPage | null;
    try {
      const received = await this.#received(request);
      page = Buffer.isBuffer(received) ? await this.#page(request, received) : received;
    } catch (error) {
      this.#sources.onError(error);
      page = json(500, { error: 'this page failed; the log says why' });
    }
    // The client has gone, or was cut off in the middle of its request.
    if (page === null) return;
    for (const [name, value] of Object.entries({ ...HEADERS, ...page.headers })) response.setHeader(name, value);
    // 304 tells nothing of a content that it does not bring.
    if (page.status !== 304) {
      response.setHeader('Content-Type', page.type);
      response.setHeader('Content-Length', Buffer.byteLength(page.body));
    }
    // What is left of a request is not waited for.
    if (!request.complete) response.setHeader('Connection', 'close');
    response.writeHead(page.status);
    // Node leaves the body out of an answer to HEAD and keeps its length.
    response.end(page.body);
  }

  /** The body of a request that is whole; a page if it is refused, null if it did not come. */
  async #received(request: IncomingMessage): Promise<Buffer | AdminPage | null> {
    const { method = '', url = '' } = request;
    const { path } = pathOf(url);
    const { pages } = this.#sources;
    const isForMachines = path === '/metrics' || path === '/healthz' || path === '/readyz';
    if (method !== 'GET' && method !== 'HEAD' && (isForMachines || pages === undefined || method !== 'POST')) {
      const allowed = isForMachines || pages === undefined ? 'GET, HEAD' : 'GET, HEAD, POST';
      return notAllowed(method, allowed);
    }
    return await this.#body(request);
  }

  /** Probes have their answer whatever others ask: without it a supervisor would end a broker that is well. */
  async #page(request: IncomingMessage, body: Buffer): Promise<AdminPage> {
    switch (pathOf(request.url ?? '').path) {
      case '/healthz':
        return healthPage(this.#sources.alive());
      case '/readyz':
        return healthPage(this.#sources.ready());
      default:
        return await this.#made(request, body);
    }
  }

  /** Counted from here on: a request may be on its way for seconds, and its answer be left unread. */
  async #made(request: IncomingMessage, body: Buffer): Promise<AdminPage> {
    if (this.#answers >= this.#limits.answers) return busy();
    const socket = carrierOf(request.socket);
    this.#asking.add(socket);
    this.#answers += 1;
    try {
      const { path, query } = pathOf(request.url ?? '');
      if (path !== '/metrics') return await this.#guardedPage(request, { path, query, body });
      const refusal =
        (await this.#sources.refuseMetrics?.(request.headers.authorization, peerOf(request.socket))) ?? null;
      if (refusal !== null) return refused(refusal);
      return { status: 200, type: this.#sources.metricsContentType, body: await this.#sources.metrics() };
    } finally {
      this.#answers -= 1;
      this.#asking.delete(socket);
    }
  }

  async #guardedPage(
    request: IncomingMessage,
    asked: { readonly path: string; readonly query: string; readonly body: Buffer },
  ): Promise<AdminPage> {
    const { pages } = this.#sources;
    if (pages === undefined) return notFound(['/metrics', '/healthz', '/readyz']);
    const { headers, method = '' } = request;
    const { path, query, body } = asked;
    const refusal = this.#guard.refusal({ method, path, hosts: request.headersDistinct.host ?? [], headers });
    if (refusal !== null) return refused(refusal);
    const { socket } = request;
    const isSecure = 'encrypted' in socket && socket.encrypted === true;
    const peer = peerOf(socket);
    const page = await pages.answer({ method, path, query: new URLSearchParams(query), headers, peer, isSecure, body });
    return page ?? notFound(['/', '/metrics', '/healthz', '/readyz']);
  }

  /** The whole body, which only a POST has; a page if it is refused, null if it did not come. */
  async #body(request: IncomingMessage): Promise<Buffer | AdminPage | null> {
    const most = request.method === 'POST' ? this.#limits.bodyBytes : 0;
    const tooLarge = json(413, { error: `the body is larger than ${most} bytes`, next: 'send a smaller one' });
    if (Number(request.headers['content-length'] ?? 0) > most) return tooLarge;
    const parts: Buffer[] = [];
    let length = 0;
    try {
      // Leaving the loop would otherwise destroy the connection, and the answer with it.
      for await (const part of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        length += part.length;
        if (length > most) break;
        parts.push(part);
      }
    } catch (error) {
      // Cut off or too slow: Node has answered by itself, or there is nobody any more.
      if (request.errored === error) return null;
      throw error;
    }
    return length > most ? tooLarge : Buffer.concat(parts);
  }
}

function secureServer(options: ServerOptions, tls: AdminTls, onRequest: RequestListener): Server {
  const context = () => contextOptions(tls.keeper.material, tls.minVersion);
  const server = createSecureServer({ ...options, ...context(), handshakeTimeout: HANDSHAKE_TIMEOUT_MS }, onRequest);
  tls.keeper.listen(() => server.setSecureContext(context()));
  new HandshakeWatch('admin', tls.news).watch(server);
  return server;
}

function pathOf(url: string): { readonly path: string; readonly query: string } {
  const [path = '', query = ''] = url.split('?', 2) as [string, string?];
  return { path, query };
}

function healthPage({ ready, reasons }: Health): AdminPage {
  return json(ready ? 200 : 503, { status: ready ? 'ok' : 'unavailable', reasons });
}

function notFound(pages: readonly string[]): AdminPage {
  return json(404, { error: 'no such page', pages });
}

function busy(): AdminPage {
  const page = json(503, { error: 'too many pages are being made', next: 'wait for answers before asking for more' });
  // What else was sent in one go is a flood.
  return { ...page, headers: { 'Retry-After': RETRY_AFTER_S, Connection: 'close' } };
}

/** `allowed`: as the header Allow has it. */
export function notAllowed(method: string, allowed: string): AdminPage {
  const page = json(405, { error: `${method} is not allowed; use ${allowed.split(',', 1)[0]}` });
  return { ...page, headers: { Allow: allowed } };
}

export function refused({ status, error, next, retryAfterMs = 0 }: Refusal): AdminPage {
  const page = withRetryAfter(json(status, { error, next }), retryAfterMs);
  return status === 401 ? { ...page, headers: { 'WWW-Authenticate': 'Bearer realm="broker"' } } : page;
}

/** `retryAfterMs`: when to ask again; 0: time alone changes nothing. HTTP counts whole seconds. */
export function withRetryAfter(page: AdminPage, retryAfterMs: number): AdminPage {
  if (retryAfterMs === 0) return page;
  return { ...page, headers: { ...page.headers, 'Retry-After': String(Math.ceil(retryAfterMs / 1_000)) } };
}

export function json(status: number, value: unknown): AdminPage {
  return { status, type: 'application/json', body: `${JSON.stringify(value)}\n` };
}

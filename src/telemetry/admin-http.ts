import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Health {
  readonly ready: boolean;
  /** What is missing, for people; empty when ready. */
  readonly reasons: readonly string[];
}

/** What the pages ask of the broker. All answer at once, but for the metrics. */
export interface AdminSources {
  metrics(): Promise<string>;
  readonly metricsContentType: string;
  /** Does the process live: the raft thread and every shard. A supervisor restarts the process when this says no. */
  alive(): Health;
  /** Should it get traffic: Raft quorum, last result of the store, not shutting down. */
  ready(): Health;
  /** A page failed: a defect, answered with 500. */
  onError(error: unknown): void;
}

/** Scrapers and probes are few and quick; whoever is not is cut off. */
const CONNECTIONS_MAX = 64;
const HEADER_BYTES_MAX = 8 * 1024;
const HEADERS_TIMEOUT_MS = 5_000;
const REQUEST_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 10_000;
const CHECK_INTERVAL_MS = 2_000;
const REQUESTS_PER_CONNECTION_MAX = 1_000;
/** Time for answers on their way when the server closes. */
const CLOSE_GRACE_MS = 500;

interface Page {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

/** GET and HEAD of /metrics, /healthz and /readyz. */
export class AdminServer {
  readonly #sources: AdminSources;
  readonly #server: Server;

  constructor(sources: AdminSources) {
    this.#sources = sources;
    const limits = {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: IDLE_TIMEOUT_MS,
      connectionsCheckingInterval: CHECK_INTERVAL_MS,
    };
    this.#server = createServer(limits, (request, response) => void this.#answer(request, response));
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#server.maxRequestsPerSocket = REQUESTS_PER_CONNECTION_MAX;
    this.#server.timeout = REQUEST_TIMEOUT_MS + IDLE_TIMEOUT_MS;
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
    const cut = setTimeout(() => this.#server.closeAllConnections(), CLOSE_GRACE_MS);
    await closed;
    clearTimeout(cut);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A body is of no interest, but must be read for the connection to go on.
    request.resume();
    let page: Page;
    try {
      page = await this.#page(request.method ?? '', (request.url ?? '').split('?', 1)[0] as string);
    } catch (error) {
      this.#sources.onError(error);
      page = json(500, { error: 'this page failed; the log says why' });
    }
    response.setHeader('Content-Type', page.type);
    response.setHeader('Content-Length', Buffer.byteLength(page.body));
    response.setHeader('Cache-Control', 'no-store');
    response.setHeader('X-Content-Type-Options', 'nosniff');
    if (page.status === 405) response.setHeader('Allow', 'GET, HEAD');
    response.writeHead(page.status);
    // Node leaves the body out of an answer to HEAD and keeps its length.
    response.end(page.body);
  }

  async #page(method: string, path: string): Promise<Page> {
    if (method !== 'GET' && method !== 'HEAD') return json(405, { error: `${method} is not allowed; use GET` });
    switch (path) {
      case '/metrics':
        return { status: 200, type: this.#sources.metricsContentType, body: await this.#sources.metrics() };
      case '/healthz':
        return healthPage(this.#sources.alive());
      case '/readyz':
        return healthPage(this.#sources.ready());
      default:
        return json(404, { error: 'no such page', pages: ['/metrics', '/healthz', '/readyz'] });
    }
  }
}

function healthPage({ ready, reasons }: Health): Page {
  return json(ready ? 200 : 503, { status: ready ? 'ok' : 'unavailable', reasons });
}

function json(status: number, value: unknown): Page {
  return { status, type: 'application/json', body: `${JSON.stringify(value)}\n` };
}

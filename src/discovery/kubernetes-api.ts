/**
 * Requests to the Kubernetes API. @kubernetes/client-node knows where it is and how to log in: service accounts whose token changes,
 * kubeconfig files with all their ways. Sending and reading are done here: its Watch reads lines of any length, leaves out what it cannot
 * parse, makes an agent for each request that nobody closes, and keeps what the server says of a refusal to itself.
 */
import { once } from 'node:events';
import { type IncomingMessage, request as requestPlain } from 'node:http';
import { type RequestOptions, request as requestEncrypted } from 'node:https';
import type { KubeConfig } from '@kubernetes/client-node';
import { field } from './endpoint-slices.ts';

/** One page of a list. */
export const BODY_BYTES_MAX = 16 * 1024 * 1024;
/** One event. What etcd keeps of an object is at most 1.5 MiB, in a form that is shorter than JSON. */
export const LINE_BYTES_MAX = 4 * 1024 * 1024;
/** Of an answer that is a refusal; the rest is not read. */
const REFUSAL_BYTES_MAX = 16 * 1024;
/** Until an answer begins, and until that of a list has ended. */
const ANSWER_TIMEOUT_MS = 30_000;
const KEEP_ALIVE_MS = 30_000;
const LINE_END = 10;

/** Anything that can go wrong between here and the API. `status`: of HTTP, if that is what the server answered. */
export class ApiError extends Error {
  override name = 'ApiError';
  readonly status: number | null;

  constructor(message: string, status: number | null = null, cause?: unknown) {
    super(message, { cause });
    this.status = status;
  }
}

export interface Place {
  /** A kubeconfig; null: what a pod is given. */
  readonly configFile: string | null;
  /** In front of the folder of the service account. */
  readonly root: string;
}

export type Query = Readonly<Record<string, string>>;

export class KubernetesApi {
  readonly #config: KubeConfig;
  readonly #server: string;
  /** That of the pod, or of the current context of the kubeconfig. */
  readonly namespace: string;

  private constructor(config: KubeConfig, server: string) {
    this.#config = config;
    this.#server = server;
    // As kubectl has it where none is named.
    this.namespace = config.getContextObject(config.getCurrentContext())?.namespace?.trim() || 'default';
  }

  /** Throws ApiError. The package is large, and loaded only here: half a second and 80 MiB. */
  static async open({ configFile, root }: Place): Promise<KubernetesApi> {
    const { KubeConfig } = await import('@kubernetes/client-node').catch((error: unknown) => {
      throw new ApiError(`cannot load its client: ${messageOf(error)}`, null, error);
    });
    const config = new KubeConfig();
    try {
      if (configFile === null) config.loadFromCluster(root);
      else config.loadFromFile(configFile);
    } catch (error) {
      throw new ApiError(`cannot read ${configFile ?? 'the service account'}: ${messageOf(error)}`, null, error);
    }
    const server = config.getCurrentCluster()?.server;
    if (server !== undefined && URL.canParse(server)) return new KubernetesApi(config, server);
    throw new ApiError(
      configFile === null
        ? 'this is no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set'
        : `${configFile} has no current context with a server`,
    );
  }

  /** The whole answer. Throws ApiError. */
  async get(path: string, query: Query, signal: AbortSignal): Promise<unknown> {
    const within = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)]);
    const response = await this.#ask(path, query, within);
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of readable(response)) {
      bytes += chunk.length;
      if (bytes > BODY_BYTES_MAX) throw new ApiError(`an answer of more than ${BODY_BYTES_MAX} bytes`);
      chunks.push(chunk);
    }
    return parse(Buffer.concat(chunks).toString());
  }

  /**
   * The values of an answer that goes on, one a line, until it ends, its connection breaks, or `lifeMs` are over: all of them are an end.
   * Resolves when the server has agreed. Throws ApiError, and so does what it gives.
   */
  async watch(path: string, query: Query, signal: AbortSignal, lifeMs: number): Promise<AsyncGenerator<unknown>> {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), ANSWER_TIMEOUT_MS);
    const within = AbortSignal.any([signal, late.signal, AbortSignal.timeout(lifeMs)]);
    return values(await this.#ask(path, query, within).finally(() => clearTimeout(timer)));
  }

  async #ask(path: string, query: Query, signal: AbortSignal): Promise<IncomingMessage> {
    const url = new URL(`${this.#server}${path}?${new URLSearchParams(query)}`);
    try {
      const options: RequestOptions = { headers: { accept: 'application/json' }, signal };
      await this.#config.applyToHTTPSOptions(options);
      // Its agent is made once, and would go on with the certificates of then; only it knows the way through a proxy.
      if (!this.#config.getCurrentCluster()?.proxyUrl) options.agent = false;
      const request = (url.protocol === 'http:' ? requestPlain : requestEncrypted)(url, options);
      request.on('socket', (socket) => socket.setKeepAlive(true, KEEP_ALIVE_MS)).end();
      const [response] = (await once(request, 'response')) as [IncomingMessage];
      // After this, an error is one of the response.
      request.on('error', () => response.destroy());
      if (response.statusCode === 200) return response;
      throw await refusal(response);
    } catch (error) {
      throw error instanceof ApiError ? error : new ApiError(messageOf(error, signal), null, error);
    }
  }
}

async function* values(response: IncomingMessage): AsyncGenerator<unknown> {
  let held: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of readable(response, 'end')) {
    let begin = 0;
    for (let end = chunk.indexOf(LINE_END); end !== -1; end = chunk.indexOf(LINE_END, begin)) {
      held.push(chunk.subarray(begin, end));
      const line = Buffer.concat(held).toString();
      if (line !== '') yield parse(line);
      held = [];
      bytes = 0;
      begin = end + 1;
    }
    bytes += chunk.length - begin;
    if (bytes > LINE_BYTES_MAX) throw new ApiError(`an event of more than ${LINE_BYTES_MAX} bytes`);
    held.push(chunk.subarray(begin));
  }
}

/** What the server says of it: a Status, if it is the API that answers. */
async function refusal(response: IncomingMessage): Promise<ApiError> {
  let text = '';
  for await (const chunk of readable(response, 'end')) {
    text += chunk.toString();
    if (text.length > REFUSAL_BYTES_MAX) break;
  }
  response.destroy();
  let said: unknown;
  try {
    said = field(JSON.parse(text), 'message');
  } catch {
    // Something in between, that knows nothing of Status.
    said = null;
  }
  const status = response.statusCode ?? 0;
  return new ApiError(typeof said === 'string' ? said : `HTTP ${status}`, status);
}

/** The bytes of an answer. If the connection breaks: an ApiError, or the end of it. */
async function* readable(response: IncomingMessage, onBreak: 'throw' | 'end' = 'throw'): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of response) yield chunk as Buffer;
  } catch (error) {
    if (onBreak === 'throw') throw new ApiError(messageOf(error), null, error);
  } finally {
    response.destroy();
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ApiError('an answer that is no JSON', null, error);
  }
}

function messageOf(error: unknown, signal?: AbortSignal): string {
  if (signal?.aborted === true) return 'no answer in time';
  return error instanceof Error ? error.message : String(error);
}

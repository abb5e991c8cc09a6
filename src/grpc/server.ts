import type { Http2Server, ServerHttp2Session, ServerOptions } from 'node:http2';
import {
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';
import { type Endpoint, formatEndpoint } from '../config/endpoint.ts';
import { type AdminPort, addAdmin } from './admin.ts';
import type { Done, Engine } from './engine.ts';
import { addHealth, addReflection, SERVICES } from './reflection.ts';

/** limits.* of the configuration that hold at the door. */
export interface DoorLimits {
  readonly messageBytes: number;
  readonly streamsPerConnection: number;
  readonly connections: number;
}

export interface GrpcServerOptions {
  readonly engine: Engine;
  readonly admin: AdminPort;
  readonly limits: DoorLimits;
  /** 0 = connections are kept as long as the client likes. */
  readonly maxConnectionAgeMs: number;
}

/** Bytes that a client may send on one stream, and on one connection, before it must wait. Node's own 64 KiB stop a fast sender at every round trip. */
const STREAM_WINDOW_BYTES = 4 << 20;
const CONNECTION_WINDOW_BYTES = 8 << 20;
/** Headers of one request. */
const HEADER_LIST_BYTES = 16 << 10;
/** Resets a connection may send at once and per second: nghttp2's defaults (1,000 and 33) end honest clients that cancel many calls. */
const RESET_BURST = 10_000;
const RESET_RATE = 1_000;
const CONNECTION_AGE_GRACE_MS = 30_000;

const identity = (bytes: Buffer): Buffer => bytes;

/** Methods of the public service: requests and answers stay bytes; the codec reads them in place. */
const method = (name: string, responseStream: boolean) => ({
  path: `/broker.Broker/${name}`,
  requestStream: false,
  responseStream,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
});

export const BROKER_SERVICE = {
  publish: method('Publish', false),
  subscribe: method('Subscribe', true),
  fetch: method('Fetch', false),
  broadcast: method('Broadcast', false),
  incIdx: method('IncIdx', false),
} as const;

export class GrpcServer {
  readonly #server: Server;
  readonly #health: ReturnType<typeof addHealth>;
  readonly #connectionsMax: number;
  #connections = 0;
  #address = '';

  constructor(options: GrpcServerOptions) {
    const { limits } = options;
    this.#connectionsMax = limits.connections;
    this.#server = new Server({
      'grpc.max_concurrent_streams': limits.streamsPerConnection,
      'grpc.max_receive_message_length': limits.messageBytes,
      'grpc.max_send_message_length': limits.messageBytes * 2,
      'grpc.keepalive_time_ms': 60_000,
      'grpc.keepalive_timeout_ms': 20_000,
      ...(options.maxConnectionAgeMs === 0
        ? {}
        : {
            'grpc.max_connection_age_ms': options.maxConnectionAgeMs,
            'grpc.max_connection_age_grace_ms': CONNECTION_AGE_GRACE_MS,
          }),
    });
    setHttp2Options(this.#server);
    this.#server.addService(BROKER_SERVICE, handlersOf(options.engine));
    addAdmin(this.#server, options.admin);
    addReflection(this.#server);
    this.#health = addHealth(this.#server);
  }

  /** HOST:PORT that it listens on, once `listen` has resolved; the port is the real one if 0 was asked for. */
  get address(): string {
    return this.#address;
  }

  /** Rejects if the address cannot be had. */
  listen(endpoint: Endpoint): Promise<void> {
    return new Promise((resolve, reject) => {
      const address = formatEndpoint(endpoint);
      this.#server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) => {
        if (error !== null) {
          reject(new Error(`cannot listen on ${address}: ${error.message}`));
          return;
        }
        this.#address = formatEndpoint({ host: endpoint.host, port });
        for (const http2Server of http2ServersOf(this.#server)) this.#guard(http2Server);
        resolve();
      });
    });
  }

  setServing(isServing: boolean): void {
    for (const name of SERVICES) this.#health.setStatus(name, isServing ? 'SERVING' : 'NOT_SERVING');
  }

  /** No new calls; those in flight may finish within `graceMs`, then every connection is closed. */
  async drain(graceMs: number): Promise<void> {
    const over = new Promise<void>((resolve) => this.#server.tryShutdown(() => resolve()));
    const timer = setTimeout(() => this.#server.forceShutdown(), graceMs);
    await over;
    clearTimeout(timer);
  }

  /** The connection window, which Node leaves at 64 KiB, and the cap on connections. */
  #guard(http2Server: Http2Server): void {
    http2Server.on('session', (session: ServerHttp2Session) => {
      this.#connections += 1;
      session.once('close', () => {
        this.#connections -= 1;
      });
      if (this.#connections > this.#connectionsMax) {
        session.destroy();
        return;
      }
      session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    });
  }
}

export function createGrpcServer(options: GrpcServerOptions): GrpcServer {
  return new GrpcServer(options);
}

/**
 * grpc-js 1.14.7 has no option for these, so they go into the private record that it hands to http2.createServer (grpc-node#3058). The
 * version is pinned exactly, and the start fails here if the field is gone.
 */
function setHttp2Options(server: Server): void {
  const inner = server as unknown as { commonServerOptions?: ServerOptions & Record<string, unknown> };
  const options = inner.commonServerOptions;
  assert(typeof options === 'object' && options !== null, 'grpc-js has changed: no place for HTTP/2 options');
  options.settings = {
    ...options.settings,
    initialWindowSize: STREAM_WINDOW_BYTES,
    maxHeaderListSize: HEADER_LIST_BYTES,
  };
  options.streamResetBurst = RESET_BURST;
  options.streamResetRate = RESET_RATE;
}

function http2ServersOf(server: Server): Http2Server[] {
  const inner = server as unknown as { http2Servers?: Map<Http2Server, unknown> };
  assert(inner.http2Servers instanceof Map, 'grpc-js has changed: its HTTP/2 servers are not there');
  return [...inner.http2Servers.keys()];
}

/** Thin on purpose: a call that was cancelled before it got here costs nothing more. */
function handlersOf(engine: Engine) {
  const unary =
    (call: (request: Buffer, deadlineMs: number, done: Done) => void): handleUnaryCall<Buffer, Buffer> =>
    (handled: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>): void => {
      if (handled.cancelled) return;
      call(handled.request, deadlineOf(handled.getDeadline()), callback as Done);
    };
  return {
    publish: unary((request, deadlineMs, done) => engine.publish(request, deadlineMs, done)),
    fetch: unary((request, deadlineMs, done) => engine.fetch(request, deadlineMs, done)),
    broadcast: unary((request, deadlineMs, done) => engine.broadcast(request, deadlineMs, done)),
    incIdx: unary((request, deadlineMs, done) => engine.incIdx(request, deadlineMs, done)),
    subscribe: (stream: ServerWritableStream<Buffer, Buffer>): void => engine.subscribe(stream.request, stream),
  };
}

function deadlineOf(deadline: Date | number): number {
  return typeof deadline === 'number' ? deadline : deadline.getTime();
}

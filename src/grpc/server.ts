import {
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';
import type { Endpoint } from '../config/endpoint.ts';
import type { Log } from '../telemetry/log.ts';
import { type AdminPort, addAdmin } from './admin.ts';
import type { AnswerBudget } from './answer-budget.ts';
import { addCluster, type ClusterPort } from './cluster.ts';
import type { Done, Engine } from './engine.ts';
import {
  CONNECTION_WINDOW_BYTES,
  ConnectionGuard,
  effectiveWindows,
  explainUnknownMethods,
  http2ServersOf,
  STREAM_WINDOW_BYTES,
  setHttp2Options,
} from './http2-tuning.ts';
import { meterRequests } from './metered-decoder.ts';
import type { ReceiveBudget } from './receive-budget.ts';
import { addHealth, addReflection, SERVICES } from './reflection.ts';
import { makeStatus } from './status.ts';
import { addStreamServices, type PeerHandler } from './stream-services.ts';
import { explainTooLarge } from './too-large.ts';
import { openUnaryDoor, type UnaryHandler } from './unary-door.ts';

/** limits.* of the configuration that hold at the door. */
export interface DoorLimits {
  readonly messageBytes: number;
  readonly streamsPerConnection: number;
  readonly connections: number;
}

export interface GrpcServerOptions {
  readonly engine: Engine;
  readonly admin: AdminPort;
  readonly cluster: ClusterPort;
  /** Calls of other nodes; none: there are none, and the method does not exist. */
  readonly peers?: PeerHandler;
  readonly limits: DoorLimits;
  /** 0 = connections are kept as long as the client likes. */
  readonly maxConnectionAgeMs: number;
  /** Bounds the answers of Fetch that clients do not read; none in tests that need none. */
  readonly answers?: AnswerBudget;
  /** Bounds what is kept of requests that have not come to their end. */
  readonly receiving: ReceiveBudget;
  /** Where defects of the admin service are told. */
  readonly log?: Pick<Log, 'error'>;
}

const MEBIBYTE = 1 << 20;
/** Memory of one connection inside nghttp2, beside what is kept for each of its streams (their headers, above all). */
const SESSION_BYTES = 32 << 20;
const STREAM_BYTES = 4 << 10;
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
  readonly #guard: ConnectionGuard;
  /** Methods that are answered without grpc-js, by path. */
  readonly #hot: ReadonlyMap<string, UnaryHandler>;
  readonly #messageBytes: number;
  readonly #receiving: ReceiveBudget;
  #address = '';

  constructor(options: GrpcServerOptions) {
    const { limits, log } = options;
    this.#guard = new ConnectionGuard(limits.connections);
    this.#messageBytes = limits.messageBytes;
    this.#receiving = options.receiving;
    const { engine } = options;
    this.#hot = new Map([
      [BROKER_SERVICE.publish.path, (request, deadlineMs, done) => engine.publish(request, deadlineMs, done)],
    ]);
    this.#server = new Server({
      'grpc.max_concurrent_streams': limits.streamsPerConnection,
      'grpc.max_receive_message_length': limits.messageBytes,
      // A delivery is its request with a few fields more: what came in can always go out.
      'grpc.max_send_message_length': limits.messageBytes * 2,
      'grpc-node.max_session_memory': Math.ceil(
        (SESSION_BYTES + limits.streamsPerConnection * STREAM_BYTES) / MEBIBYTE,
      ),
      'grpc.keepalive_time_ms': 60_000,
      'grpc.keepalive_timeout_ms': 20_000,
      ...(options.maxConnectionAgeMs === 0
        ? {}
        : {
            'grpc.max_connection_age_ms': options.maxConnectionAgeMs,
            'grpc.max_connection_age_grace_ms': CONNECTION_AGE_GRACE_MS,
          }),
      // Nothing serves channelz here, and it costs a little on every call.
      'grpc.enable_channelz': 0,
      interceptors: [explainTooLarge, meterRequests(options.receiving)],
    });
    setHttp2Options(this.#server);
    explainUnknownMethods(this.#server);
    this.#server.addService(BROKER_SERVICE, handlersOf(options.engine, options.answers ?? null));
    addStreamServices(this.#server, options.engine, options.peers ?? null, escalate);
    const onDefect = (error: unknown): void => log?.error('a defect in the admin service', { error: String(error) });
    addAdmin(this.#server, options.admin, onDefect);
    addCluster(this.#server, options.cluster, onDefect);
    addReflection(this.#server);
    this.#health = addHealth(this.#server);
  }

  /** HOST:PORT that it listens on, once `listen` has resolved; the port is the real one if 0 was asked for. */
  get address(): string {
    return this.#address;
  }

  /** Connections that are open now, and how many were closed because there were too many. */
  get connections(): { readonly open: number; readonly refused: number } {
    return { open: this.#guard.open, refused: this.#guard.refused };
  }

  /** Rejects if the address cannot be had. */
  async listen({ host, port: wanted }: Endpoint): Promise<void> {
    const name = host.includes(':') ? `[${host}]` : host;
    const port = await this.#bind(`${name}:${wanted}`);
    this.#address = `${name}:${port}`;
    for (const http2Server of http2ServersOf(this.#server)) {
      this.#guard.watch(http2Server);
      openUnaryDoor(http2Server, this.#hot, {
        messageBytes: this.#messageBytes,
        receiving: this.#receiving,
        escalate,
      });
    }
    const windows = await effectiveWindows(host, port);
    assert(
      windows.stream === STREAM_WINDOW_BYTES && windows.connection >= CONNECTION_WINDOW_BYTES,
      () => `grpc-js has changed: the HTTP/2 windows have no effect (${JSON.stringify(windows)})`,
    );
  }

  #bind(address: string): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) => {
        if (error === null) resolve(port);
        else reject(new Error(`cannot listen on ${address}: ${error.message}`, { cause: error }));
      });
    });
  }

  setServing(isServing: boolean): void {
    for (const name of SERVICES) this.#health.setStatus(name, isServing ? 'SERVING' : 'NOT_SERVING');
  }

  /** No new calls; those in flight may finish within `graceMs`, then every connection is closed. */
  async drain(graceMs: number): Promise<void> {
    const over = new Promise<void>((resolve) => this.#server.tryShutdown(() => resolve()));
    const timer = setTimeout(() => {
      this.#server.forceShutdown();
      this.#guard.destroyAll();
    }, graceMs);
    await over;
    clearTimeout(timer);
  }
}

export function createGrpcServer(options: GrpcServerOptions): GrpcServer {
  return new GrpcServer(options);
}

/** Thin on purpose: a call that was cancelled before it got here costs nothing more. */
function handlersOf(engine: Engine, answers: AnswerBudget | null) {
  const unary =
    (
      call: (request: Buffer, deadlineMs: number, done: Done, handled: ServerUnaryCall<Buffer, Buffer>) => void,
    ): handleUnaryCall<Buffer, Buffer> =>
    (handled: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>): void => {
      if (wasCancelled(handled)) return;
      try {
        call(handled.request, deadlineOf(handled.getDeadline()), callback as Done, handled);
      } catch (defect) {
        callback(makeStatus('INTERNAL_ERROR', ''));
        escalate(defect);
      }
    };
  return {
    publish: unary((request, deadlineMs, done) => engine.publish(request, deadlineMs, done)),
    fetch: unary((request, deadlineMs, done, handled) => {
      if (answers === null) {
        engine.fetch(request, deadlineMs, done);
        return;
      }
      if (answers.isSpent) {
        done(makeStatus('IN_FLIGHT_FULL', ''));
        return;
      }
      engine.fetch(request, deadlineMs, (error, response) => {
        // Many may have been asked for before the first answer was known to be large.
        if (response !== undefined && !answers.tryHold(handled, response.length))
          done(makeStatus('IN_FLIGHT_FULL', ''));
        else done(error, response);
      });
    }),
    broadcast: unary((request, deadlineMs, done) => engine.broadcast(request, deadlineMs, done)),
    incIdx: unary((request, deadlineMs, done) => engine.incIdx(request, deadlineMs, done)),
    subscribe: (stream: ServerWritableStream<Buffer, Buffer>): void => {
      if (wasCancelled(stream)) return;
      try {
        engine.subscribe(stream.request, stream);
      } catch (defect) {
        stream.emit('error', makeStatus('INTERNAL_ERROR', ''));
        escalate(defect);
      }
    },
  };
}

/**
 * grpc-js hands over a call that was reset before its request had ended as if it had ended, with `cancelled` still false: the call
 * inside knows.
 */
function wasCancelled(handled: object): boolean {
  return (handled as { call?: { checkCancelled?: () => boolean } }).call?.checkCancelled?.() === true;
}

/** An engine never throws: what it throws is a broken invariant, and grpc-js would swallow it. It ends the process like any other. */
function escalate(defect: unknown): void {
  queueMicrotask(() => {
    throw defect;
  });
}

function deadlineOf(deadline: Date | number): number {
  return typeof deadline === 'number' ? deadline : deadline.getTime();
}

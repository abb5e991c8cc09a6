import type { ServerHttp2Session } from 'node:http2';
import {
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
} from '@grpc/grpc-js';
import type { Caller, CallOrigin } from '../access/caller.ts';
import { assert, defined } from '../base/assert.ts';
import { type Endpoint, formatEndpoint } from '../base/endpoint.ts';
import type { Log } from '../telemetry/log.ts';
import type { HandshakeWatch, TlsNews } from '../tls/handshake-watch.ts';
import { type AbuseLog, AbuseWatch, type CutReason } from './abuse-watch.ts';
import { type AdminAction, noteAdminActions } from './access/admin-actions.ts';
import { type AdminPort, addAdmin, addInspection, type InspectPort } from './admin.ts';
import type { AnswerBudget } from './answer-budget.ts';
import { type CallerSource, callerOf, lapseOf, OpenCallers, originOf } from './callers.ts';
import { addCluster, type ClusterPort } from './cluster.ts';
import { ConnectionGuard } from './connection-guard.ts';
import type { ConnectionNote } from './connection-note.ts';
import { addDebug, type DebugPort } from './debug.ts';
import type { CallTracing, Done, Engine } from './engine.ts';
import { Health } from './health.ts';
import {
  CONNECTION_WINDOW_BYTES,
  type EffectiveWindows,
  effectiveWindows,
  explainUnknownMethods,
  http2ServersOf,
  STREAM_WINDOW_BYTES,
  setHttp2Options,
  windowsBehindTls,
} from './http2-tuning.ts';
import { meterRequests } from './metered-decoder.ts';
import type { ReceiveBudget } from './receive-budget.ts';
import { addReflection } from './reflection.ts';
import { addSettings, type SettingsPort } from './settings.ts';
import { makeStatus } from './status.ts';
import { addStreamServices, type PeerHandler } from './stream-services.ts';
import { addTenants, type TenantsPort } from './tenants.ts';
import { type DoorTls, TlsDoor, tellOfTls } from './tls-door.ts';
import { explainTooLarge } from './too-large.ts';
import { traceEarlyAnswers, traceOpen, traceparentOf, traceRefusals, traceUnary } from './traced-calls.ts';
import { type HotMethod, openUnaryDoor } from './unary-door.ts';
import { addVerify, type VerifyPort } from './verify.ts';

/** limits.* of the configuration that hold at the door. */
export interface DoorLimits {
  readonly messageBytes: number;
  readonly streamsPerConnection: number;
  readonly connections: number;
  readonly connectionsPerAddress: number;
  readonly handshakeTimeoutMs: number;
  readonly emptyBytes: number;
  readonly streams: number;
}

export interface GrpcServerOptions {
  readonly engine: Engine;
  readonly admin: AdminPort;
  /** None in tests that need none: its methods do not exist then. */
  readonly settings?: SettingsPort;
  /** None in tests that need none. */
  readonly verify?: VerifyPort;
  readonly debug?: DebugPort;
  /** None: its calls are not there, as in tests that need none. */
  readonly inspect?: InspectPort;
  readonly cluster: ClusterPort;
  /** None in tests that need none: the method does not exist. */
  readonly tenants?: TenantsPort;
  /** Calls of other nodes; none: there are none, and the method does not exist. */
  readonly peers?: PeerHandler;
  /** None: nobody has to say who they are. */
  readonly callers?: CallerSource;
  /** Is told what operators do; none in tests that need none. */
  readonly onAction?: (action: AdminAction) => void;
  readonly limits: DoorLimits;
  /** 0 = connections are kept as long as the client likes. */
  readonly maxConnectionAgeMs: number;
  /** Bounds the answers of Fetch that clients do not read; none in tests that need none. */
  readonly answers?: AnswerBudget;
  /** Bounds what is kept of requests that have not come to their end. */
  readonly receiving: ReceiveBudget;
  /** Null or absent: nothing is traced. */
  readonly tracing?: CallTracing | null;
  /** Absent: the port speaks clear text. */
  readonly tls?: DoorTls;
  /** Where it is told what strangers do wrong; none in tests that need none. */
  readonly news?: TlsNews;
  /** Where defects of the admin service are told. */
  readonly log?: Pick<Log, 'error'>;
  /** Where clients are named that harm a connection. */
  readonly abuseLog?: AbuseLog;
}

const MEBIBYTE = 1 << 20;
/** Memory of one connection inside nghttp2, beside what is kept for each of its streams (their headers, above all). */
const SESSION_BYTES = 32 << 20;
const STREAM_BYTES = 4 << 10;
const CONNECTION_AGE_GRACE_MS = 30_000;
/** For what was cut off to be gone. */
const FORCED_MS = 100;

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

/** Names in traces by path: what `handlersOf` answers. */
const UNARY_METHODS: ReadonlyMap<string, string> = new Map([
  [BROKER_SERVICE.publish.path, 'Publish'],
  [BROKER_SERVICE.fetch.path, 'Fetch'],
  [BROKER_SERVICE.broadcast.path, 'Broadcast'],
  [BROKER_SERVICE.incIdx.path, 'IncIdx'],
]);

export class GrpcServer {
  readonly #server: Server;
  readonly #health: Health;
  readonly #abuse: AbuseWatch;
  readonly #guard: ConnectionGuard;
  /** Methods that are answered without grpc-js, by path. */
  readonly #hot: ReadonlyMap<string, HotMethod>;
  readonly #messageBytes: number;
  readonly #receiving: ReceiveBudget;
  readonly #tracing: CallTracing | null;
  readonly #callers: CallerSource;
  readonly #news: TlsNews;
  /** Null: clear text. */
  readonly #tls: TlsDoor | null;
  /** Null: it does not listen yet. The port is the real one. */
  #bound: Endpoint | null = null;

  constructor(options: GrpcServerOptions) {
    const { limits, log } = options;
    this.#news = options.news ?? { warn: () => undefined };
    this.#tls = options.tls === undefined ? null : new TlsDoor(options.tls, this.#news);
    this.#abuse = new AbuseWatch(limits, options.abuseLog ?? null);
    const admits = (session: ServerHttp2Session): boolean => this.#tls?.admits(session) ?? true;
    this.#guard = new ConnectionGuard(limits.connections, limits.handshakeTimeoutMs, this.#abuse, admits);
    this.#messageBytes = limits.messageBytes;
    this.#receiving = options.receiving;
    this.#tracing = options.tracing ?? null;
    this.#callers = options.callers ?? new OpenCallers();
    const { engine } = options;
    this.#hot = new Map([
      [
        BROKER_SERVICE.publish.path,
        {
          handle: (request, deadlineMs, done, caller, from, trace) =>
            engine.publish(request, deadlineMs, done, caller, from, trace),
          refuse: (bytes) => engine.refusePublish(bytes),
        },
      ],
    ]);
    const refusals = new Map([...this.#hot].map(([path, { refuse }]) => [path, refuse]));
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
      interceptors: [
        explainTooLarge,
        ...(this.#tracing === null ? [] : [traceEarlyAnswers(this.#tracing, UNARY_METHODS)]),
        meterRequests(options.receiving, refusals),
        ...(options.onAction === undefined ? [] : [noteAdminActions(options.onAction)]),
      ],
    });
    setHttp2Options(this.#server);
    explainUnknownMethods(this.#server);
    this.#server.addService(BROKER_SERVICE, handlersOf(engine, options.answers ?? null, this.#tracing));
    addStreamServices(this.#server, engine, options.peers ?? null, escalate, this.#tracing);
    const onDefect = (error: unknown): void => log?.error('a defect in the admin service', { error: String(error) });
    addAdmin(this.#server, options.admin, onDefect);
    if (options.settings !== undefined) addSettings(this.#server, options.settings, onDefect);
    if (options.verify !== undefined) addVerify(this.#server, options.verify, onDefect);
    if (options.debug !== undefined) addDebug(this.#server, options.debug, onDefect);
    if (options.inspect !== undefined) addInspection(this.#server, options.inspect, onDefect);
    addCluster(this.#server, options.cluster, onDefect);
    if (options.tenants !== undefined) addTenants(this.#server, options.tenants, onDefect);
    addReflection(this.#server);
    this.#health = new Health(this.#server);
  }

  /** HOST:PORT that it listens on, once `listen` has resolved; the port is the real one if 0 was asked for. */
  get address(): string {
    return this.#bound === null ? '' : formatEndpoint(this.#bound);
  }

  /** Connections that are open now, and how many were closed because there were too many. */
  get connections(): {
    readonly open: number;
    readonly refused: number;
    readonly cuts: Readonly<Record<CutReason, number>>;
  } {
    return { open: this.#guard.open, refused: this.#guard.refused, cuts: this.#abuse.cuts };
  }

  /** Open connections by the certificate that was shown on them; null where there are none. */
  get certificates(): ReadonlyMap<string, number> | null {
    return this.#tls?.clients ?? null;
  }

  /** Handshakes that came to nothing, by why; null where there are none. */
  get handshakeFailures(): HandshakeWatch['failures'] | null {
    return this.#tls?.handshakes.failures ?? null;
  }

  /** Each connection that is open now. */
  connectionNotes(): Iterable<ConnectionNote> {
    return this.#guard.notes();
  }

  /** Rejects if the address cannot be had. */
  async listen({ host, port: wanted }: Endpoint): Promise<void> {
    const port = await this.#bind(formatEndpoint({ host, port: wanted }));
    this.#bound = { host, port };
    for (const http2Server of http2ServersOf(this.#server)) {
      this.#guard.watch(http2Server);
      if (this.#tls === null) tellOfTls(http2Server, this.#news);
      else {
        this.#guard.watchHandshakes(http2Server);
        this.#tls.watch(http2Server);
      }
      openUnaryDoor(http2Server, this.#hot, {
        messageBytes: this.#messageBytes,
        callers: this.#callers,
        receiving: this.#receiving,
        tracing: this.#tracing,
        abuse: this.#abuse,
        escalate,
      });
    }
  }

  /** Once it listens, and before it is said to serve. Rejects if clients are not given the windows that they should be: no fault of the address. */
  async checkWindows(): Promise<void> {
    const { host, port } = defined(this.#bound, 'the gRPC port is not open');
    if (this.#tls === null) checkWindows(await effectiveWindows(host, port));
    else for (const http2Server of http2ServersOf(this.#server)) checkWindows(await windowsBehindTls(http2Server));
  }

  #bind(address: string): Promise<number> {
    const credentials = this.#tls?.credentials ?? ServerCredentials.createInsecure();
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(address, credentials, (error, port) => {
        if (error === null) resolve(port);
        else reject(new Error(`cannot listen on ${address}: ${error.message}`, { cause: error }));
      });
    });
  }

  setServing(isServing: boolean): void {
    this.#health.setServing(isServing);
  }

  /** No new calls; those in flight may finish within `graceMs`, then every connection is closed. */
  async drain(graceMs: number): Promise<void> {
    this.#tls?.stop();
    await new Promise<void>((resolve) => {
      // grpc-js waits for ever for a session that is destroyed at this moment and has not said so yet (its `close` calls nobody back then).
      let timer = setTimeout(() => {
        this.#server.forceShutdown();
        this.#guard.destroyAll();
        timer = setTimeout(resolve, FORCED_MS);
      }, graceMs);
      this.#server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

function checkWindows(windows: EffectiveWindows): void {
  assert(
    windows.stream === STREAM_WINDOW_BYTES && windows.connection >= CONNECTION_WINDOW_BYTES,
    () => `grpc-js has changed: the HTTP/2 windows have no effect (${JSON.stringify(windows)})`,
  );
}

export function createGrpcServer(options: GrpcServerOptions): GrpcServer {
  return new GrpcServer(options);
}

/** Thin on purpose: a call that was cancelled before it got here costs nothing more. */
function handlersOf(engine: Engine, answers: AnswerBudget | null, tracing: CallTracing | null) {
  const unary =
    (
      method: string,
      call: (
        request: Buffer,
        deadlineMs: number,
        done: Done,
        caller: Caller,
        from: CallOrigin | null,
        handled: ServerUnaryCall<Buffer, Buffer>,
      ) => void,
    ): handleUnaryCall<Buffer, Buffer> =>
    (handled: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>): void => {
      if (wasCancelled(handled)) return;
      const lapse = lapseOf(handled);
      if (lapse !== null) {
        callback(makeStatus(lapse, ''));
        return;
      }
      const isMain = method !== 'Publish' && tracing !== null;
      const done = isMain ? traceUnary(tracing, method, handled, callback as Done) : (callback as Done);
      try {
        call(handled.request, deadlineOf(handled.getDeadline()), done, callerOf(handled), originOf(handled), handled);
      } catch (defect) {
        callback(makeStatus('INTERNAL_ERROR', ''));
        escalate(defect);
      }
    };
  return {
    publish: unary('Publish', (request, deadlineMs, done, caller, from, { metadata }) => {
      const trace = tracing?.begin(traceparentOf(metadata)) ?? null;
      if (trace === null || tracing === null) {
        engine.publish(request, deadlineMs, done, caller, from);
        return;
      }
      const traced = traceRefusals(tracing, request, trace, done);
      engine.publish(request, deadlineMs, traced.done, caller, from, trace);
      traced.returned();
    }),
    fetch: unary('Fetch', (request, deadlineMs, done, caller, from, handled) => {
      if (answers === null) {
        engine.fetch(request, deadlineMs, done, caller, from);
        return;
      }
      if (answers.isSpent) {
        done(makeStatus('IN_FLIGHT_FULL', ''));
        return;
      }
      const held: Done = (error, response) => {
        // Many may have been asked for before the first answer was known to be large.
        if (response !== undefined && !answers.tryHold(handled, response.length))
          done(makeStatus('IN_FLIGHT_FULL', ''));
        else done(error, response);
      };
      engine.fetch(request, deadlineMs, held, caller, from);
    }),
    broadcast: unary('Broadcast', (request, deadlineMs, done, caller, from) =>
      engine.broadcast(request, deadlineMs, done, caller, from),
    ),
    incIdx: unary('IncIdx', (request, deadlineMs, done, caller, from) =>
      engine.incIdx(request, deadlineMs, done, caller, from),
    ),
    subscribe: (stream: ServerWritableStream<Buffer, Buffer>): void => {
      if (wasCancelled(stream)) return;
      if (tracing !== null) traceOpen(tracing, 'Subscribe', stream, false);
      try {
        engine.subscribe(stream.request, stream, callerOf(stream));
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

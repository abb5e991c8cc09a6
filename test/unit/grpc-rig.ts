/** A real server with an engine made for tests. */
import type { TestContext } from 'node:test';
import type { ServerDuplexStream, ServerWritableStream } from '@grpc/grpc-js';
import { BrokerError } from '../../src/base/errors.ts';
import type { AdminPort } from '../../src/grpc/admin.ts';
import type { ClusterPort } from '../../src/grpc/cluster.ts';
import type { Done, Engine } from '../../src/grpc/engine.ts';
import { ReceiveBudget } from '../../src/grpc/receive-budget.ts';
import { createGrpcServer, type GrpcServer, type GrpcServerOptions } from '../../src/grpc/server.ts';
import type { ErrorStatus } from '../../src/grpc/status.ts';

export const DOOR = {
  messageBytes: 4 << 20,
  streamsPerConnection: 1_000,
  connections: 100,
  connectionsPerAddress: 100,
  handshakeTimeoutMs: 10_000,
  emptyBytes: 256 << 10,
  streams: 100_000,
};

export type Call = (request: Buffer, deadlineMs: number, done: Done) => void;

/** Answers every call with `unary`, and leaves every subscription open. */
export class TestEngine implements Engine {
  /** Unary calls that arrived. */
  calls = 0;
  readonly streams: ServerWritableStream<Buffer, Buffer>[] = [];
  cancelled = 0;
  unary: Call;
  refuse: (bytes: number) => ErrorStatus | null = () => null;
  stream: (request: Buffer, stream: ServerWritableStream<Buffer, Buffer>) => void = () => undefined;

  constructor(unary: Call = (request, _deadline, done) => done(null, request)) {
    this.unary = unary;
  }

  publish(request: Buffer, deadlineMs: number, done: Done): void {
    this.calls += 1;
    this.unary(request, deadlineMs, done);
  }

  refusePublish(bytes: number): ErrorStatus | null {
    return this.refuse(bytes);
  }

  incIdx(request: Buffer, deadlineMs: number, done: Done): void {
    this.publish(request, deadlineMs, done);
  }

  fetch(request: Buffer, deadlineMs: number, done: Done): void {
    this.publish(request, deadlineMs, done);
  }

  broadcast(request: Buffer, deadlineMs: number, done: Done): void {
    this.publish(request, deadlineMs, done);
  }

  /** Answers each frame with itself. */
  publishStream(stream: ServerDuplexStream<Buffer, Buffer>): void {
    stream.on('data', (frame: Buffer) => stream.write(frame));
    stream.on('end', () => stream.end());
  }

  consume(stream: ServerDuplexStream<Buffer, Buffer>): void {
    this.publishStream(stream);
  }

  subscribe(request: Buffer, stream: ServerWritableStream<Buffer, Buffer>): void {
    this.streams.push(stream);
    stream.on('cancelled', () => {
      this.cancelled += 1;
    });
    this.stream(request, stream);
  }
}

export const REFUSING_ADMIN: AdminPort = {
  status: () => Promise.reject(new BrokerError('NOT_READY')),
  listSubjects: () => Promise.reject(new BrokerError('NOT_READY')),
  subjectInfo: () => Promise.reject(new BrokerError('NOT_READY')),
  trimSubject: () => Promise.reject(new BrokerError('NOT_READY')),
  listShards: () => Promise.reject(new BrokerError('NOT_READY')),
  resizeShards: () => Promise.reject(new BrokerError('NOT_READY')),
  moveSlot: () => Promise.reject(new BrokerError('NOT_READY')),
  adviseShards: () => Promise.reject(new BrokerError('NOT_READY')),
};

export const REFUSING_CLUSTER: ClusterPort = {
  members: () => Promise.reject(new BrokerError('NOT_READY')),
  join: () => Promise.reject(new BrokerError('NOT_READY')),
  add: () => Promise.reject(new BrokerError('NOT_READY')),
  remove: () => Promise.reject(new BrokerError('NOT_READY')),
  promote: () => Promise.reject(new BrokerError('NOT_READY')),
  transferLeader: () => Promise.reject(new BrokerError('NOT_READY')),
  gossipKeys: () => Promise.reject(new BrokerError('NOT_READY')),
};

/** One that is in nobody's way. */
export function receiveBudget(): ReceiveBudget {
  return new ReceiveBudget(64 << 20, 30_000, 300_000);
}

/** Listens, on a port that the system chooses unless it is told one, until the test ends. */
export async function startServer(
  t: Pick<TestContext, 'after'>,
  options: Partial<GrpcServerOptions> = {},
  address = { host: '127.0.0.1', port: 0 },
): Promise<GrpcServer> {
  const server = createGrpcServer({
    engine: new TestEngine(),
    admin: REFUSING_ADMIN,
    cluster: REFUSING_CLUSTER,
    limits: DOOR,
    maxConnectionAgeMs: 0,
    receiving: receiveBudget(),
    ...options,
  });
  t.after(() => server.drain(0));
  await server.listen(address);
  await server.checkWindows();
  return server;
}

/** Resolves when `isTrue` holds, asked once a turn of the event loop; rejects when the test has timed out. */
export async function eventually(t: Pick<TestContext, 'signal'>, isTrue: () => boolean): Promise<void> {
  while (!isTrue()) {
    t.signal.throwIfAborted();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** A real server with an engine made for tests, and HTTP/2 frames written by hand for what a well-behaved client would not send. */
import { connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import type { ServerDuplexStream, ServerWritableStream } from '@grpc/grpc-js';
import { BrokerError } from '../../src/base/errors.ts';
import type { AdminPort } from '../../src/grpc/admin.ts';
import type { ClusterPort } from '../../src/grpc/cluster.ts';
import type { Done, Engine } from '../../src/grpc/engine.ts';
import { ReceiveBudget } from '../../src/grpc/receive-budget.ts';
import { createGrpcServer, type GrpcServer, type GrpcServerOptions } from '../../src/grpc/server.ts';

export const DOOR = { messageBytes: 4 << 20, streamsPerConnection: 1_000, connections: 100 };

export type Call = (request: Buffer, deadlineMs: number, done: Done) => void;

/** Answers every call with `unary`, and leaves every subscription open. */
export class TestEngine implements Engine {
  /** Unary calls that arrived. */
  calls = 0;
  readonly streams: ServerWritableStream<Buffer, Buffer>[] = [];
  cancelled = 0;
  unary: Call;
  stream: (request: Buffer, stream: ServerWritableStream<Buffer, Buffer>) => void = () => undefined;

  constructor(unary: Call = (request, _deadline, done) => done(null, request)) {
    this.unary = unary;
  }

  publish(request: Buffer, deadlineMs: number, done: Done): void {
    this.calls += 1;
    this.unary(request, deadlineMs, done);
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
};

/** One that is in nobody's way. */
export function receiveBudget(): ReceiveBudget {
  return new ReceiveBudget(64 << 20, 30_000);
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
  return server;
}

/** Resolves when `isTrue` holds, asked once a turn of the event loop; rejects when the test has timed out. */
export async function eventually(t: Pick<TestContext, 'signal'>, isTrue: () => boolean): Promise<void> {
  while (!isTrue()) {
    t.signal.throwIfAborted();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Types of HTTP/2 frames (RFC 9113, section 6). */
export const Frame = { DATA: 0, HEADERS: 1, RST_STREAM: 3, SETTINGS: 4, PING: 6, GOAWAY: 7, WINDOW_UPDATE: 8 } as const;
export const END_STREAM = 1;
const END_HEADERS = 4;
const ACK = 1;

export interface FrameRead {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

/** One connection on which the test writes frames as it likes. What comes back is counted, and acknowledged where it must be. */
export class RawConnection {
  readonly socket: Socket;
  readonly frames: FrameRead[] = [];
  closed = false;
  #unread: Buffer = Buffer.alloc(0);
  #waiting: (() => void)[] = [];

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (bytes: Buffer) => this.#read(bytes));
    socket.on('error', () => this.#wake());
    socket.on('close', () => {
      this.closed = true;
      this.#wake();
    });
  }

  static async open(t: Pick<TestContext, 'after'>, address: string): Promise<RawConnection> {
    const port = Number(address.slice(address.lastIndexOf(':') + 1));
    const socket = connect(port, '127.0.0.1');
    t.after(() => socket.destroy());
    const connection = new RawConnection(socket);
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    socket.write(frame(Frame.SETTINGS, 0, 0, Buffer.alloc(0)));
    await connection.until(() => connection.closed || connection.frames.some(({ type }) => type === Frame.SETTINGS));
    return connection;
  }

  /** Resolves when `isDone` holds; it is asked after everything that comes in. */
  async until(isDone: () => boolean): Promise<void> {
    while (!isDone()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  count(type: number): number {
    return this.frames.filter((frame) => frame.type === type).length;
  }

  #read(bytes: Buffer): void {
    this.#unread = Buffer.concat([this.#unread, bytes]);
    while (this.#unread.length >= 9) {
      const length = this.#unread.readUIntBE(0, 3);
      if (this.#unread.length < 9 + length) break;
      const read = {
        type: this.#unread.readUInt8(3),
        flags: this.#unread.readUInt8(4),
        stream: this.#unread.readUInt32BE(5) & 0x7fff_ffff,
        payload: this.#unread.subarray(9, 9 + length),
      };
      this.#unread = this.#unread.subarray(9 + length);
      this.frames.push(read);
      const isAcknowledged = (read.flags & ACK) !== 0;
      if (read.type === Frame.SETTINGS && !isAcknowledged)
        this.socket.write(frame(Frame.SETTINGS, ACK, 0, Buffer.alloc(0)));
      if (read.type === Frame.PING && !isAcknowledged) this.socket.write(frame(Frame.PING, ACK, 0, read.payload));
    }
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

export function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** The head of a gRPC call: HPACK literals that are not indexed (RFC 7541, section 6.2.2), names from the static table where they are in it. */
export function headersFrame(stream: number, path: string, extra: Readonly<Record<string, string>> = {}): Buffer {
  const block = [
    Buffer.from([0x83, 0x86]), // :method POST, :scheme http
    literal(4, path),
    literal(1, 'localhost'),
    named('content-type', 'application/grpc'),
    named('te', 'trailers'),
    ...Object.entries(extra).map(([name, value]) => named(name, value)),
  ];
  return frame(Frame.HEADERS, END_HEADERS, stream, Buffer.concat(block));
}

/** A gRPC message as one DATA frame (at most 16 KiB) that ends the stream. */
export function messageFrame(stream: number, message: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return frame(Frame.DATA, END_STREAM, stream, Buffer.concat([head, message]));
}

export function resetFrame(stream: number): Buffer {
  return frame(Frame.RST_STREAM, 0, stream, Buffer.from([0, 0, 0, 8]));
}

function literal(nameIndex: number, value: string): Buffer {
  return Buffer.concat([Buffer.from([nameIndex]), textOf(value)]);
}

function named(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0]), textOf(name), textOf(value)]);
}

/** A string without Huffman coding; its length in HPACK's integer form with a 7-bit prefix. */
function textOf(value: string): Buffer {
  const bytes = Buffer.from(value);
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const length = [127];
  let rest = bytes.length - 127;
  for (; rest >= 0x80; rest >>>= 7) length.push((rest & 0x7f) | 0x80);
  length.push(rest);
  return Buffer.concat([Buffer.from(length), bytes]);
}

import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { formatEndpoint } from '../../base/endpoint.ts';
import type { Address, StreamMessage } from '../../gossip/types.ts';
import { Deadline } from '../deadline.ts';
import { LogLimit } from '../log-limit.ts';
import type { NetworkLog } from '../types.ts';
import { normalHost } from './hosts.ts';
import { CAUSES, type WireRefusal } from './wire/refusal.ts';
import type { StreamRead } from './wire/stream.ts';

/** Bytes of a stream to messages and back: label, encryption and compression are its business. `isAnswer`: on a stream that the other side opened. */
export interface StreamCodec {
  reader(isAnswer: boolean): StreamSource;
  encode(message: StreamMessage, isAnswer: boolean): Uint8Array;
}

/** One message, in whatever chunks it comes; wire/stream.ts has the real one. */
export interface StreamSource {
  push(chunk: Uint8Array): StreamRead;
  /** The other side writes no more. */
  end(): StreamRead;
  /** Memory for what came and is not read yet. */
  readonly heldBytes: number;
}

export interface StreamCaps {
  /** Accepted streams at once; one more, and the oldest is closed (memberlist net.go maxPushPullRequests). */
  readonly acceptedMax: number;
  /** The same of one address: who holds many takes nobody else's place. */
  readonly perAddressMax: number;
  /** Memory for accepted streams whose message is not whole yet, all together. The stream that exceeds it is closed. */
  readonly heldBytesMax: number;
  /** From its beginning to its end, in ms (memberlist config.go TCPTimeout). */
  readonly streamMs: number;
}

export const STREAM_CAPS: StreamCaps = Object.freeze({
  acceptedMax: 128,
  perAddressMax: 32,
  heldBytesMax: 24 * 1024 * 1024,
  streamMs: 10_000,
});

export interface StreamCounters {
  accepted: number;
  dialed: number;
  bytesIn: number;
  bytesOut: number;
  /** Accepted streams that were closed because there were too many, or too many bytes. */
  crowded: number;
  /** Accepted streams on which nothing that makes sense came, or not in time. */
  malformed: number;
  late: number;
}

export interface StreamPortOptions {
  /** An IPv4 or IPv6 address; `::` takes IPv4 too. */
  readonly host: string;
  readonly port: number;
  readonly codec: StreamCodec;
  /** A message that somebody opened a stream for; returns what to answer, or null. */
  onMessage(message: StreamMessage, from: Address): StreamMessage | null;
  readonly log: NetworkLog;
  readonly caps?: Partial<StreamCaps>;
}

interface Accepted {
  readonly socket: Socket;
  readonly from: Address;
  readonly deadline: Deadline;
  readonly reader: StreamSource;
  heldBytes: number;
  isAnswered: boolean;
}

/** The TCP side of gossip: one message and one answer a stream, in both directions. A stream that is over leaves nothing behind. */
export class StreamPort {
  readonly counters: StreamCounters = {
    accepted: 0,
    dialed: 0,
    bytesIn: 0,
    bytesOut: 0,
    crowded: 0,
    malformed: 0,
    late: 0,
  };
  readonly #options: StreamPortOptions;
  readonly #caps: StreamCaps;
  readonly #log: LogLimit;
  readonly #server: Server;
  /** In the order in which they came. */
  readonly #accepted = new Set<Accepted>();
  readonly #dialed = new Set<Socket>();
  #heldBytes = 0;
  #isClosed = false;

  private constructor(options: StreamPortOptions) {
    this.#options = options;
    this.#caps = { ...STREAM_CAPS, ...options.caps };
    this.#log = new LogLimit(options.log);
    this.#server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
  }

  /** Rejects with the system's error if the port cannot be had. */
  static async open(options: StreamPortOptions): Promise<StreamPort> {
    const port = new StreamPort(options);
    await port.#listen();
    return port;
  }

  /** The port that was chosen, if the one asked for was 0. */
  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** Streams that are open, in both directions. */
  get open(): number {
    return this.#accepted.size + this.#dialed.size;
  }

  /** Opens a stream, says the message and reads the answer. Rejects with an Error whose message is the reason, at the latest after `withinMs`. */
  exchange(to: Address, message: StreamMessage, withinMs = this.#caps.streamMs): Promise<StreamMessage> {
    if (this.#isClosed) return Promise.reject(new Error('the gossip port is closed'));
    return new Promise((resolve, reject) => {
      const bytes = this.#options.codec.encode(message, false);
      const reader = this.#options.codec.reader(true);
      const socket = createConnection({ host: to.host, port: to.port, noDelay: true });
      const deadline = new Deadline();
      this.#dialed.add(socket);
      this.counters.dialed += 1;
      const end = (outcome: StreamMessage | Error): void => {
        if (!this.#dialed.delete(socket)) return;
        deadline.clear();
        socket.destroy();
        if (outcome instanceof Error) reject(outcome);
        else resolve(outcome);
      };
      deadline.set(withinMs, () => end(new Error(`no answer within ${Math.round(withinMs)} ms`)));
      socket
        .on('connect', () => {
          this.counters.bytesOut += bytes.length;
          socket.write(bytes);
        })
        .on('data', (chunk) => {
          this.counters.bytesIn += chunk.length;
          const read = reader.push(chunk);
          if (read.kind === 'message') end(read.message);
          else if (read.kind === 'refused') end(new Error(`the answer cannot be read: ${read.refusal}`));
        })
        .on('error', end)
        .on('close', () => end(new Error('the other side closed the stream without an answer')));
    });
  }

  /** Resolves when the port is free. What is under way is cut off. */
  close(): Promise<void> {
    this.#isClosed = true;
    for (const one of this.#accepted) this.#end(one);
    for (const socket of this.#dialed) socket.destroy();
    return new Promise((resolve) => {
      // Not listening is closed.
      this.#server.close(() => resolve());
    });
  }

  #listen(): Promise<void> {
    const { host, port } = this.#options;
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', reject);
        this.#server.on('error', (error) =>
          this.#log.warn('accept', 'the gossip port cannot accept', { error: error.message }),
        );
        resolve();
      });
    });
  }

  #accept(socket: Socket): void {
    // Gone before it was looked at.
    if (socket.remoteAddress === undefined || this.#isClosed) {
      socket.destroy();
      return;
    }
    const one: Accepted = {
      socket,
      from: { host: normalHost(socket.remoteAddress), port: socket.remotePort ?? 0 },
      deadline: new Deadline(),
      reader: this.#options.codec.reader(false),
      heldBytes: 0,
      isAnswered: false,
    };
    this.#accepted.add(one);
    this.counters.accepted += 1;
    one.deadline.set(this.#caps.streamMs, () => {
      this.counters.late += 1;
      this.#giveUp(one, 'it took too long');
    });
    socket
      .on('data', (chunk) => this.#handleData(one, chunk))
      .on('error', () => this.#end(one))
      .on('end', () => this.#handleEnd(one))
      .on('close', () => this.#end(one));
    this.#makeRoom(one);
  }

  /** The oldest go: whoever opens a stream says at once what for, and who has waited longest will not say it. */
  #makeRoom(newest: Accepted): void {
    const { acceptedMax, perAddressMax } = this.#caps;
    const same = [...this.#accepted].filter(({ from }) => from.host === newest.from.host);
    const victim =
      same.length > perAddressMax ? same[0] : this.#accepted.size > acceptedMax ? first(this.#accepted) : undefined;
    if (victim === undefined) return;
    this.counters.crowded += 1;
    this.#giveUp(victim, 'too many streams are open');
  }

  #handleData(one: Accepted, chunk: Uint8Array): void {
    this.counters.bytesIn += chunk.length;
    // Whatever comes behind the message is nobody's.
    if (one.isAnswered) return;
    this.#handleRead(one, one.reader.push(chunk));
  }

  #handleRead(one: Accepted, read: StreamRead): void {
    this.#hold(one, read.kind === 'more' ? one.reader.heldBytes : 0);
    if (read.kind === 'more') {
      if (this.#heldBytes <= this.#caps.heldBytesMax) return;
      this.counters.crowded += 1;
      this.#giveUp(one, 'too many bytes of streams wait for their end');
      return;
    }
    one.isAnswered = true;
    if (read.kind === 'refused') this.#refuse(one, read.refusal);
    else this.#answer(one, this.#options.onMessage(read.message, one.from));
  }

  #answer(one: Accepted, answer: StreamMessage | null): void {
    if (answer === null) {
      one.socket.end();
      return;
    }
    const bytes = this.#options.codec.encode(answer, true);
    this.counters.bytesOut += bytes.length;
    one.socket.end(bytes);
  }

  #refuse(one: Accepted, reason: WireRefusal): void {
    // Somebody looked whether the port is open.
    if (reason === 'empty') {
      this.#end(one);
      return;
    }
    this.counters.malformed += 1;
    this.#log.warn(reason, 'closed a gossip stream for what came on it', {
      remote: formatEndpoint(one.from),
      reason,
      ...(CAUSES[reason] === undefined ? {} : { cause: CAUSES[reason] }),
    });
    this.#answer(one, { kind: 'error', message: `the other side could not read it: ${reason}` });
  }

  /** The other side has said all that it will say. */
  #handleEnd(one: Accepted): void {
    if (!one.isAnswered) this.#handleRead(one, one.reader.end());
  }

  #giveUp(one: Accepted, reason: string): void {
    const { host, port } = one.from;
    this.#log.warn('given-up', 'gave up a gossip stream', { remote: `${host} ${port}`, reason });
    this.#end(one);
  }

  #hold(one: Accepted, bytes: number): void {
    this.#heldBytes += bytes - one.heldBytes;
    one.heldBytes = bytes;
  }

  #end(one: Accepted): void {
    if (!this.#accepted.delete(one)) return;
    this.#hold(one, 0);
    one.deadline.clear();
    one.socket.destroy();
  }
}

function first<T>(values: Iterable<T>): T | undefined {
  for (const value of values) return value;
  return undefined;
}

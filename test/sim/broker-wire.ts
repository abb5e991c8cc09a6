/**
 * gRPC streams without sockets: the client's end as the client uses it, the server's end as far as the front does, and between them two pipes
 * with a delay and a window each. What is on its way can be lost with the stream, on one side earlier than the other hears of it.
 */
import { EventEmitter } from 'node:events';
import { type Client as GrpcClient, Metadata, type ServerDuplexStream, type StatusObject, status } from '@grpc/grpc-js';
import type { Actor, SimTime } from './broker-time.ts';

const FRAME_HEADER_BYTES = 5;
/** What a stream takes before its `write` says that it is full. */
const HIGH_WATER_BYTES = 16 << 10;
/** Flow control of HTTP/2, in bytes of one direction. */
const WINDOW_BYTES = 64 << 10;

interface Chunk {
  readonly bytes: Buffer;
  readonly onSent: ((error?: Error | null) => void) | undefined;
}

/** One direction: what was written waits for the window, travels in order, and is read or waits for the reader. */
class Pipe {
  readonly #time: SimTime;
  readonly #source: Actor;
  readonly #target: Actor;
  readonly #delayMsMax: number;
  readonly #onChunk: (bytes: Buffer) => void;
  readonly #onDrain: () => void;
  readonly #queue: Chunk[] = [];
  /** Has arrived, and is not read. */
  readonly #arrived: Buffer[] = [];
  #underWay = 0;
  #lastArrival = 0;
  #onEnd: (() => void) | null = null;
  #onEndSent: () => void = () => undefined;
  #needsDrain = false;
  isReading = true;
  isBroken = false;
  queuedBytes = 0;

  constructor(parts: {
    readonly time: SimTime;
    readonly source: Actor;
    readonly target: Actor;
    readonly delayMsMax: number;
    readonly onChunk: (bytes: Buffer) => void;
    readonly onDrain: () => void;
  }) {
    this.#time = parts.time;
    this.#source = parts.source;
    this.#target = parts.target;
    this.#delayMsMax = parts.delayMsMax;
    this.#onChunk = parts.onChunk;
    this.#onDrain = parts.onDrain;
  }

  get needsDrain(): boolean {
    return this.#needsDrain;
  }

  write(bytes: Buffer, onSent?: (error?: Error | null) => void): boolean {
    this.#queue.push({ bytes, onSent });
    this.queuedBytes += bytes.length;
    this.#time.post(this.#source, 0.005, () => this.#send());
    this.#needsDrain ||= this.queuedBytes >= HIGH_WATER_BYTES;
    return !this.#needsDrain;
  }

  /** `then`: when it is read, behind everything that was written; `onSent`: when it was passed on. */
  end(then: () => void, onSent: () => void = () => undefined): void {
    this.#onEnd = then;
    this.#onEndSent = onSent;
    this.#time.post(this.#source, 0.005, () => this.#send());
  }

  /** Travels with what is written, and takes no room. */
  tell(work: () => void): void {
    this.#arrive(work);
  }

  pause(): void {
    this.isReading = false;
  }

  resume(): void {
    if (this.isReading) return;
    this.isReading = true;
    this.#time.post(this.#target, 0.005, () => this.#read());
  }

  /** Nothing more arrives. Its writer has not noticed yet. */
  break(): void {
    this.isBroken = true;
    this.#arrived.length = 0;
  }

  /** The writer hears that what was not passed on never will be. */
  fail(): void {
    this.break();
    this.queuedBytes = 0;
    for (const { onSent } of this.#queue.splice(0)) onSent?.(new Error('the stream is gone'));
  }

  #send(): void {
    while (!this.isBroken) {
      const chunk = this.#queue[0];
      if (chunk === undefined || (this.#underWay > 0 && this.#underWay + chunk.bytes.length > WINDOW_BYTES)) break;
      this.#queue.shift();
      this.#underWay += chunk.bytes.length;
      // The writer's memory is its own again when it is called back.
      const bytes = Buffer.from(chunk.bytes);
      this.#arrive(() => {
        this.#arrived.push(bytes);
        this.#read();
      });
      this.queuedBytes -= bytes.length;
      chunk.onSent?.(null);
    }
    if (this.isBroken) return;
    if (this.#needsDrain && this.queuedBytes === 0) {
      this.#needsDrain = false;
      this.#onDrain();
    }
    if (this.#queue.length > 0 || this.#onEnd === null) return;
    const then = this.#onEnd;
    this.#onEnd = null;
    this.#onEndSent();
    this.#arrive(() => {
      this.#arrived.push(END);
      this.#ended = then;
      this.#read();
    });
  }

  #ended: () => void = () => undefined;

  #arrive(work: () => void): void {
    const at = Math.max(this.#lastArrival, this.#time.now + this.#time.between(0.05, this.#delayMsMax));
    this.#lastArrival = at;
    this.#time.post(this.#target, at - this.#time.now, () => {
      if (!this.isBroken) work();
    });
  }

  #read(): void {
    while (this.isReading && !this.isBroken) {
      const bytes = this.#arrived.shift();
      if (bytes === undefined) return;
      if (bytes === END) {
        this.#ended();
        return;
      }
      this.#underWay -= bytes.length;
      this.#time.post(this.#source, 0.05, () => this.#send());
      this.#time.note(`${this.#target.name}<${bytes.length}`);
      this.#onChunk(bytes);
    }
  }
}

const END = Buffer.alloc(0);

/** Whole messages out of gRPC's frames, whichever way they were cut. */
class Unframer {
  #held = Buffer.alloc(0);

  take(bytes: Buffer): Buffer[] {
    this.#held = Buffer.concat([this.#held, bytes]);
    const messages: Buffer[] = [];
    while (this.#held.length >= FRAME_HEADER_BYTES) {
      const end = FRAME_HEADER_BYTES + this.#held.readUInt32BE(1);
      if (this.#held.length < end) break;
      messages.push(this.#held.subarray(FRAME_HEADER_BYTES, end));
      this.#held = this.#held.subarray(end);
    }
    return messages;
  }
}

function framed(message: Buffer): Buffer {
  const head = Buffer.alloc(FRAME_HEADER_BYTES);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

export interface StreamOptions {
  readonly time: SimTime;
  readonly client: Actor;
  readonly server: Actor;
  /** Longest way of a chunk in one direction. */
  readonly delayMsMax: number;
}

/** One bidirectional call. */
export class SimStream {
  readonly clientEnd: ClientEnd;
  readonly serverEnd: ServerEnd;
  readonly up: Pipe;
  readonly down: Pipe;
  readonly #options: StreamOptions;
  /** The client was told its end. */
  isOver = false;
  /** From then on grpc-js gives the client nothing but its end (subchannel-call.js, statusOutput). */
  #isCancelled = false;

  constructor(options: StreamOptions) {
    this.#options = options;
    const { time, client, server, delayMsMax } = options;
    const unframer = new Unframer();
    this.clientEnd = new ClientEnd(this);
    this.serverEnd = new ServerEnd(this);
    this.up = new Pipe({
      ...{ time, source: client, target: server, delayMsMax },
      onChunk: (bytes) => this.serverEnd.received(bytes),
      onDrain: () => this.clientEnd.emit('drain'),
    });
    this.down = new Pipe({
      ...{ time, source: server, target: client, delayMsMax },
      onChunk: (bytes) => {
        for (const message of unframer.take(bytes))
          if (!this.isOver && !this.#isCancelled) this.clientEnd.emit('data', message);
      },
      onDrain: () => this.serverEnd.http2.emit('drain'),
    });
  }

  get isOpen(): boolean {
    return !this.isOver || !this.serverEnd.http2.destroyed;
  }

  /** A connection is lost: each side hears of it when it does. */
  break(clientHearsMs: number, serverHearsMs: number): void {
    this.up.break();
    this.down.break();
    const { time, client, server } = this.#options;
    const metadata = new Metadata();
    const lost = { code: status.UNAVAILABLE, details: 'the connection was lost', metadata };
    time.post(client, clientHearsMs, () => this.finish(lost));
    time.post(server, serverHearsMs, () => this.serverEnd.gone());
  }

  /** The client has had enough; what it sent before may arrive still. */
  cancelled(): void {
    this.#isCancelled = true;
    const { time, client, server, delayMsMax } = this.#options;
    const metadata = new Metadata();
    time.post(client, 0.01, () => this.finish({ code: status.CANCELLED, details: 'Cancelled on client', metadata }));
    time.post(server, time.between(0.05, delayMsMax), () => {
      this.up.break();
      this.down.break();
      this.serverEnd.gone();
    });
  }

  /** The server's last word, behind all that it has written. */
  ending(end: StatusObject): void {
    this.down.end(
      () => this.finish(end),
      () => this.serverEnd.over(),
    );
  }

  /** The server has reset the stream. */
  reset(): void {
    const { time, client } = this.#options;
    this.up.break();
    this.down.break();
    const end = { code: status.RESOURCE_EXHAUSTED, details: 'reset', metadata: new Metadata() };
    time.post(client, time.between(0.05, this.#options.delayMsMax), () => this.finish(end));
  }

  finish(end: StatusObject): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#options.time.note(`end ${end.code}`);
    if (end.code !== status.OK) this.clientEnd.emit('error', Object.assign(new Error(end.details), end));
    this.clientEnd.emit('status', end);
  }
}

/** As much of a ClientDuplexStream as the client uses. */
export class ClientEnd extends EventEmitter {
  readonly #stream: SimStream;

  constructor(stream: SimStream) {
    super();
    this.#stream = stream;
  }

  write(message: Buffer): boolean {
    if (this.#stream.isOver) return true;
    return this.#stream.up.write(framed(message));
  }

  end(): void {
    this.#stream.up.end(() => this.#stream.serverEnd.halfClosed());
  }

  cancel(): void {
    if (!this.#stream.isOver) this.#stream.cancelled();
  }

  pause(): void {
    this.#stream.down.pause();
  }

  resume(): void {
    this.#stream.down.resume();
  }
}

/** The HTTP/2 stream under a call. */
class Http2End extends EventEmitter {
  readonly session = undefined;
  readonly #stream: SimStream;
  destroyed = false;
  writableEnded = false;
  aborted = false;
  closed = false;
  readableEnded = false;

  constructor(stream: SimStream) {
    super();
    this.#stream = stream;
  }

  get writableLength(): number {
    return this.#stream.down.queuedBytes;
  }

  get writableNeedDrain(): boolean {
    return this.#stream.down.needsDrain;
  }

  write(bytes: Buffer, onSent: (error?: Error | null) => void): boolean {
    return this.#stream.down.write(bytes, onSent);
  }

  pause(): void {
    this.#stream.up.pause();
  }

  resume(): void {
    this.#stream.up.resume();
  }

  close(): void {
    if (this.destroyed) return;
    this.#stream.reset();
    this.#stream.serverEnd.gone();
  }
}

/** As much of a ServerDuplexStream, and of what grpc-js has under it, as the front uses. */
class ServerEnd extends EventEmitter {
  readonly http2: Http2End;
  readonly call: { readonly stream: Http2End; decoder: { write(data: Buffer): Buffer[] } };
  readonly #stream: SimStream;
  #hasEnded = false;

  constructor(stream: SimStream) {
    super();
    this.#stream = stream;
    this.http2 = new Http2End(stream);
    const unframer = new Unframer();
    const decoder = { write: (data: Buffer) => unframer.take(data), readState: 0, maxReadMessageLength: -1 };
    this.call = { stream: this.http2, decoder };
    this.on('error', (end: StatusObject) => this.#end(end));
  }

  sendMetadata(): void {
    this.#stream.down.tell(() => this.#stream.clientEnd.emit('metadata', new Metadata()));
  }

  end(): void {
    this.#end({ code: status.OK, details: '', metadata: new Metadata() });
  }

  received(bytes: Buffer): void {
    for (const message of this.call.decoder.write(bytes)) this.emit('data', message);
  }

  halfClosed(): void {
    this.http2.readableEnded = true;
    this.emit('end');
  }

  /** The client, or the connection, is no more. */
  gone(): void {
    if (this.http2.destroyed) return;
    this.http2.aborted = true;
    this.over();
    this.#stream.down.fail();
    if (!this.#hasEnded) this.emit('cancelled', 'cancelled');
  }

  over(): void {
    if (this.http2.destroyed) return;
    this.http2.destroyed = true;
    this.http2.closed = true;
    this.http2.emit('close');
  }

  #end(end: StatusObject): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.http2.writableEnded = true;
    const metadata = end.metadata ?? new Metadata();
    if (!this.http2.destroyed) this.#stream.ending({ code: end.code, details: end.details, metadata });
  }
}

/** `request`: of a call with one request; null of one that is a stream in both directions. */
export type Accept = (path: string, call: ServerDuplexStream<Buffer, Buffer>, request: Buffer | null) => void;

/** A client's way to the broker: the one address that there is, over a connection that may be down for a while. */
export class SimEndpoints {
  readonly failsFast = false;
  readonly streams = new Set<SimStream>();
  /** No connection can be made before, in ms of the run. */
  downUntil = 0;
  readonly #options: StreamOptions;
  readonly #accept: Accept;
  readonly #client: GrpcClient;

  constructor(options: StreamOptions, accept: Accept) {
    this.#options = options;
    this.#accept = accept;
    this.#client = {
      makeBidiStreamRequest: (path: string) => this.open(path, null),
      makeServerStreamRequest: (path: string, _write: unknown, _read: unknown, request: Buffer) =>
        this.open(path, request),
    } as unknown as GrpcClient;
  }

  async connect(_deadlineMs: number, signal: AbortSignal | undefined): Promise<GrpcClient> {
    const { time } = this.#options;
    while (time.now < this.downUntil) {
      signal?.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
    return this.#client;
  }

  metadata(): Metadata {
    return new Metadata();
  }

  renewsToken(): boolean {
    return false;
  }

  avoid(): void {
    // There is no other.
  }

  open(path: string, request: Buffer | null): ClientEnd {
    for (const old of this.streams) if (!old.isOpen) this.streams.delete(old);
    const stream = new SimStream(this.#options);
    this.streams.add(stream);
    const { time, server } = this.#options;
    time.post(server, 0.04, () => {
      if (!stream.serverEnd.http2.destroyed && !stream.up.isBroken)
        this.#accept(path, stream.serverEnd as unknown as ServerDuplexStream<Buffer, Buffer>, request);
    });
    return stream.clientEnd;
  }
}

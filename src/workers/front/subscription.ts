import type { ServerWritableStream } from '@grpc/grpc-js';
import type { DeliveryWindow } from '../../subscribe/delivery-window.ts';

export type MessageStream = ServerWritableStream<Buffer, Buffer>;

/** Where a subscription begins: a Start kind of workers/link.ts with its value (an id, or ms since 1970). */
export interface StartPosition {
  readonly kind: number;
  readonly value: number;
}

/** One Subscribe call on the main thread. */
export class Subscription {
  readonly id: number;
  readonly group: SubjectGroup;
  readonly stream: MessageStream;
  readonly start: StartPosition;
  /** Null until the shard has fixed where the subscription starts. */
  window: DeliveryWindow | null = null;
  /** What the stream has not passed on yet. */
  readonly unsent = new Unsent();
  /** Credit that the shard's reader can be given back, in bytes. */
  spentCredit = 0;
  /** Messages written to the stream. */
  written = 0;
  /** Of these, how many it had passed on at the last sweep, and when that number last grew or nothing waited (ms of performance.now()). */
  takenSeen = -1;
  movedAt = 0;
  ended = false;

  /** Called by the stream when the oldest piece has gone. */
  readonly onTaken: () => void;

  constructor(id: number, group: SubjectGroup, stream: MessageStream, start: StartPosition, onTaken: () => void) {
    this.id = id;
    this.group = group;
    this.stream = stream;
    this.start = start;
    this.onTaken = onTaken;
  }
}

/** Bytes on their way out of one stream, piece by piece as they were written. */
export class Unsent {
  readonly #pieces: number[] = [];
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  wrote(bytes: number): void {
    this.#pieces.push(bytes);
    this.#bytes += bytes;
  }

  /** The oldest piece has gone. */
  took(): void {
    this.#bytes -= this.#pieces.shift() ?? 0;
  }
}

/** The subscriptions of one subject on this node; runs of its shard are shared by all. */
export class SubjectGroup {
  readonly id: number;
  readonly shard: number;
  readonly hash: number;
  readonly subject: Buffer;
  readonly members = new Set<Subscription>();

  constructor(id: number, shard: number, hash: number, subject: Buffer) {
    this.id = id;
    this.shard = shard;
    this.hash = hash;
    this.subject = subject;
  }
}

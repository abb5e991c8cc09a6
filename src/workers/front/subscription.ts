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
  /** Bytes written to the stream since it last drained. */
  unsentBytes = 0;
  /** Credit that the shard's reader can be given back, in bytes. */
  spentCredit = 0;
  /** When the stream stopped draining (ms of performance.now()), or 0. */
  fullSince = 0;
  ended = false;

  constructor(id: number, group: SubjectGroup, stream: MessageStream, start: StartPosition) {
    this.id = id;
    this.group = group;
    this.stream = stream;
    this.start = start;
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

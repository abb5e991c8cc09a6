import { constants } from 'node:http2';
import { Metadata } from '@grpc/grpc-js';
import { assert } from '../../base/assert.ts';
import type { Reason } from '../../base/errors.ts';
import { makeStatus } from '../../grpc/status.ts';
import { DeliveryWindow } from '../../subscribe/delivery-window.ts';
import { Credit } from '../link.ts';
import type { Run } from './run.ts';
import { type MessageStream, type StartPosition, SubjectGroup, Subscription } from './subscription.ts';

/** What the subscriptions need of the links to the shards. None of it may be lost. */
export interface SubscriptionPort {
  subscribeAt(subscription: Subscription, start: StartPosition, creditBytes: number): void;
  credit(subscription: Subscription, kind: number, next: number, bytes: number): void;
  unsubscribe(subscription: Subscription): void;
}

export interface SubscriptionLimits {
  /** limits.subscriptions */
  readonly subscriptionsMax: number;
  /** subscribe.buffer_bytes: what a stream may hold unsent before its subscription falls back to the store. */
  readonly bufferBytes: number;
  /** subscribe.stall_timeout in ms. */
  readonly stallTimeoutMs: number;
}

/** The streams of all Subscribe calls of this node: fan-out of runs, back-pressure, Broadcast. */
export class Subscriptions {
  readonly #port: SubscriptionPort;
  readonly #limits: SubscriptionLimits;
  readonly #byId = new Map<number, Subscription>();
  readonly #groups = new Map<string, SubjectGroup>();
  readonly #groupsById = new Map<number, SubjectGroup>();
  #nextId = 1;
  #nextGroup = 1;
  broadcastsDropped = 0;
  stalled = 0;
  delivered = 0;

  constructor(port: SubscriptionPort, limits: SubscriptionLimits) {
    this.#port = port;
    this.#limits = limits;
  }

  get count(): number {
    return this.#byId.size;
  }

  get full(): boolean {
    return this.#byId.size >= this.#limits.subscriptionsMax;
  }

  /** Opens a subscription; the caller has checked the subject, the start and `full`. */
  open(subject: Buffer, hash: number, shard: number, start: StartPosition, stream: MessageStream): void {
    const key = subject.toString('latin1');
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = new SubjectGroup(this.#nextGroup++, shard, hash, Buffer.from(subject));
      this.#groups.set(key, group);
      this.#groupsById.set(group.id, group);
    }
    const subscription: Subscription = new Subscription(this.#nextId++, group, stream, start, () =>
      this.#taken(subscription),
    );
    group.members.add(subscription);
    this.#byId.set(subscription.id, subscription);
    stream.on('cancelled', () => this.#close(subscription));
    this.#port.subscribeAt(subscription, start, this.#limits.bufferBytes);
  }

  /** The shard has fixed the start: from now on the client is told that it is live. */
  started(id: number, next: number): void {
    const subscription = this.#byId.get(id);
    if (subscription === undefined) return;
    if (subscription.window === null) {
      subscription.window = new DeliveryWindow(next);
      subscription.stream.sendMetadata(new Metadata());
    }
  }

  refused(id: number, reason: Reason): void {
    const subscription = this.#byId.get(id);
    if (subscription !== undefined) this.#end(subscription, reason);
  }

  groupRun(run: Run): void {
    const group = this.#groupsById.get(run.target);
    if (group === undefined) return;
    for (const subscription of group.members) this.#offer(subscription, run);
  }

  readerRun(run: Run): void {
    const subscription = this.#byId.get(run.target);
    if (subscription === undefined) return;
    subscription.spentCredit += run.bytes;
    this.#offer(subscription, run);
    if (subscription.unsent.bytes === 0) this.#refund(subscription);
  }

  /** Best effort, once each: a stream that is full or not live yet gets none. Returns how many took it. */
  broadcast(subject: Buffer, message: Buffer): number {
    const group = this.#groups.get(subject.toString('latin1'));
    if (group === undefined) return 0;
    let taken = 0;
    for (const subscription of group.members) {
      if (subscription.window === null || subscription.unsent.bytes > this.#limits.bufferBytes) {
        this.broadcastsDropped += 1;
        continue;
      }
      this.#write(subscription, message, message.length);
      taken += 1;
    }
    return taken;
  }

  /** Ends what has not taken a byte for stall_timeout; called about once a second. */
  sweep(now: number): void {
    for (const subscription of this.#byId.values()) {
      const waiting = subscription.stream.writableLength;
      const taken = subscription.written - waiting;
      if (waiting === 0 || taken !== subscription.takenSeen) {
        subscription.takenSeen = taken;
        subscription.movedAt = now;
      }
      if (now - subscription.movedAt < this.#limits.stallTimeoutMs) continue;
      this.stalled += 1;
      this.#end(subscription, 'SUBSCRIBER_STALLED');
      reset(subscription.stream);
    }
  }

  endAll(reason: Reason): void {
    for (const subscription of [...this.#byId.values()]) this.#end(subscription, reason);
  }

  /** A shard was replaced: its subscriptions go on from where each one stands. */
  resumeShard(shard: number): void {
    for (const subscription of this.#byId.values()) {
      if (subscription.group.shard !== shard) continue;
      const window = subscription.window;
      // A start that was not fixed yet is asked for again as it was.
      const start = window === null ? subscription.start : { kind: 2, value: window.next };
      subscription.spentCredit = 0;
      this.#port.subscribeAt(subscription, start, this.#limits.bufferBytes);
      if (window?.paused === true) this.#port.credit(subscription, Credit.PAUSE, window.next, 0);
    }
  }

  #offer(subscription: Subscription, run: Run): void {
    const window = subscription.window;
    if (window === null || window.judge(run.from, run.to) !== 'take') return;
    const next = window.next;
    const { ids, messages } = run;
    let i = 0;
    while (i < messages.length && (ids[i] as number) < next) i++;
    const last = messages.length - 1;
    let bytes = 0;
    for (; i <= last; i++) {
      const message = messages[i] as Buffer;
      bytes += message.length;
      // One call back a run: what waits is counted in runs.
      this.#write(subscription, message, i === last ? bytes : 0);
    }
    window.took(run.to);
    if (subscription.unsent.bytes > this.#limits.bufferBytes) {
      window.pause();
      this.#port.credit(subscription, Credit.PAUSE, window.next, 0);
    }
  }

  /** `pieceBytes`: bytes of the piece that this message ends, or 0 if more of it follows. */
  #write(subscription: Subscription, message: Buffer, pieceBytes: number): void {
    this.delivered += 1;
    subscription.written += 1;
    // Not by what write() returns: the stream counts 16 messages as little, however large they are.
    if (pieceBytes === 0) {
      subscription.stream.write(message);
      return;
    }
    subscription.unsent.wrote(pieceBytes);
    subscription.stream.write(message, subscription.onTaken);
  }

  /** A piece has gone out to the client, as far as HTTP/2 lets it. */
  #taken(subscription: Subscription): void {
    subscription.unsent.took();
    const window = subscription.window;
    if (subscription.unsent.bytes > 0 || window === null || subscription.ended) return;
    if (!window.paused) {
      this.#refund(subscription);
      return;
    }
    window.resume();
    subscription.spentCredit = 0;
    this.#port.credit(subscription, Credit.RESUME, window.next, this.#limits.bufferBytes);
  }

  #refund(subscription: Subscription): void {
    if (subscription.spentCredit === 0) return;
    this.#port.credit(subscription, Credit.MORE, 0, subscription.spentCredit);
    subscription.spentCredit = 0;
  }

  #end(subscription: Subscription, reason: Reason): void {
    const window = subscription.window;
    const where = window === null ? '' : `next id ${window.next}`;
    this.#close(subscription);
    subscription.stream.emit('error', makeStatus(reason, where));
  }

  #close(subscription: Subscription): void {
    if (subscription.ended) return;
    subscription.ended = true;
    const group = subscription.group;
    assert(group.members.delete(subscription), 'a subscription is not in its group');
    if (group.members.size === 0) {
      this.#groups.delete(group.subject.toString('latin1'));
      this.#groupsById.delete(group.id);
    }
    this.#byId.delete(subscription.id);
    this.#port.unsubscribe(subscription);
  }
}

/**
 * Resets the HTTP/2 stream under a call. A status sent in the ordinary way would wait behind the data that the client does not read, and
 * grpc-js 1.14 has no public way to end a call at once (its `ServerWritableStreamImpl.call.stream`).
 */
function reset(stream: MessageStream): void {
  const inner = stream as unknown as { call?: { stream?: { close(code: number): void } } };
  inner.call?.stream?.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
}

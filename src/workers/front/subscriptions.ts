import { type Caller, Verb } from '../../access/caller.ts';
import type { Reason } from '../../base/errors.ts';
import { slotOfHash } from '../../base/subject.ts';
import { watchCaller } from '../../grpc/callers.ts';
import type { DeliveryStream } from '../../grpc/delivery-stream.ts';
import { frameOf } from '../../grpc/frame.ts';
import { makeStatus } from '../../grpc/status.ts';
import { HeldBytes, type UnsentBudget } from '../../grpc/unsent-budget.ts';
import { DeliveryWindow } from '../../subscribe/delivery-window.ts';
import { Credit, Encoding } from '../link.ts';
import { HELD } from '../slots/slot-table.ts';
import type { DeliveryTraces } from '../tracing/delivery-traces.ts';
import { firstFrom, type Run } from './run.ts';
import type { Seats } from './seats.ts';
import {
  type GroupObserver,
  GroupTable,
  goingOn,
  type Seat,
  type StartPosition,
  type SubjectGroup,
  type SubscriptionPort,
} from './subject-group.ts';
import { Subscription } from './subscription.ts';

export interface SubscriptionLimits {
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
  readonly #groups: GroupTable<Subscription>;
  readonly #seats: Seats;
  readonly #unsent: UnsentBudget;
  broadcastsDropped = 0;
  stalled = 0;
  delivered = 0;
  deliveredBytes = 0;
  /** Null: nothing is traced. */
  traces: DeliveryTraces | null = null;

  constructor(
    port: SubscriptionPort,
    seats: Seats,
    unsent: UnsentBudget,
    limits: SubscriptionLimits,
    observer: GroupObserver,
  ) {
    this.#unsent = unsent;
    this.#port = port;
    this.#seats = seats;
    this.#limits = limits;
    this.#groups = new GroupTable(Encoding.MESSAGES, seats, observer);
  }

  get count(): number {
    return this.#byId.size;
  }

  /** Of each subject; for a look at them. */
  groups(): Iterable<SubjectGroup<Subscription>> {
    return this.#groups.all();
  }

  /** Opens a subscription; the caller has checked the subject, the start and that there is a seat. */
  open(subject: Buffer, hash: number, shard: number, start: StartPosition, stream: DeliveryStream): Subscription {
    const group = this.#groups.get(subject, hash, shard);
    const subscription = new Subscription(this.#seats.take(), group, stream, start);
    group.members.add(subscription);
    this.#byId.set(subscription.id, subscription);
    stream.onCancelled(() => this.#close(subscription));
    stream.onDrained(() => this.#drained(subscription));
    this.#port.subscribeAt(subscription, start, this.#allowance);
    return subscription;
  }

  /** The shard has fixed the start: from now on the client is told that it is live. */
  started(id: number, next: number, isAwaiting = false): void {
    const subscription = this.#byId.get(id);
    if (subscription === undefined) return;
    const { window } = subscription;
    if (window === null) {
      subscription.window = new DeliveryWindow(next, isAwaiting);
      subscription.stream.open();
      return;
    }
    window.isAwaiting = isAwaiting;
    // The time that it waited for has come: what was published before is not for it.
    window.took(next);
  }

  refused(id: number, reason: Reason): void {
    const subscription = this.#byId.get(id);
    if (subscription !== undefined) this.#end(subscription, reason);
  }

  groupRun(run: Run): void {
    const group = this.#groups.ofId(run.target);
    if (group === undefined) return;
    const held = new HeldBytes(this.#unsent, run.frames.length);
    for (const subscription of group.members) this.#offer(subscription, run, held, false);
    if (this.traces !== null && this.traces.size > 0) this.traces.delivered(group.id, run.to, group.members.size);
  }

  /** -1: nobody is subscribed to it. */
  groupOf(subject: Buffer): number {
    return this.#groups.ofSubject(subject)?.id ?? -1;
  }

  readerRun(run: Run): void {
    const subscription = this.#byId.get(run.target);
    if (subscription === undefined) return;
    subscription.spentCredit += run.cost;
    this.#offer(subscription, run, new HeldBytes(this.#unsent, run.frames.length), true);
    if (!subscription.stream.isFull) this.#refund(subscription);
  }

  /** Best effort, once each: a stream that is full or not live yet gets none. Returns how many took it. */
  broadcast(subject: Buffer, message: Buffer): number {
    const group = this.#groups.ofSubject(subject);
    if (group === undefined) return 0;
    const frame = frameOf(message);
    const held = new HeldBytes(this.#unsent, frame.length);
    let taken = 0;
    for (const subscription of group.members) {
      if (subscription.window === null || subscription.stream.unsentBytes > this.#allowance) {
        this.broadcastsDropped += 1;
        continue;
      }
      this.#write(subscription, frame, held);
      this.delivered += 1;
      subscription.messages += 1;
      taken += 1;
    }
    return taken;
  }

  /** Ends what has not taken a byte for stall_timeout; called about once a second. */
  sweep(now: number): void {
    for (const subscription of this.#byId.values()) {
      const { unsentBytes, sentBytes } = subscription.stream;
      if (unsentBytes === 0 || sentBytes !== subscription.sentSeen) {
        subscription.sentSeen = sentBytes;
        subscription.movedAt = now;
      }
      if (now - subscription.movedAt < this.#limits.stallTimeoutMs) continue;
      this.stalled += 1;
      this.#end(subscription, 'SUBSCRIBER_STALLED');
      subscription.stream.reset();
    }
  }

  endAll(reason: Reason): void {
    for (const subscription of [...this.#byId.values()]) this.#end(subscription, reason);
  }

  /** Ends it when its caller may not have it any more. */
  follow(call: object, caller: Caller, subscription: Subscription): void {
    const { subject } = subscription.group;
    const end = (reason: Reason): void => {
      if (!subscription.ended) this.#end(subscription, reason);
    };
    watchCaller(call, {
      ended: end,
      changed: () => {
        if (!caller.may(Verb.SUBSCRIBE, subject, caller.space.length, subject.length)) end('PERMISSION_DENIED');
        return subscription.ended;
      },
    });
  }

  /** A shard was replaced, or subjects have another one now: their subscriptions go on from where each one stands. */
  resume(isAffected: (seat: Seat) => boolean): void {
    for (const subscription of this.#byId.values()) {
      if (!isAffected(subscription)) continue;
      // A PAUSE behind the start would find no cursor yet, and what the reader sent from then on would be missing: it starts once it has drained.
      if (subscription.window?.paused === true) subscription.isDetached = true;
      else this.#resumeAt(subscription);
    }
  }

  #resumeAt(subscription: Subscription): void {
    const { window } = subscription;
    // A start that was not fixed yet is asked for again as it was.
    const start = window === null ? subscription.start : goingOn(subscription.start, window.next);
    subscription.isDetached = false;
    subscription.spentCredit = 0;
    this.#port.subscribeAt(subscription, start, this.#allowance);
  }

  /** Subjects of these slots have no shard for a while: nothing is said of their subscriptions to one. */
  holdSlots(slots: ReadonlySet<number>): void {
    this.#groups.setShard(slots, () => HELD);
  }

  /** Subjects of these slots have a shard again, perhaps another. */
  resumeSlots(slots: ReadonlySet<number>, ownerOf: (slot: number) => number): void {
    this.#groups.setShard(slots, ownerOf);
    this.resume(({ group }) => slots.has(slotOfHash(group.hash)));
  }

  /** What a stream may hold unsent now. */
  get #allowance(): number {
    return this.#unsent.allowance(this.#limits.bufferBytes);
  }

  #write(subscription: Subscription, frames: Buffer, held: HeldBytes): void {
    held.hold();
    if (!subscription.stream.write(frames, held.release)) held.release();
    subscription.bytes += frames.length;
    this.deliveredBytes += frames.length;
  }

  /** `isOwn`: it was read for this subscription alone. */
  #offer(subscription: Subscription, run: Run, held: HeldBytes, isOwn: boolean): void {
    const window = subscription.window;
    if (window === null || window.judge(run.from, run.to) !== 'take') return;
    if (this.#unsent.isOver && subscription.stream.isFull) {
      this.#pause(subscription, window);
      return;
    }
    const first = firstFrom(run, window.next);
    if (first < run.count) {
      // Every stream gets the same memory; one that has had the beginning of the run gets the rest of it.
      this.#write(subscription, first === 0 ? run.frames : run.frames.subarray(run.ends[first - 1]), held);
      this.delivered += run.count - first;
      subscription.messages += run.count - first;
    }
    subscription.isReading = isOwn;
    window.took(run.to);
    const { unsentBytes, isFull } = subscription.stream;
    if (unsentBytes > this.#limits.bufferBytes && isFull) this.#pause(subscription, window);
  }

  /** Until it has sent what it has: then it goes on from the store. */
  #pause(subscription: Subscription, window: DeliveryWindow): void {
    window.pause();
    this.#port.credit(subscription, Credit.PAUSE, window.next, 0);
  }

  /** Everything written has gone out to the client, as far as HTTP/2 lets it. */
  #drained(subscription: Subscription): void {
    const window = subscription.window;
    if (window === null || subscription.ended) return;
    if (!window.paused) {
      this.#refund(subscription);
      return;
    }
    window.resume();
    if (subscription.isDetached) {
      this.#resumeAt(subscription);
      return;
    }
    subscription.spentCredit = 0;
    this.#port.credit(subscription, Credit.RESUME, window.next, this.#allowance);
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
    subscription.stream.end(makeStatus(reason, where), this.#limits.stallTimeoutMs);
  }

  #close(subscription: Subscription): void {
    if (subscription.ended) return;
    subscription.ended = true;
    this.#groups.leave(subscription.group, subscription);
    this.#seats.release();
    this.#byId.delete(subscription.id);
    this.#port.unsubscribe(subscription);
  }
}

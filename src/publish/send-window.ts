import { assert } from '../base/assert.ts';
import type { BaseDelay } from './base-delay.ts';
import { DeliveryRate } from './delivery-rate.ts';

/** Bounds and goal of the windows; all times in ms. */
export interface WindowLimits {
  /** What may be in flight at the least, at first, and at the most, in bytes of records sections. */
  readonly bytesMin: number;
  readonly bytesStart: number;
  readonly bytesMax: number;
  /** Wait of a batch in front of the work for it, that is worth a larger group; above it only the queue grows. */
  readonly targetMs: number;
}

/** A message counts as at least this many bytes: small ones cost by their number. */
const BYTES_A_MESSAGE = 64;
const GROWTH = 1.5;
const SHRINKING = 0.75;
/** Below this share of the target the window grows fast; up to the target it stays. */
const COMFORT = 0.5;
/**
 * A sender that comes this close to its limit, as a share of the window, has been using it. One that sends in pieces may have to stop anywhere above half
 * of the window: two pieces of just more than that do not fit.
 */
const NEAR = 0.5;
/** No window is made smaller than what was carried at best in so many times the base delay and the target: BBR's gain of the window in flight. */
const FLOOR_GAIN = 2;
/** A round is judged when it is at least this long and as many bytes as were in flight have been answered. */
const ROUND_MS = 5;

/**
 * How much one producer stream may have in flight. The smallest time that any batch of a round took, less what a batch takes without a queue, is
 * the queue that never drained (the idea of CoDel, Nichols and Jacobson, ACM Queue 2012, and of LEDBAT, RFC 6817): above the target the window
 * shrinks, well below it the window grows if the sender has been using it.
 *
 * A delay alone does not tell a queue from a machine whose cores are taken by others. Windows that shrink in the second case make small groups, which cost
 * more of the processor for each message and wait no less, and so on down: hence the floor, that follows what the stream was carried at its best.
 *
 * The sender is told limits on what it has sent in all since the stream began, like TCP's right edge (RFC 9293, section 3.8.6): they never
 * move back, so whoever goes beyond has broken the rule whatever was on its way. A smaller window only moves them less than what is answered.
 */
export class SendWindow {
  readonly #limits: WindowLimits;
  readonly #base: BaseDelay;
  readonly #rate = new DeliveryRate();
  #size: number;
  #received = 0;
  #answered = 0;
  #bytesLimit: number;
  #receivedMessages = 0;
  #answeredMessages = 0;
  #messagesLimit: number;
  #roundStartedAt = 0;
  /** `received` when the round began: it is over when that has been answered. */
  #roundEnd = 0;
  #smallestMs = Number.POSITIVE_INFINITY;
  /** The sender has come close to the limit since the round began. */
  #wasUsed = false;
  /** A quota's: what may be in flight at the most, whatever the queue allows. */
  #bytesQuota = Number.POSITIVE_INFINITY;
  #messagesQuota = Number.POSITIVE_INFINITY;
  /** What the sender knows of. */
  #bytesTold = 0;
  #messagesTold = 0;

  constructor(limits: WindowLimits, base: BaseDelay) {
    const { bytesMin, bytesStart, bytesMax } = limits;
    assert(
      0 < bytesMin && bytesMin <= bytesStart && bytesStart <= bytesMax,
      'a window starts between its least and its greatest size',
    );
    this.#limits = limits;
    this.#base = base;
    this.#size = bytesStart;
    this.#bytesLimit = this.#size;
    this.#messagesLimit = this.messagesSize;
  }

  /** What may be in flight now, in bytes. */
  get size(): number {
    return this.#size;
  }

  get messagesSize(): number {
    return Math.ceil(this.#size / BYTES_A_MESSAGE);
  }

  /** Bytes of all records sections that the sender may have sent since the stream began. */
  get bytesLimit(): number {
    return this.#bytesLimit;
  }

  /** The same in messages. */
  get messagesLimit(): number {
    return this.#messagesLimit;
  }

  /** What may be in flight at the most from now on, beside what the queue allows; at least one batch always may. Told with the next `tell`. */
  limitTo(bytes: number, messages: number): void {
    this.#bytesQuota = bytes;
    this.#messagesQuota = messages;
  }

  /** Moves what the sender is told as far as queue and quota allow; true if that is further than before. */
  tell(): boolean {
    const bytes = Math.min(this.#bytesLimit, Math.floor(this.#answered + this.#bytesQuota));
    const messages = Math.min(this.#messagesLimit, Math.floor(this.#answeredMessages + this.#messagesQuota));
    const isFurther = bytes > this.#bytesTold || messages > this.#messagesTold;
    this.#bytesTold = Math.max(this.#bytesTold, bytes);
    this.#messagesTold = Math.max(this.#messagesTold, messages);
    return isFurther;
  }

  /** `bytesLimit` less what a quota holds back: what the sender is told, and has to keep to. */
  get bytesTold(): number {
    return this.#bytesTold;
  }

  get messagesTold(): number {
    return this.#messagesTold;
  }

  /** The sender was told that it may send a batch of this size. */
  isTold(bytes: number, messages: number): boolean {
    if (this.#received === this.#answered && this.#receivedMessages === this.#answeredMessages) return true;
    return this.#received + bytes <= this.#bytesTold && this.#receivedMessages + messages <= this.#messagesTold;
  }

  /** False: a batch of this size is beyond what the sender was allowed, and the stream has to end. */
  allows(bytes: number, messages: number): boolean {
    if (this.#received === this.#answered && this.#receivedMessages === this.#answeredMessages) return true;
    return this.#received + bytes <= this.#bytesLimit && this.#receivedMessages + messages <= this.#messagesLimit;
  }

  /** A batch has come. */
  received(bytes: number, messages: number): void {
    this.#received += bytes;
    this.#receivedMessages += messages;
    const isNearBytes = this.#received > this.#bytesLimit - this.#size * NEAR;
    const isNearMessages = this.#receivedMessages > this.#messagesLimit - this.messagesSize * NEAR;
    if (isNearBytes || isNearMessages) this.#wasUsed = true;
  }

  /** A batch has its result, `tookMs` after it came; `now`: ms, monotonic. */
  answered(bytes: number, messages: number, tookMs: number, now: number): void {
    this.#answered += bytes;
    this.#answeredMessages += messages;
    this.#smallestMs = Math.min(this.#smallestMs, tookMs);
    this.#base.note(tookMs, now);
    this.#rate.note(bytes, now);
    if (this.#answered >= this.#roundEnd && now - this.#roundStartedAt >= ROUND_MS) this.#judge(now);
    this.#widen();
  }

  /** A batch was refused at once: it says nothing of the queue. */
  returned(bytes: number, messages: number): void {
    this.#answered += bytes;
    this.#answeredMessages += messages;
    this.#widen();
  }

  #widen(): void {
    this.#bytesLimit = Math.max(this.#bytesLimit, Math.floor(this.#answered + this.#size));
    this.#messagesLimit = Math.max(this.#messagesLimit, this.#answeredMessages + this.messagesSize);
  }

  #judge(now: number): void {
    const { targetMs, bytesMin, bytesMax } = this.#limits;
    const baseMs = this.#base.ms;
    const queueMs = this.#smallestMs - baseMs;
    const floor = Math.max(bytesMin, FLOOR_GAIN * (baseMs + targetMs) * this.#rate.bytesAMs);
    if (queueMs > targetMs) this.#size = Math.min(this.#size, Math.max(floor, this.#size * SHRINKING));
    else if (this.#wasUsed && queueMs <= targetMs * COMFORT) this.#size = Math.min(bytesMax, this.#size * GROWTH);
    this.#roundStartedAt = now;
    this.#roundEnd = this.#received;
    this.#smallestMs = Number.POSITIVE_INFINITY;
    this.#wasUsed = false;
  }
}

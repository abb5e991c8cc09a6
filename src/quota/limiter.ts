import { TokenBucket } from './token-bucket.ts';
import { Flow, isBefore, Turns } from './turns.ts';

/** What a limiter lets through, of this node. 0 = not limited. */
export interface Rates {
  readonly messagesPerSecond: number;
  readonly bytesPerSecond: number;
  /** What may come at once, as a time of the rates, in ms. */
  readonly burstMs: number;
}

/** In flight of a stream is what its share of the rate brings in this time, in ms: several times what a batch takes to its result. */
const WINDOW_MS = 200;
/** A stream counts as a sender in the period in which it has sent something and in the next, in ms. */
const PERIOD_MS = 1_000;

/**
 * One quota: messages and bytes a second, shared by all senders that it is for. Streams wait for their turn, single calls do not.
 *
 * Who is next is decided by start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each sender has a time of its own that moves on by what
 * it takes, and the one whose time is least goes first. So senders get equal shares whatever the sizes of their batches, tokens are saved for a
 * large batch instead of being given to small ones that come meanwhile, and a sender that was idle has saved up nothing.
 */
export class Limiter {
  /** All single calls together are one sender. */
  readonly calls = new Flow(() => undefined);
  #messages: TokenBucket | null = null;
  #bytes: TokenBucket | null = null;
  readonly #turns = new Turns();
  /** Start of what was let through last. */
  #time = 0;
  /** Grows with each change of the rates, by which the times of senders are counted. */
  #epoch = 0;
  #period = 0;
  #senders = 0;
  #sendersBefore = 0;

  /** Senders that wait. */
  get waiting(): number {
    return this.#turns.size;
  }

  /** From now on; what was saved or is owed stays, and those who wait in line keep their order among themselves. */
  change({ messagesPerSecond, bytesPerSecond, burstMs }: Rates, now: number): void {
    const [messages, bytes] = [this.#messages?.perMs, this.#bytes?.perMs];
    const changed = (bucket: TokenBucket | null, perSecond: number): TokenBucket | null => {
      if (perSecond === 0) return null;
      const burst = (perSecond * burstMs) / 1_000;
      if (bucket === null) return new TokenBucket(perSecond, burst, now);
      bucket.change(perSecond, burst, now);
      return bucket;
    };
    this.#messages = changed(this.#messages, messagesPerSecond);
    this.#bytes = changed(this.#bytes, bytesPerSecond);
    if (messages !== this.#messages?.perMs || bytes !== this.#bytes?.perMs) this.#beginAnew();
  }

  /** It is this sender's turn, and there is enough. */
  isFree(flow: Flow, messages: number, bytes: number, now: number): boolean {
    const first = this.#turns.peek();
    if (first !== null && first !== flow && !this.#isAhead(flow, first)) return false;
    return this.#has(messages, bytes, now);
  }

  /** Of what `isFree` allowed. */
  take(flow: Flow, messages: number, bytes: number): void {
    const start = this.#startOf(flow);
    this.leave(flow);
    this.#time = Math.max(this.#time, start);
    flow.finish = start + this.#costMs(messages, bytes);
    this.#messages?.take(messages);
    this.#bytes?.take(bytes);
  }

  /** `onTurn` of the flow is called when `takeDue` finds that it is its turn. */
  wait(flow: Flow, messages: number, bytes: number): void {
    flow.messages = messages;
    flow.bytes = bytes;
    if (!flow.isWaiting) this.#turns.push(flow, this.#startOf(flow));
  }

  /** It waits no more, and gives up its place. */
  leave(flow: Flow): void {
    flow.isPlaced = false;
    this.stepAside(flow);
  }

  /** It waits for something else, and keeps its place until it has taken or left. */
  stepAside(flow: Flow): void {
    if (flow.isWaiting) this.#turns.remove(flow);
  }

  /** The sender whose turn it is by now, taken out of those that wait; null: none yet. */
  takeDue(now: number): Flow | null {
    const first = this.#turns.peek();
    if (first === null || !this.#has(first.messages, first.bytes, now)) return null;
    return this.#turns.pop();
  }

  /** ms until the next sender's turn; Infinity if none waits. */
  dueIn(now: number): number {
    const first = this.#turns.peek();
    return first === null ? Number.POSITIVE_INFINITY : this.#dueIn(first.messages, first.bytes, now);
  }

  /** ms until so much can be let through, behind the sender that waits in front. */
  delayMs(messages: number, bytes: number, now: number): number {
    const first = this.#turns.peek();
    const [moreMessages, moreBytes] = first === null ? [0, 0] : [first.messages, first.bytes];
    const bucketDelay = (bucket: TokenBucket | null, cost: number, more: number): number =>
      bucket === null ? 0 : bucket.dueIn(cost, now) + more / bucket.perMs;
    return Math.max(bucketDelay(this.#messages, messages, moreMessages), bucketDelay(this.#bytes, bytes, moreBytes));
  }

  /** A stream sends: it counts as one of those that share the quota. */
  note(flow: Flow, now: number): void {
    this.#moveOn(now);
    if (flow.period === this.#period) return;
    flow.period = this.#period;
    this.#senders += 1;
  }

  /** The stream has sent something lately. */
  isRecent(flow: Flow, now: number): boolean {
    this.#moveOn(now);
    return flow.period >= this.#period - 1;
  }

  /** What one of the streams that share the quota may have in flight; Infinity = not limited. */
  windowBytes(now: number): number {
    return this.#windowOf(this.#bytes, now);
  }

  windowMessages(now: number): number {
    return this.#windowOf(this.#messages, now);
  }

  /** Nothing was taken for long enough that a new limiter would be the same. */
  isFull(now: number): boolean {
    return this.waiting === 0 && (this.#messages?.isFull(now) ?? true) && (this.#bytes?.isFull(now) ?? true);
  }

  #windowOf(bucket: TokenBucket | null, now: number): number {
    if (bucket === null) return Number.POSITIVE_INFINITY;
    this.#moveOn(now);
    return (bucket.perMs * WINDOW_MS) / Math.max(1, this.#senders, this.#sendersBefore);
  }

  #moveOn(now: number): void {
    const period = Math.floor(now / PERIOD_MS);
    if (period === this.#period) return;
    this.#sendersBefore = period === this.#period + 1 ? this.#senders : 0;
    this.#senders = 0;
    this.#period = period;
  }

  /** What somebody had at a small rate is hours of a large one, in which others would go first: by new rates nobody is behind or ahead. */
  #beginAnew(): void {
    this.#epoch += 1;
    const waiting: Flow[] = [];
    for (let flow = this.#turns.pop(); flow !== null; flow = this.#turns.pop()) waiting.push(flow);
    for (const flow of waiting) {
      this.#follow(flow);
      flow.isPlaced = false;
      this.#turns.push(flow, this.#time);
    }
  }

  /** Counts the sender's time by the rates of now. */
  #follow(flow: Flow): void {
    if (flow.epoch === this.#epoch) return;
    flow.epoch = this.#epoch;
    flow.finish = Math.min(flow.finish, this.#time);
    flow.start = Math.min(flow.start, this.#time);
  }

  #isAhead(flow: Flow, first: Flow): boolean {
    this.#follow(flow);
    return flow.isPlaced ? isBefore(flow, first) : this.#startOf(flow) < first.start;
  }

  #startOf(flow: Flow): number {
    this.#follow(flow);
    return flow.isPlaced ? flow.start : Math.max(this.#time, flow.finish);
  }

  #has(messages: number, bytes: number, now: number): boolean {
    return (this.#messages?.has(messages, now) ?? true) && (this.#bytes?.has(bytes, now) ?? true);
  }

  #dueIn(messages: number, bytes: number, now: number): number {
    return Math.max(this.#messages?.dueIn(messages, now) ?? 0, this.#bytes?.dueIn(bytes, now) ?? 0);
  }

  /** The time of the rate that it uses up, in ms. */
  #costMs(messages: number, bytes: number): number {
    const ofMessages = this.#messages === null ? 0 : messages / this.#messages.perMs;
    const ofBytes = this.#bytes === null ? 0 : bytes / this.#bytes.perMs;
    return Math.max(ofMessages, ofBytes);
  }
}

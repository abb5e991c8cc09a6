import type { Limiter } from './limiter.ts';
import type { PrefixQuota, Tenant } from './tenant.ts';
import { Flow } from './turns.ts';

/** What becomes of a batch: it is let through, has to wait for `onTurn`, or is beyond the window and the quota and refused. */
export type Verdict = 'taken' | 'wait' | 'over';

export interface StreamMeterPort {
  /** The batch that waits may be judged again. */
  onTurn(): void;
  /** Somebody waits at this limiter, which has to be looked at when the time of who is first there has come. */
  waits(limiter: Limiter): void;
}

/** The quotas of one publish stream: of its tenant, and of prefixes of the subjects that it sends to. Batches are judged one by one, in order. */
export class StreamMeter {
  readonly #tenant: Tenant;
  readonly #port: StreamMeterPort;
  readonly #flow: Flow;
  /** By the limiter of a prefix that the stream has sent to. */
  readonly #flows = new Map<Limiter, Flow>();
  /** The batch that was judged last was let through and has found no room since. */
  #isPaid = false;
  #prefix: PrefixQuota | null = null;
  #isClosed = false;

  constructor(tenant: Tenant, port: StreamMeterPort) {
    this.#tenant = tenant;
    this.#port = port;
    this.#flow = new Flow(() => port.onTurn());
    tenant.streams += 1;
  }

  /** A batch of so many messages and bytes for the subject bytes[start, end). `mayWait`: the sender has kept to its window. */
  judge(
    bytes: Uint8Array,
    start: number,
    end: number,
    messages: number,
    size: number,
    mayWait: boolean,
    now: number,
  ): Verdict {
    if (this.#isPaid) return 'taken';
    const { limiter, prefixes, usage } = this.#tenant;
    const prefix = prefixes.length === 0 ? null : this.#tenant.prefixOf(bytes, start, end);
    this.#prefix = prefix;
    const part = prefix?.limiter ?? null;
    const flow = this.#flow;
    const partFlow = part === null ? flow : this.#flowOf(part);
    limiter.note(flow, now);
    part?.note(partFlow, now);
    const isFree = limiter.isFree(flow, messages, size, now);
    if (isFree && (part === null || part.isFree(partFlow, messages, size, now))) {
      limiter.take(flow, messages, size);
      part?.take(partFlow, messages, size);
      usage.count(messages, size);
      prefix?.usage.count(messages, size);
      this.#isPaid = true;
      return 'taken';
    }
    if (!mayWait) return 'over';
    if (isFree && part !== null) this.#wait(part, partFlow, messages, size);
    else this.#wait(limiter, flow, messages, size);
    return 'wait';
  }

  /** The batch that was judged last is on its way. */
  passed(): void {
    this.#isPaid = false;
  }

  /** It was refused. */
  refused(): void {
    this.#tenant.usage.refused += 1;
    if (this.#prefix !== null) this.#prefix.usage.refused += 1;
  }

  /** ms until a batch like the one that was refused last may come again. */
  delayMs(messages: number, bytes: number, now: number): number {
    const ofPrefix = this.#prefix?.limiter.delayMs(messages, bytes, now) ?? 0;
    return Math.max(this.#tenant.limiter.delayMs(messages, bytes, now), ofPrefix);
  }

  /** What the stream may have in flight. */
  windowBytes(now: number): number {
    let least = this.#tenant.limiter.windowBytes(now);
    for (const [limiter, flow] of this.#flows) {
      if (limiter.isRecent(flow, now)) least = Math.min(least, limiter.windowBytes(now));
    }
    return least;
  }

  windowMessages(now: number): number {
    let least = this.#tenant.limiter.windowMessages(now);
    for (const [limiter, flow] of this.#flows) {
      if (limiter.isRecent(flow, now)) least = Math.min(least, limiter.windowMessages(now));
    }
    return least;
  }

  /** The stream has ended: nothing of it waits any more. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#tenant.streams -= 1;
    this.#leaveAll();
  }

  #wait(limiter: Limiter, flow: Flow, messages: number, size: number): void {
    if (!flow.isWaiting) {
      this.#tenant.limiter.stepAside(this.#flow);
      for (const [other, otherFlow] of this.#flows) other.stepAside(otherFlow);
      this.#tenant.usage.shrunk += 1;
      if (this.#prefix !== null) this.#prefix.usage.shrunk += 1;
    }
    limiter.wait(flow, messages, size);
    this.#port.waits(limiter);
  }

  /** Who is first now may need less than the one before: its time is then sooner than the next look. */
  #leaveAll(): void {
    for (const [limiter, flow] of [[this.#tenant.limiter, this.#flow] as const, ...this.#flows]) {
      limiter.leave(flow);
      if (limiter.waiting > 0) this.#port.waits(limiter);
    }
  }

  #flowOf(limiter: Limiter): Flow {
    let flow = this.#flows.get(limiter);
    if (flow === undefined) {
      flow = new Flow(() => this.#port.onTurn());
      this.#flows.set(limiter, flow);
    }
    return flow;
  }
}

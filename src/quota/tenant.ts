import { Limiter } from './limiter.ts';
import type { QuotaRule } from './quota-rules.ts';

/** Share of the newest second in the measured rates. */
const NEWEST = 0.4;
const DOT = 0x2e;

/** What somebody publishes, and how often it was held back. */
export class Usage {
  messages = 0;
  bytes = 0;
  /** Calls and batches that were refused. */
  refused = 0;
  /** Batches that had to wait for their turn, with a window that had been shrunk. */
  shrunk = 0;
  /** Over the last seconds. */
  messagesPerSecond = 0;
  bytesPerSecond = 0;
  #messagesBefore = 0;
  #bytesBefore = 0;

  count(messages: number, bytes: number): void {
    this.messages += messages;
    this.bytes += bytes;
  }

  /** Takes over the figures of one that is forgotten, so that no sum falls. Its rates are over. */
  absorb({ messages, bytes, refused, shrunk }: Usage): void {
    this.count(messages, bytes);
    this.#messagesBefore += messages;
    this.#bytesBefore += bytes;
    this.refused += refused;
    this.shrunk += shrunk;
  }

  /** Measures the rates; about once a second, `seconds` after the last time. */
  sample(seconds: number): void {
    this.messagesPerSecond = moved(this.messagesPerSecond, (this.messages - this.#messagesBefore) / seconds);
    this.bytesPerSecond = moved(this.bytesPerSecond, (this.bytes - this.#bytesBefore) / seconds);
    this.#messagesBefore = this.messages;
    this.#bytesBefore = this.bytes;
  }
}

function moved(rate: number, newest: number): number {
  const next = rate + (newest - rate) * NEWEST;
  return next < 1e-3 ? 0 : next;
}

/** A quota for subjects of a tenant. */
export class PrefixQuota {
  readonly prefix: string;
  readonly limiter = new Limiter();
  readonly usage = new Usage();
  rule: QuotaRule;
  readonly #bytes: Uint8Array;

  constructor(rule: QuotaRule) {
    this.prefix = rule.prefix;
    this.#bytes = Buffer.from(rule.prefix);
    this.rule = rule;
  }

  /** Whether the subject bytes[start, end) begins with it, in whole tokens. */
  matches(bytes: Uint8Array, start: number, end: number): boolean {
    const prefix = this.#bytes;
    const { length } = prefix;
    if (end - start < length) return false;
    for (let i = 0; i < length; i++) if (bytes[start + i] !== prefix[i]) return false;
    return end - start === length || prefix[length - 1] === DOT || bytes[start + length] === DOT;
  }
}

/** Somebody who publishes, its quotas and what it uses. */
export class Tenant {
  readonly name: string;
  /** Of all its subjects. */
  readonly limiter = new Limiter();
  readonly usage = new Usage();
  /** The rule behind the limiter; null: there is none. */
  rule: QuotaRule | null = null;
  /** The longest prefix first. */
  prefixes: readonly PrefixQuota[] = [];
  /** Publish streams that are open. */
  streams = 0;
  /** ms, monotonic. */
  seenAt = 0;

  constructor(name: string) {
    this.name = name;
  }

  /** The quota for the subject bytes[start, end) beside that of the tenant; null: there is none. */
  prefixOf(bytes: Uint8Array, start: number, end: number): PrefixQuota | null {
    for (const quota of this.prefixes) if (quota.matches(bytes, start, end)) return quota;
    return null;
  }

  /** Forgotten and met again, it would be the same. */
  isForgettable(now: number): boolean {
    return this.streams === 0 && this.limiter.isFull(now) && this.prefixes.every(({ limiter }) => limiter.isFull(now));
  }
}

import { QUEUE_BYTES_MAX, QUEUE_DEPTH_MAX } from './limits.ts';

interface Waiting {
  readonly message: Uint8Array;
  readonly id: number;
  /** Null, or what it is about: the next with this name takes its place. */
  readonly name: string | null;
  readonly onSent: (() => void) | null;
  transmits: number;
}

/**
 * Messages that wait to be gossiped, each so often as its share of a cluster of that size asks for; those sent least go first, and of them
 * the largest that fits (hashicorp/memberlist queue.go TransmitLimitedQueue). Bounded by QUEUE_DEPTH_MAX and QUEUE_BYTES_MAX: the most
 * often sent goes.
 */
export class BroadcastQueue {
  readonly #retransmitMultiplier: number;
  /** In the order in which they are taken. */
  readonly #waiting: Waiting[] = [];
  #bytes = 0;
  #nextId = 0;
  #dropped = 0;

  constructor(retransmitMultiplier: number) {
    this.#retransmitMultiplier = retransmitMultiplier;
  }

  get length(): number {
    return this.#waiting.length;
  }

  /** How many were dropped because the queue was full. */
  get dropped(): number {
    return this.#dropped;
  }

  push(message: Uint8Array, options: { readonly name?: string; readonly onSent?: () => void } = {}): void {
    const name = options.name ?? null;
    if (name !== null) this.#remove(this.#waiting.findIndex((one) => one.name === name));
    this.#insert({ message, id: this.#nextId++, name, onSent: options.onSent ?? null, transmits: 0 });
    while (this.#waiting.length > QUEUE_DEPTH_MAX || this.#bytes > QUEUE_BYTES_MAX) {
      this.#remove(this.#waiting.length - 1);
      this.#dropped++;
    }
  }

  /** Adds to `into` what fits `limit` bytes, each with `overhead`; returns the bytes that are left. `nodes`: size of the cluster. */
  take(into: Uint8Array[], overhead: number, limit: number, nodes: number): number {
    const transmitsMax = transmitLimit(this.#retransmitMultiplier, nodes);
    const taken: Waiting[] = [];
    let free = limit;
    for (let at = 0; at < this.#waiting.length && free > overhead; ) {
      const one = this.#waiting[at] as Waiting;
      if (one.message.length + overhead > free) {
        at++;
        continue;
      }
      free -= one.message.length + overhead;
      into.push(one.message);
      this.#waiting.splice(at, 1);
      this.#bytes -= one.message.length;
      taken.push(one);
    }
    for (const one of taken) {
      one.transmits++;
      if (one.transmits < transmitsMax) this.#insert(one);
      else one.onSent?.();
    }
    return free;
  }

  #remove(at: number): void {
    const one = this.#waiting[at];
    if (one === undefined) return;
    this.#waiting.splice(at, 1);
    this.#bytes -= one.message.length;
    one.onSent?.();
  }

  #insert(one: Waiting): void {
    let low = 0;
    let high = this.#waiting.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (isBefore(this.#waiting[middle] as Waiting, one)) low = middle + 1;
      else high = middle;
    }
    this.#waiting.splice(low, 0, one);
    this.#bytes += one.message.length;
  }
}

function isBefore(a: Waiting, b: Waiting): boolean {
  if (a.transmits !== b.transmits) return a.transmits < b.transmits;
  if (a.message.length !== b.message.length) return a.message.length > b.message.length;
  return a.id > b.id;
}

/** memberlist util.go retransmitLimit */
export function transmitLimit(multiplier: number, nodes: number): number {
  return multiplier * Math.ceil(Math.log10(nodes + 1));
}

/** Writes what was held to the shard's ring; false if there is no room, or no shard, yet. */
export type Send = () => boolean;

interface Held {
  /** Number in the call table; it is counted in limits.in_flight_* like any other. */
  readonly call: number;
  readonly send: Send;
}

/**
 * Calls for slots that are on their way to another shard, in the order in which they came. How many there may be is bounded by the call table,
 * where each of them is open.
 */
export class HoldQueue {
  /** Those in front of `#next` were sent. */
  readonly #queue: Held[] = [];
  #next = 0;

  get size(): number {
    return this.#queue.length - this.#next;
  }

  push(call: number, send: Send): void {
    this.#queue.push({ call, send });
  }

  /** Sends what waits, in order, as far as there is room. True when nothing waits any more. */
  flush(): boolean {
    for (; this.#next < this.#queue.length; this.#next++) {
      if ((this.#queue[this.#next] as Held).send()) continue;
      this.#forgetSent();
      return false;
    }
    this.#queue.length = 0;
    this.#next = 0;
    return true;
  }

  /** They hold their requests. Once they are half of all, so that each is moved once or so. */
  #forgetSent(): void {
    if (this.#next * 2 < this.#queue.length) return;
    this.#queue.splice(0, this.#next);
    this.#next = 0;
  }

  /** Takes everything out: the calls are to be refused. */
  takeAll(): number[] {
    const calls = this.#queue.slice(this.#next).map(({ call }) => call);
    this.#queue.length = 0;
    this.#next = 0;
    return calls;
  }
}

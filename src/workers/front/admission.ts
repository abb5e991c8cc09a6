/**
 * Decides when the broker is overloaded: the rule of CoDel (Nichols and Jacobson, ACM Queue 2012) on the time that requests wait for their
 * shard. While the smallest wait of an interval stays above the target the queue does not drain, and new requests are refused for
 * the next interval, before any work is done for them. Waits of a burst that drains within an interval refuse nothing.
 */
export interface OverloadLimits {
  /** Wait that is acceptable for ever, in ms (overload.target). */
  readonly targetMs: number;
  /** How long waits may stay above it, in ms (overload.interval). */
  readonly intervalMs: number;
}

export class OverloadGuard {
  readonly #limits: OverloadLimits;
  #intervalEnd = 0;
  #smallestWait = Number.POSITIVE_INFINITY;
  #overloaded = false;

  constructor(limits: OverloadLimits) {
    this.#limits = limits;
  }

  get overloaded(): boolean {
    return this.#overloaded;
  }

  /** `waitMs`: the smallest wait seen since the last call, or null if nothing was taken up; `now` in ms. */
  observe(waitMs: number | null, now: number, queued: boolean): void {
    if (waitMs !== null) this.#smallestWait = Math.min(this.#smallestWait, waitMs);
    if (!queued) this.#smallestWait = 0;
    if (now < this.#intervalEnd) return;
    this.#overloaded = Number.isFinite(this.#smallestWait) && this.#smallestWait > this.#limits.targetMs;
    this.#smallestWait = Number.POSITIVE_INFINITY;
    this.#intervalEnd = now + this.#limits.intervalMs;
  }
}

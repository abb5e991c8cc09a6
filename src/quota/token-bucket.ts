import { assert } from '../base/assert.ts';

/** What rounding of times and rates may lack, as a share of the burst. */
const ROUNDING = 1e-9;

/**
 * Tokens that come at a steady rate and are saved up to a burst. Over any time t no more is taken than rate * t + burst, and what a single
 * take is above the burst: that is allowed when the bucket is full, and leaves a debt that is paid off before anything else is given.
 */
export class TokenBucket {
  #perMs: number;
  #burst: number;
  #tokens: number;
  /** ms, monotonic. */
  #at: number;

  /** Begins full. `perSecond` and `burst` above 0; `now` in ms, monotonic. */
  constructor(perSecond: number, burst: number, now: number) {
    assert(perSecond > 0 && burst > 0, 'a bucket has a rate and a burst');
    this.#perMs = perSecond / 1_000;
    this.#burst = burst;
    this.#tokens = burst;
    this.#at = now;
  }

  get perMs(): number {
    return this.#perMs;
  }

  get burst(): number {
    return this.#burst;
  }

  /** Below 0: a debt. */
  tokensAt(now: number): number {
    if (now > this.#at) {
      this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#perMs);
      this.#at = now;
    }
    return this.#tokens;
  }

  /** There is enough for the cost, or the bucket is full. */
  has(cost: number, now: number): boolean {
    return this.tokensAt(now) >= Math.min(cost, this.#burst) - this.#burst * ROUNDING;
  }

  /** Of what `has` allowed. */
  take(cost: number): void {
    this.#tokens -= cost;
  }

  /** ms until `has(cost)`, if nobody takes anything before; 0 = now. */
  dueIn(cost: number, now: number): number {
    return Math.max(0, (Math.min(cost, this.#burst) - this.tokensAt(now)) / this.#perMs);
  }

  isFull(now: number): boolean {
    return this.tokensAt(now) >= this.#burst * (1 - ROUNDING);
  }

  /** From now on; what is saved or owed stays, up to the new burst. */
  change(perSecond: number, burst: number, now: number): void {
    assert(perSecond > 0 && burst > 0, 'a bucket has a rate and a burst');
    this.tokensAt(now);
    this.#perMs = perSecond / 1_000;
    this.#burst = burst;
    this.#tokens = Math.min(this.#tokens, burst);
  }
}

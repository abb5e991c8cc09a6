/** A start this much ahead of the last log time is refused unless the operator accepts the clock, in ms (design section 2, log time). */
export const CLOCK_AHEAD_MAX_MS = 24 * 60 * 60 * 1000;

/** Log time: the larger of the previous entry's time and the wall clock, in epoch ms. It never falls. */
export class LogClock {
  #last: number;

  constructor(last: number) {
    this.#last = last;
  }

  get last(): number {
    return this.#last;
  }

  /** The time of the next entry. */
  next(wallMs: number): number {
    this.#last = Math.max(this.#last, Math.floor(wallMs));
    return this.#last;
  }

  /** An entry of the log was applied. */
  saw(time: number): void {
    this.#last = Math.max(this.#last, time);
  }

  /** True if the wall clock is too far ahead of a log that is not empty. */
  isTooFarAhead(wallMs: number): boolean {
    return this.#last > 0 && wallMs - this.#last > CLOCK_AHEAD_MAX_MS;
  }
}

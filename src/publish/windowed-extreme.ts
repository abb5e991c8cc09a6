/**
 * The smallest or the greatest value of the last period, at least, and of two of them at most: the newest period and the one before it are kept, as in
 * LEDBAT's base delay (RFC 6817, section 3.4.2) and BBR's windowed filters.
 */
export class WindowedExtreme {
  readonly #periodMs: number;
  readonly #isBetter: (value: number, than: number) => boolean;
  readonly #none: number;
  #current: number;
  #before: number;
  #periodEnd = Number.NEGATIVE_INFINITY;

  /** `none`: what counts while there is no value; every value is better. */
  private constructor(periodMs: number, none: number, isBetter: (value: number, than: number) => boolean) {
    this.#periodMs = periodMs;
    this.#none = none;
    this.#isBetter = isBetter;
    this.#current = none;
    this.#before = none;
  }

  static smallest(periodMs: number): WindowedExtreme {
    return new WindowedExtreme(periodMs, Number.POSITIVE_INFINITY, (value, than) => value < than);
  }

  static greatest(periodMs: number): WindowedExtreme {
    return new WindowedExtreme(periodMs, Number.NEGATIVE_INFINITY, (value, than) => value > than);
  }

  /** `now` in ms, monotonic. */
  note(value: number, now: number): void {
    if (now >= this.#periodEnd) {
      this.#before = now >= this.#periodEnd + this.#periodMs ? this.#none : this.#current;
      this.#current = this.#none;
      this.#periodEnd = now + this.#periodMs;
    }
    if (this.#isBetter(value, this.#current)) this.#current = value;
  }

  /** 0 before anything was noted. */
  get value(): number {
    const best = this.#isBetter(this.#before, this.#current) ? this.#before : this.#current;
    return best === this.#none ? 0 : best;
  }
}

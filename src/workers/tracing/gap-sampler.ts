/**
 * Takes a share of what comes, each independently of the others, for one subtraction each: how many to leave out before the next one is drawn when one is
 * taken (a geometric distribution).
 */
export class GapSampler {
  readonly #ratio: number;
  readonly #random: () => number;
  #left: number;

  /** `ratio` 0 to 1; `random` in [0, 1). */
  constructor(ratio: number, random: () => number = Math.random) {
    this.#ratio = ratio;
    this.#random = random;
    this.#left = this.#draw();
  }

  take(): boolean {
    if (this.#left > 0) {
      this.#left -= 1;
      return false;
    }
    this.#left = this.#draw();
    return true;
  }

  #draw(): number {
    if (this.#ratio >= 1) return 0;
    if (this.#ratio <= 0) return Number.POSITIVE_INFINITY;
    return Math.floor(Math.log(1 - this.#random()) / Math.log(1 - this.#ratio));
  }
}

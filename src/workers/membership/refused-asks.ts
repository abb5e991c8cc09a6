/** How long who refused is left alone, in ms: doubled by every refusal, up to the second. */
const WAIT_MS_MIN = 10_000;
const WAIT_MS_MAX = 120_000;

/**
 * A leader that refuses this node, for want of a certificate of a node, does so until somebody changes its settings, and writes each time into its audit.
 * So it is asked seldom, and less often each time.
 */
export class RefusedAsks {
  /** Who refused last; '' = nobody, since it was last answered. */
  #instance = '';
  #since = 0;
  #waitMs = 0;

  /** `now` in epoch ms, here and below. */
  mayAsk(instance: string, now: number): boolean {
    // A clock that was set back must not make it wait for longer.
    return instance !== this.#instance || now < this.#since || now - this.#since >= this.#waitMs;
  }

  refused(instance: string, now: number): void {
    const isAgain = instance === this.#instance;
    this.#waitMs = isAgain ? Math.min(WAIT_MS_MAX, this.#waitMs * 2) : WAIT_MS_MIN;
    this.#instance = instance;
    this.#since = now;
  }

  answered(): void {
    this.#instance = '';
  }
}

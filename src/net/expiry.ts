/** The clock may be set, and a timer holds 24 days at most: it is looked at this often. In ms. */
export const EXPIRY_LOOK_MS = 5_000;

/** Calls once when the wall clock has passed `at` (epoch ms), at most EXPIRY_LOOK_MS late, whatever is done to the clock. Keeps no process. */
export class Expiry {
  #timer: NodeJS.Timeout | null = null;

  constructor(at: number, onExpired: () => void) {
    const look = (): void => {
      const leftMs = at - Date.now();
      if (leftMs < 0) {
        this.#timer = null;
        onExpired();
        return;
      }
      this.#timer = setTimeout(look, Math.min(EXPIRY_LOOK_MS, leftMs + 1)).unref();
    };
    look();
  }

  clear(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}

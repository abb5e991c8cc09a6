/** What a stream may hold unsent while all together hold too much, in bytes: what an HTTP/2 stream takes before it says that it is full. */
const FLOOR_BYTES = 64 << 10;

/**
 * What deliveries hold in memory until HTTP/2 has passed them on, over all streams. Above the limit a stream is given more only when it has sent what
 * it had; what it misses it reads from the store, so nobody starves and nothing is lost.
 */
export class UnsentBudget {
  readonly #bytesMax: number;
  /** Changed by HeldBytes alone. */
  bytes = 0;

  /** `bytesMax`: subscribe.unsent_bytes */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get isOver(): boolean {
    return this.bytes > this.#bytesMax;
  }

  /** What one stream may hold now, of its `bytes`. */
  allowance(bytes: number): number {
    return this.isOver ? Math.min(bytes, FLOOR_BYTES) : bytes;
  }
}

/** Memory of one run, which many streams may share: it counts once, until the last of them has sent it. */
export class HeldBytes {
  readonly #budget: UnsentBudget;
  readonly #bytes: number;
  #holders = 0;

  constructor(budget: UnsentBudget, bytes: number) {
    this.#budget = budget;
    this.#bytes = bytes;
  }

  hold(): void {
    if (this.#holders === 0) this.#budget.bytes += this.#bytes;
    this.#holders += 1;
  }

  readonly release = (): void => {
    this.#holders -= 1;
    if (this.#holders === 0) this.#budget.bytes -= this.#bytes;
  };
}

/**
 * How many traces may be begun, shared by the threads that begin them: tokens in shared memory, filled up by the main thread ten times a second.
 *
 *   0 i32 tokens · 4 i32 refused, modulo 2^32
 */
const TOKENS = 0;
const REFUSED = 1;
const REFILL_MS = 100;
/** A second's tokens may be used at once. */
const BURST_S = 1;

export class TraceBudget {
  readonly buffer: SharedArrayBuffer;
  readonly #cells: Int32Array;

  constructor(buffer = new SharedArrayBuffer(8)) {
    this.buffer = buffer;
    this.#cells = new Int32Array(buffer);
  }

  /** Takes one, or counts that there was none. */
  tryTake(): boolean {
    // Counts only: no other memory is published by it, so it pairs with nothing. Below zero means that several asked for the last one.
    if (Atomics.load(this.#cells, TOKENS) > 0 && Atomics.sub(this.#cells, TOKENS, 1) > 0) return true;
    Atomics.add(this.#cells, REFUSED, 1);
    return false;
  }

  get refused(): number {
    return Atomics.load(this.#cells, REFUSED) >>> 0;
  }

  /** Main thread: fills up from now on, with `perSecond` a second. Returns the timer. */
  fill(perSecond: number): NodeJS.Timeout {
    const most = Math.max(1, perSecond * BURST_S);
    let owed = 0;
    Atomics.store(this.#cells, TOKENS, most);
    return setInterval(() => {
      owed += (perSecond * REFILL_MS) / 1000;
      const whole = Math.floor(owed);
      owed -= whole;
      const tokens = Math.max(0, Atomics.load(this.#cells, TOKENS));
      Atomics.store(this.#cells, TOKENS, Math.min(most, tokens + whole));
    }, REFILL_MS).unref();
  }
}

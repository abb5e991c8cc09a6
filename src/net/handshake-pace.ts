/** Handshakes in a second, and those that may begin at once: each keeps the thread for about 1 ms, and peers that all come again are a few. */
const PER_SECOND = 50;
const BURST = 8;
/** How often it is looked whether there is time for more, in ms. */
const LOOK_MS = 10;

/** Bounds the time that handshakes take from the thread, whoever asks for them: heartbeats go on beside them. The acceptor bounds how many wait. */
export class HandshakePace {
  readonly #waiting = new Set<() => void>();
  #left = BURST;
  #countedAt = performance.now();
  #timer: NodeJS.Timeout | null = null;

  /** Who waits longest comes first. */
  turn(begin: () => void): void {
    this.#waiting.add(begin);
    if (this.#timer === null) this.#look();
  }

  /** It is not wanted any more. */
  drop(begin: () => void): void {
    this.#waiting.delete(begin);
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#waiting.clear();
  }

  readonly #look = (): void => {
    this.#timer = null;
    const now = performance.now();
    this.#left = Math.min(BURST, this.#left + ((now - this.#countedAt) * PER_SECOND) / 1_000);
    this.#countedAt = now;
    for (const begin of this.#waiting) {
      if (this.#left < 1) break;
      this.#left -= 1;
      this.#waiting.delete(begin);
      begin();
    }
    if (this.#waiting.size > 0) this.#timer = setTimeout(this.#look, LOOK_MS);
  };
}

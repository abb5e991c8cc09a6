/**
 * A time limit on what others do. It passes only after all that had come until then was read: a thread that stood still (a long collection, SIGSTOP) finds
 * its timers due before it looks at its sockets, and must not take its own pause for the silence of its peers.
 */
export class Deadline {
  #timer: NodeJS.Timeout | null = null;
  #immediate: NodeJS.Immediate | null = null;

  /** Replaces the limit that was set. */
  set(ms: number, onPassed: () => void): void {
    this.clear();
    this.#timer = setTimeout(() => {
      // Immediates come after the poll for input, timers before it.
      this.#immediate = setImmediate(onPassed);
    }, ms);
  }

  /** The whole time again, for the limit that was set last. */
  restart(): void {
    if (this.#immediate !== null) clearImmediate(this.#immediate);
    this.#immediate = null;
    this.#timer?.refresh();
  }

  clear(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#immediate !== null) clearImmediate(this.#immediate);
    this.#timer = null;
    this.#immediate = null;
  }
}

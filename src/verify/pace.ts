import { pause } from '../shm/doorbell.ts';

/** So that somebody who waits for progress is told of it meanwhile. */
const NAP_MS_MAX = 100;

/** Keeps reading under a number of bytes a second. */
export class Pace {
  readonly #bytesPerSecond: number;
  /** When what was read so far may have been read, in ms of performance.now(). */
  #dueAt = performance.now();

  /** 0: as fast as it goes. */
  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Ms to wait, at most NAP_MS_MAX: then ask again, with 0 bytes. */
  after(bytes: number): number {
    if (this.#bytesPerSecond === 0) return 0;
    const now = performance.now();
    // What was not read while it might have been is not made up for.
    this.#dueAt = Math.max(now - NAP_MS_MAX, this.#dueAt) + (bytes / this.#bytesPerSecond) * 1_000;
    return Math.min(NAP_MS_MAX, Math.max(0, this.#dueAt - now));
  }

  /** Stands the whole thread still. */
  waitSync(bytes: number, onNap: () => void): void {
    for (let ms = this.after(bytes); ms > 0; ms = this.after(0)) {
      pause(ms);
      onNap();
    }
  }

  async wait(bytes: number, onNap: () => void): Promise<void> {
    for (let ms = this.after(bytes); ms > 0; ms = this.after(0)) {
      await new Promise((resolve) => setTimeout(resolve, ms));
      onNap();
    }
  }
}

import type { Disk } from '../disk.ts';

/** How often the file system is asked, in ms of the caller's clock. */
const ASK_EVERY_MS = 1_000;

/**
 * Says when the disk is nearly full. The file system is asked at most once a second; in between, what was written since is taken off, so that
 * the mark is not overrun.
 */
export class FreeSpace {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #lowBytes: number;
  /** Monotonic ms. */
  readonly #clock: () => number;
  #free = 0;
  #askedAt = Number.NEGATIVE_INFINITY;

  constructor(disk: Disk, path: string, lowBytes: number, clock: () => number) {
    this.#disk = disk;
    this.#path = path;
    this.#lowBytes = lowBytes;
    this.#clock = clock;
  }

  /** True if `bytes` more would leave less than the mark. A mark of 0: never, the disk itself says when it is full. */
  isShortOf(bytes: number): boolean {
    if (this.#lowBytes === 0) return false;
    const now = this.#clock();
    if (now - this.#askedAt >= ASK_EVERY_MS) {
      this.#free = this.#disk.freeBytes(this.#path);
      this.#askedAt = now;
    }
    return this.#free - bytes < this.#lowBytes;
  }

  used(bytes: number): void {
    this.#free -= bytes;
  }
}

/** A file system of its own that fills up and gets space again. */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A tmpfs with a file that takes space away from the broker. */
export class SmallDisk implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'small-disk-'));
  readonly #filler: number;

  constructor(bytes: number) {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', this.path]);
    this.#filler = openSync(join(this.path, 'filler'), 'w');
  }

  get freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.path);
    return bavail * bsize;
  }

  /** Writes until so much is left. */
  fillUpTo(leftBytes: number): void {
    const zeros = Buffer.alloc(64 * 1024);
    try {
      for (let free = this.freeBytes; free > leftBytes; free = this.freeBytes) {
        writeSync(this.#filler, zeros, 0, Math.min(zeros.length, free - leftBytes));
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    }
  }

  free(): void {
    ftruncateSync(this.#filler, 0);
  }

  [Symbol.dispose](): void {
    closeSync(this.#filler);
    execFileSync('umount', ['-l', this.path]);
    rmSync(this.path, { recursive: true, force: true });
  }
}

import { join } from 'node:path';
import { type Disk, DiskFull } from '../disk.ts';

const RESERVE_NAME = 'reserve';

/**
 * Space that is kept back for a full disk: a file of zeros in the log's own directory. How it is used:
 *
 * 1. At the low-space mark publishes are refused (STORE_FULL), so no new `open` comes; reads go on.
 * 2. Batches in flight still need their `close` or `revoke` in the log. When an append throws DiskFull, the Raft thread calls
 *    `releaseReserve` and appends the same entries again: the log is as it was before the failed append.
 * 3. With the rest it takes one snapshot, so that old log segments can be dropped, which frees more than the reserve.
 * 4. When free space is well above the mark again, `restoreReserve` is called; while it returns false the low-space state goes on.
 *
 * A node starts on a full disk too: without the reserve, which `report` of the log does not hold against it.
 */
export class Reserve {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #dir: string;
  readonly #bytes: number;
  #held: boolean;

  constructor(disk: Disk, dir: string, bytes: number) {
    this.#disk = disk;
    this.#dir = dir;
    this.#path = join(dir, RESERVE_NAME);
    this.#bytes = bytes;
    this.#held = bytes > 0 && disk.size(this.#path) >= bytes;
  }

  /** Whether the space is there to be released. */
  get held(): boolean {
    return this.#held;
  }

  /** False if there was nothing to give. */
  release(): boolean {
    if (this.#disk.size(this.#path) < 0) return false;
    this.#disk.unlink(this.#path);
    const gave = this.#held;
    this.#held = false;
    return gave;
  }

  /** True if the reserve is held now. Takes it only if as much again stays free. */
  restore(): boolean {
    if (this.#held || this.#bytes === 0) return this.#held;
    if (this.#disk.freeBytes(this.#dir) < 2 * this.#bytes) return false;
    const file = this.#disk.createOrEmpty(this.#path, 'reserve');
    try {
      file.preallocate(0, this.#bytes);
      this.#held = true;
    } catch (error) {
      if (!(error instanceof DiskFull)) throw error;
    } finally {
      file.close();
    }
    if (!this.#held) this.#disk.unlink(this.#path);
    return this.#held;
  }
}

import type { ReadMemory } from '../../storage/store.ts';

/** What one read for a reader of batches asks for, and the end of its last batch; an answer that is larger gets memory of its own. */
const MEMORY_BYTES = (1024 + 256) * 1024;
const ALIGNMENT = 8;

/**
 * Memory for the bytes of one answer of the store, used again for the next one. Besides saving the collector's work it keeps what is read
 * in the processor's cache until it has been checked and copied to the ring.
 */
export class ReusedMemory implements ReadMemory {
  readonly #bytes = Buffer.allocUnsafeSlow(MEMORY_BYTES);
  #used = 0;

  /** What was taken before is not needed any more. */
  clear(): void {
    this.#used = 0;
  }

  take(length: number): Buffer {
    const at = this.#used;
    if (at + length > MEMORY_BYTES) return Buffer.allocUnsafeSlow(length);
    this.#used = Math.ceil((at + length) / ALIGNMENT) * ALIGNMENT;
    return this.#bytes.subarray(at, at + length);
  }
}

import { randomFillSync } from 'node:crypto';
import { assert } from '../../base/assert.ts';

const BLOCK_BYTES = 4_096;
const UINT32 = 0x1_0000_0000;

/** Random bytes of the system, fetched by the block: a packet needs twelve of them for its nonce, which is not worth a system call. */
export class RandomBytes {
  readonly #block = Buffer.alloc(BLOCK_BYTES);
  #used = BLOCK_BYTES;

  /** A copy that the caller may keep; never the same bytes twice. */
  take(bytes: number): Uint8Array {
    return Uint8Array.prototype.slice.call(this.#next(bytes));
  }

  /** Uniform in 0 to below - 1; `below` in 1 to 2^32. */
  below(below: number): number {
    assert(below >= 1 && below <= UINT32, 'gossip: random numbers are below 1 to 2^32');
    // Those at the top would make the low ones likelier.
    const limit = UINT32 - (UINT32 % below);
    for (;;) {
      const number = this.#next(4).readUInt32LE(0);
      if (number < limit) return number % below;
    }
  }

  #next(bytes: number): Buffer {
    assert(bytes <= BLOCK_BYTES, 'gossip: more random bytes than a block has');
    if (this.#used + bytes > BLOCK_BYTES) {
      randomFillSync(this.#block);
      this.#used = 0;
    }
    const from = this.#used;
    this.#used += bytes;
    return this.#block.subarray(from, this.#used);
  }
}

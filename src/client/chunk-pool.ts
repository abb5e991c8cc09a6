/** Buffers that batches are written into, in sizes of powers of two, used again and again. */
import { assert } from '../base/assert.ts';

const SIZE_MIN = 4 * 1024;

export class ChunkPool {
  /** Idle bytes that are kept; more are left to the garbage collector. */
  readonly #keepBytes: number;
  readonly #idle = new Map<number, Buffer[]>();
  #idleBytes = 0;

  constructor(keepBytes: number) {
    this.#keepBytes = keepBytes;
  }

  get idleBytes(): number {
    return this.#idleBytes;
  }

  /** At least `bytes` long; its content is arbitrary. */
  take(bytes: number): Buffer {
    let size = SIZE_MIN;
    while (size < bytes) size *= 2;
    const chunk = this.#idle.get(size)?.pop();
    if (chunk === undefined) return Buffer.allocUnsafeSlow(size);
    this.#idleBytes -= size;
    return chunk;
  }

  /** Nobody may look at the chunk any more. */
  give(chunk: Buffer): void {
    assert((chunk.length & (chunk.length - 1)) === 0 && chunk.length >= SIZE_MIN, 'a chunk comes from a pool');
    if (this.#idleBytes + chunk.length > this.#keepBytes) return;
    this.#idleBytes += chunk.length;
    const list = this.#idle.get(chunk.length);
    if (list === undefined) this.#idle.set(chunk.length, [chunk]);
    else list.push(chunk);
  }
}

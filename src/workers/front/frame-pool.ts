/** Frames of runs are a little over 128 KiB at the most, but for single large messages. */
const CHUNK_BYTES = 136 << 10;
/** Smaller frames are not worth it. */
const FRAME_BYTES_MIN = 16 << 10;
/** Chunks that are kept: 8.5 MiB. */
const CHUNKS_MAX = 64;

/**
 * Memory of frames that is used again once every stream has sent it. Without it a replay makes garbage outside of the heap faster than anything else
 * in the process, and the collector takes most of the main thread's time (measured: 60 % of it).
 */
export class FramePool {
  readonly #free: Buffer[] = [];

  take(bytes: number): PooledFrame {
    if (bytes < FRAME_BYTES_MIN || bytes > CHUNK_BYTES) return new PooledFrame(Buffer.allocUnsafe(bytes), null, this);
    const chunk = this.#free.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES);
    return new PooledFrame(chunk.subarray(0, bytes), chunk, this);
  }

  giveBack(chunk: Buffer): void {
    if (this.#free.length < CHUNKS_MAX) this.#free.push(chunk);
  }
}

/** One frame and how many still need it: whoever took it, and each write of it that has not succeeded. After a failed write it is not used again. */
export class PooledFrame {
  readonly bytes: Buffer;
  readonly #chunk: Buffer | null;
  readonly #pool: FramePool;
  #holders = 1;

  constructor(bytes: Buffer, chunk: Buffer | null, pool: FramePool) {
    this.bytes = bytes;
    this.#chunk = chunk;
    this.#pool = pool;
  }

  hold(): void {
    this.#holders += 1;
  }

  release(): void {
    this.#holders -= 1;
    if (this.#holders === 0 && this.#chunk !== null) this.#pool.giveBack(this.#chunk);
  }
}

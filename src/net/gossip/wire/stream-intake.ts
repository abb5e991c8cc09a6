/** Bytes of a stream that were not read yet, in one piece. */
export class StreamIntake {
  #bytes: Uint8Array;
  #start: number;
  #end: number;
  readonly #capacityMax: number;

  /** Begins with `bytes`, and is never larger than `capacityMax` bytes or these. */
  constructor(bytes: Uint8Array, capacityMax: number) {
    this.#bytes = bytes;
    this.#start = 0;
    this.#end = bytes.length;
    this.#capacityMax = capacityMax;
  }

  /** A view, good until the next `add`. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(this.#start, this.#end);
  }

  get length(): number {
    return this.#end - this.#start;
  }

  /** Memory that it takes, in bytes. */
  get capacity(): number {
    return this.#bytes.length;
  }

  /** False if that would be more than `capacityMax`. */
  add(bytes: Uint8Array): boolean {
    const needed = this.length + bytes.length;
    if (needed > this.#capacityMax) return false;
    if (this.#end + bytes.length > this.#bytes.length) this.#makeRoom(needed);
    this.#bytes.set(bytes, this.#end);
    this.#end += bytes.length;
    return true;
  }

  consume(length: number): void {
    this.#start += length;
  }

  #makeRoom(needed: number): void {
    const old = this.bytes;
    // Twice what is needed, so that moving bytes to the front is paid for by as many that come.
    if (needed * 2 > this.#bytes.length) {
      const capacity = Math.max(needed, Math.min(this.#capacityMax, needed * 2));
      if (capacity > this.#bytes.length) this.#bytes = new Uint8Array(capacity);
    }
    this.#bytes.set(old, 0);
    this.#end = old.length;
    this.#start = 0;
  }
}

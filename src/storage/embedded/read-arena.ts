import { assert } from '../../base/assert.ts';

const PLACE_SCALE = 2 ** 32;

/**
 * Memory that single batches are read into, round and round: no allocation for a read, and what was read lately and found good is found again.
 * A view on it is good until half of the arena has been read anew.
 */
export class ReadArena {
  readonly bytes: Buffer;
  #next = 0;
  /** Key of a batch -> offset + length * 2^32, oldest first. */
  readonly #places = new Map<number, number>();

  constructor(capacity: number) {
    this.bytes = Buffer.allocUnsafeSlow(capacity);
  }

  /** Longest claim. */
  get claimBytesMax(): number {
    return Math.floor(this.bytes.length / 2);
  }

  /** Room for `length` bytes; what was there is forgotten. */
  claim(length: number): number {
    assert(length <= this.claimBytesMax, 'a batch does not fit the read arena');
    let at = this.#next;
    if (at + length > this.bytes.length) {
      this.#forgetWhile((offset) => offset >= at);
      at = 0;
    }
    this.#forgetWhile((offset, held) => offset < at + length && at < offset + held);
    this.#next = at + length;
    return at;
  }

  /** What was claimed last and read there may be found under `key`. */
  put(key: number, offset: number, length: number): void {
    this.#places.delete(key);
    this.#places.set(key, offset + length * PLACE_SCALE);
  }

  /** The batch of `length` bytes under `key`, or null. */
  get(key: number, length: number): Buffer | null {
    const place = this.#places.get(key);
    if (place === undefined || Math.floor(place / PLACE_SCALE) !== length) return null;
    const offset = place % PLACE_SCALE;
    return this.bytes.subarray(offset, offset + length);
  }

  clear(): void {
    this.#places.clear();
  }

  #forgetWhile(isInTheWay: (offset: number, length: number) => boolean): void {
    for (const [key, place] of this.#places) {
      if (!isInTheWay(place % PLACE_SCALE, Math.floor(place / PLACE_SCALE))) return;
      this.#places.delete(key);
    }
  }
}

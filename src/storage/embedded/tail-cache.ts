import { assert } from '../../base/assert.ts';
import { laneOf, numberOf, SECTOR_BYTES } from './segment-format.ts';

const KEY_SCALE = 2 ** 33;
const GROUPS_START = 256;

function roundedDown(capacity: number): number {
  return Math.max(0, capacity - (capacity % SECTOR_BYTES));
}

/** Order of places in one lane: by segment, then by position. Exact up to 8 GiB a segment. */
function placeKey(segment: number, position: number): number {
  return numberOf(segment) * KEY_SCALE + position;
}

/**
 * The newest groups of a lane, as they are on the disk, in one ring of memory. A group is put together here, written from here, and stays
 * readable until a later one needs its place: so the cache costs one copy, which the write needs anyway.
 *
 * Memory that is never reached is never made resident.
 */
export class TailCache {
  #bytes: Buffer;
  /** Bytes of memory wanted; taken into account before the next group is staged. */
  #capacity: number;
  readonly #lane: number;
  /** Where the next group goes. */
  #next = 0;
  #staged = -1;
  #stagedLength = 0;
  /** Groups in the order they were written, a ring of (key, offset in bytes, length). */
  #keys = new Float64Array(GROUPS_START);
  #offsets = new Uint32Array(GROUPS_START);
  #lengths = new Uint32Array(GROUPS_START);
  #oldest = 0;
  #groups = 0;

  /** `capacity` in bytes; rounded down to sectors. */
  constructor(lane: number, capacity: number) {
    this.#lane = lane;
    this.#capacity = roundedDown(capacity);
    this.#bytes = Buffer.allocUnsafeSlow(this.#capacity);
  }

  /** The memory that offsets point into; another after `stage` if the capacity was changed. */
  get bytes(): Buffer {
    return this.#bytes;
  }

  /** From the next group on the cache has another size. What it holds is then forgotten. */
  resize(capacity: number): void {
    this.#capacity = roundedDown(capacity);
  }

  /** Room for a group of `length` bytes: its offset in `bytes`, or -1 if it is too large to be kept. Ends what was cached there. */
  stage(length: number): number {
    assert(this.#staged < 0, 'a group is being staged');
    if (this.#capacity !== this.#bytes.length) this.#become(this.#capacity);
    if (length > this.#bytes.length / 2) return -1;
    let at = this.#next;
    if (at + length > this.#bytes.length) {
      while (this.#groups > 0 && (this.#offsets[this.#oldest] as number) >= at) this.#dropOldest();
      at = 0;
    }
    while (this.#groups > 0 && this.#overlapsOldest(at, at + length)) this.#dropOldest();
    this.#staged = at;
    this.#stagedLength = length;
    return at;
  }

  /** The staged group is durable at `position` of `segment`, and may be found from now on. */
  commit(segment: number, position: number): void {
    assert(this.#staged >= 0, 'nothing is staged');
    if (this.#groups === this.#keys.length) this.#grow();
    const slot = (this.#oldest + this.#groups) & (this.#keys.length - 1);
    this.#keys[slot] = placeKey(segment, position);
    this.#offsets[slot] = this.#staged;
    this.#lengths[slot] = this.#stagedLength;
    this.#groups += 1;
    this.#next = this.#staged + this.#stagedLength;
    this.#staged = -1;
  }

  /** The staged group was not written. */
  abort(): void {
    this.#staged = -1;
  }

  /** Where the bytes at `position` of `segment` are in `bytes`, or -1. */
  find(segment: number, position: number): number {
    if (laneOf(segment) !== this.#lane) return -1;
    const key = placeKey(segment, position);
    let low = 0;
    let high = this.#groups;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#keyAt(middle) <= key) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return -1;
    const slot = (this.#oldest + low - 1) & (this.#keys.length - 1);
    const inside = key - (this.#keys[slot] as number);
    return inside < (this.#lengths[slot] as number) ? (this.#offsets[slot] as number) + inside : -1;
  }

  #become(capacity: number): void {
    this.#bytes = Buffer.allocUnsafeSlow(capacity);
    this.#groups = 0;
    this.#next = 0;
  }

  #keyAt(index: number): number {
    return this.#keys[(this.#oldest + index) & (this.#keys.length - 1)] as number;
  }

  #overlapsOldest(start: number, end: number): boolean {
    const offset = this.#offsets[this.#oldest] as number;
    return offset < end && start < offset + (this.#lengths[this.#oldest] as number);
  }

  #dropOldest(): void {
    this.#oldest = (this.#oldest + 1) & (this.#keys.length - 1);
    this.#groups -= 1;
  }

  #grow(): void {
    const old = this.#keys.length;
    const keys = new Float64Array(old * 2);
    const offsets = new Uint32Array(old * 2);
    const lengths = new Uint32Array(old * 2);
    for (let i = 0; i < this.#groups; i++) {
      const slot = (this.#oldest + i) & (old - 1);
      keys[i] = this.#keys[slot] as number;
      offsets[i] = this.#offsets[slot] as number;
      lengths[i] = this.#lengths[slot] as number;
    }
    this.#keys = keys;
    this.#offsets = offsets;
    this.#lengths = lengths;
    this.#oldest = 0;
  }
}

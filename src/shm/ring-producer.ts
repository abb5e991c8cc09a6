import { assert } from '../base/assert.ts';
import {
  DATA_OFFSET,
  HEAD_INDEX,
  RECORD_HEADER_BYTES,
  RECORD_LENGTH_WORD,
  RECORD_TYPE_WORD,
  recordBytesMaxOf,
  recordFootprint,
  ringCapacity,
  TAIL_INDEX,
  TYPE_GAP,
  TYPE_MAX,
} from './layout.ts';

export { createRing } from './layout.ts';

const NO_CLAIM = -1;

/**
 * The writing end of a ring; one thread. `claim`, write the payload in place, `commit`. Never blocks, never drops: full
 * is the return value -1. A thread that dies between claim and commit leaves no trace: the reader sees whole records or
 * nothing, and a new producer on the same buffer goes on where the last commit ended.
 */
export class RingProducer {
  /** The ring's data region; offsets that `claim` returns point into it. The same memory three times. */
  readonly bytes: Uint8Array;
  readonly buffer: Buffer;
  readonly view: DataView;
  readonly capacityBytes: number;
  /** Longest payload, in bytes: such a record always fits once the consumer has drained the ring. */
  readonly recordBytesMax: number;

  readonly #header: Int32Array;
  readonly #words: Int32Array;
  /** Own position, modulo 2^32. Only this thread moves it, so it is never loaded again. */
  #tail: number;
  /** The consumer's position as last seen; the real one can only be ahead of it. */
  #headSeen: number;
  /** Place of the claimed record in `bytes`, or NO_CLAIM. */
  #claimed = NO_CLAIM;
  /** Payload bytes claimed. */
  #claimedLength = 0;
  /** Bytes of the gap in front of the claimed record; 0 without a wrap. */
  #claimedGap = 0;

  constructor(buffer: SharedArrayBuffer) {
    const capacity = ringCapacity(buffer);
    this.capacityBytes = capacity;
    this.recordBytesMax = recordBytesMaxOf(capacity);
    this.bytes = new Uint8Array(buffer, DATA_OFFSET, capacity);
    this.buffer = Buffer.from(buffer, DATA_OFFSET, capacity);
    this.view = new DataView(buffer, DATA_OFFSET, capacity);
    this.#header = new Int32Array(buffer, 0, DATA_OFFSET / 4);
    this.#words = new Int32Array(buffer, DATA_OFFSET, capacity / 4);
    // Loads what a former producer on this buffer published last; pairs with the store in commit().
    this.#tail = Atomics.load(this.#header, TAIL_INDEX);
    // Loads the space given back so far; pairs with the consumer's store of head.
    this.#headSeen = Atomics.load(this.#header, HEAD_INDEX);
    assert((this.#tail - this.#headSeen) >>> 0 <= capacity, 'ring: tail is further from head than the capacity');
  }

  /**
   * Reserves a contiguous record of `length` payload bytes, 0 to `recordBytesMax`; `type` is 1 to 65535. Returns the
   * offset of its payload in `bytes`, a multiple of 8, or -1 when the ring is full. One claim at a time.
   */
  claim(type: number, length: number): number {
    assert(this.#claimed === NO_CLAIM, 'ring: the record before is not committed');
    assert(type > TYPE_GAP && type <= TYPE_MAX, 'ring: a record type is 1 to 65535');
    assert(length >= 0 && length <= this.recordBytesMax, 'ring: the record is longer than recordBytesMax');
    const footprint = recordFootprint(length);
    const place = this.#tail & (this.capacityBytes - 1);
    const toEnd = this.capacityBytes - place;
    const gap = footprint <= toEnd ? 0 : toEnd;
    if (!this.#fits(gap + footprint)) return -1;

    // Plain stores: nothing at or behind tail is read by the consumer before commit() publishes it.
    if (gap > 0) {
      this.#words[(place >>> 2) + RECORD_LENGTH_WORD] = gap;
      this.#words[(place >>> 2) + RECORD_TYPE_WORD] = TYPE_GAP;
    }
    const start = gap > 0 ? 0 : place;
    this.#words[(start >>> 2) + RECORD_LENGTH_WORD] = -(length + RECORD_HEADER_BYTES);
    this.#words[(start >>> 2) + RECORD_TYPE_WORD] = type;
    this.#claimed = start;
    this.#claimedLength = length;
    this.#claimedGap = gap;
    return start + RECORD_HEADER_BYTES;
  }

  /** Publishes the claimed record, with `length` payload bytes if fewer than claimed were needed. */
  commit(length: number = this.#claimedLength): void {
    assert(this.#claimed !== NO_CLAIM, 'ring: nothing is claimed');
    assert(length >= 0 && length <= this.#claimedLength, 'ring: a record can only shrink');
    this.#words[(this.#claimed >>> 2) + RECORD_LENGTH_WORD] = length + RECORD_HEADER_BYTES;
    this.#tail = (this.#tail + this.#claimedGap + recordFootprint(length)) | 0;
    this.#claimed = NO_CLAIM;
    // Publishes the gap, the header and the payload, all written before it; pairs with the load of tail in RingConsumer.
    Atomics.store(this.#header, TAIL_INDEX, this.#tail);
  }

  /** Gives the claim back. The consumer never learns of it. */
  abort(): void {
    assert(this.#claimed !== NO_CLAIM, 'ring: nothing is claimed');
    this.#claimed = NO_CLAIM;
  }

  /** Position behind the last record committed, modulo 2^32; compare with `RingConsumer.hasPassed`. */
  get position(): number {
    return this.#tail >>> 0;
  }

  /** Bytes published and not yet given back, record headers and gaps included. */
  usedBytes(): number {
    // Refreshes the view of the space given back; pairs with the consumer's store of head.
    this.#headSeen = Atomics.load(this.#header, HEAD_INDEX);
    return (this.#tail - this.#headSeen) >>> 0;
  }

  freeBytes(): number {
    return this.capacityBytes - this.usedBytes();
  }

  /** The consumer's line is touched only when what was last seen of it is not enough. */
  #fits(needed: number): boolean {
    if (needed <= this.capacityBytes - ((this.#tail - this.#headSeen) >>> 0)) return true;
    const used = this.usedBytes();
    assert(used <= this.capacityBytes, 'ring: head is ahead of tail');
    return needed <= this.capacityBytes - used;
  }
}

import { assert } from '../base/assert.ts';
import {
  DATA_OFFSET,
  HEAD_INDEX,
  RECORD_HEADER_BYTES,
  RECORD_LENGTH_WORD,
  RECORD_TYPE_WORD,
  recordFootprint,
  ringCapacity,
  TAIL_INDEX,
  TYPE_GAP,
  TYPE_MAX,
} from './layout.ts';

/** `offset` and `length` of the payload in `RingConsumer.bytes`; valid until `drain` returns. */
export type RecordHandler = (type: number, offset: number, length: number) => void;

/** The reading end of a ring; one thread. */
export class RingConsumer {
  /** The ring's data region. The same memory three times; only read it. */
  readonly bytes: Uint8Array;
  readonly buffer: Buffer;
  readonly view: DataView;
  readonly capacityBytes: number;

  readonly #header: Int32Array;
  readonly #words: Int32Array;
  /** Own position, modulo 2^32: the first byte not consumed. Only this thread moves it. */
  #head: number;
  /** The producer's position as last seen; the real one can only be ahead of it. */
  #tailSeen: number;
  #draining = false;

  constructor(buffer: SharedArrayBuffer) {
    const capacity = ringCapacity(buffer);
    this.capacityBytes = capacity;
    this.bytes = new Uint8Array(buffer, DATA_OFFSET, capacity);
    this.buffer = Buffer.from(buffer, DATA_OFFSET, capacity);
    this.view = new DataView(buffer, DATA_OFFSET, capacity);
    this.#header = new Int32Array(buffer, 0, DATA_OFFSET / 4);
    this.#words = new Int32Array(buffer, DATA_OFFSET, capacity / 4);
    // Loads what a former consumer of this buffer gave back last; pairs with the store in drain().
    this.#head = Atomics.load(this.#header, HEAD_INDEX);
    this.#tailSeen = this.#head;
  }

  /**
   * Calls `handler` for up to `limit` records, in order, and returns how many. 0 means that the ring was empty when it
   * looked, never less; a number under `limit` does not mean that nothing is left, because the producer's line is read
   * only when all that was seen of it is consumed. Space is given back once, at the end. If the handler throws, the
   * records it was given, the last one included, are consumed: none is ever handed over twice.
   */
  drain(handler: RecordHandler, limit: number): number {
    assert(!this.#draining, 'ring: drain called from its own handler');
    if (this.#head === this.#tailSeen && this.#loadTail() === this.#head) return 0;
    const start = this.#head;
    const words = this.#words;
    const mask = this.capacityBytes - 1;
    let head = start;
    let count = 0;
    this.#draining = true;
    try {
      while (count < limit && head !== this.#tailSeen) {
        const place = head & mask;
        const recordBytes = words[(place >>> 2) + RECORD_LENGTH_WORD] as number;
        const type = words[(place >>> 2) + RECORD_TYPE_WORD] as number;
        head = this.#skip(head, place, recordBytes, type);
        if (type === TYPE_GAP) continue;
        count += 1;
        handler(type, place + RECORD_HEADER_BYTES, recordBytes - RECORD_HEADER_BYTES);
      }
    } finally {
      this.#draining = false;
      this.#head = head;
      // Gives the space back: publishes that all reads of it are over. Pairs with the producer's load of head in claim().
      if (head !== start) Atomics.store(this.#header, HEAD_INDEX, head);
    }
    return count;
  }

  /** True when nothing is published that was not consumed. Always looks at the producer's line when it seems empty. */
  isEmpty(): boolean {
    return this.#head === this.#tailSeen && this.#loadTail() === this.#head;
  }

  /** True when everything up to a `position` of the producer is consumed. The two are never further apart than the capacity. */
  hasPassed(position: number): boolean {
    return ((this.#head - position) | 0) >= 0;
  }

  /** Bytes published and not yet given back, record headers and gaps included. */
  usedBytes(): number {
    return (this.#loadTail() - this.#head) >>> 0;
  }

  #loadTail(): number {
    // Makes visible every record up to tail; pairs with the producer's store of tail in commit().
    this.#tailSeen = Atomics.load(this.#header, TAIL_INDEX);
    assert(
      (this.#tailSeen - this.#head) >>> 0 <= this.capacityBytes,
      'ring: tail is further from head than the capacity',
    );
    return this.#tailSeen;
  }

  /** Position behind the record at `place`, after checking the header against what the producer asserts when it writes one. */
  #skip(head: number, place: number, recordBytes: number, type: number): number {
    assert(recordBytes >= RECORD_HEADER_BYTES, 'ring: tail moved over a record that was not committed');
    assert(type >= TYPE_GAP && type <= TYPE_MAX, 'ring: unknown record type');
    const footprint = recordFootprint(recordBytes - RECORD_HEADER_BYTES);
    assert(place + footprint <= this.capacityBytes, 'ring: a record reaches over the end of the ring');
    assert(footprint <= (this.#tailSeen - head) >>> 0, 'ring: a record reaches over tail');
    assert(
      type !== TYPE_GAP || place + footprint === this.capacityBytes,
      'ring: a gap ends before the end of the ring',
    );
    return (head + footprint) | 0;
  }
}

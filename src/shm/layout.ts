import { assert } from '../base/assert.ts';

/**
 * Where everything in a ring's SharedArrayBuffer lies. One producer thread, one consumer thread.
 *
 *   byte 0            128           256           384                                384 + capacity
 *   +-------------+-------------+-------------+-----------------------------------------------+
 *   | magic, size | tail        | head        | data region: records, back to back            |
 *   | (constant)  | (producer)  | (consumer)  | RingProducer.bytes / RingConsumer.bytes       |
 *   +-------------+-------------+-------------+-----------------------------------------------+
 *     own line      own line      own line      (128 bytes: two 64-byte lines, because CPUs prefetch lines in pairs)
 *
 * Tail and head are *positions*: they count bytes ever published and ever consumed, and wrap at 2^32. A position's
 * place in the data region is
 * `position & (capacity - 1)`; `tail - head`, taken modulo 2^32, is the number of bytes in use, so that full
 * (capacity) and empty (0) differ.
 * Every position is a multiple of 8.
 *
 * A record, at a multiple of 8 in the data region, never broken over its end:
 *
 *   +0              +4           +8                          +8 + length     next multiple of 8
 *   +---------------+------------+---------------------------+---------------+
 *   | record bytes  | type       | payload                   | padding       |
 *   | i32 = 8+length| i32        | (8-byte aligned)          | (undefined)   |
 *   +---------------+------------+---------------------------+---------------+
 *
 * A claim that does not fit before the region's end is preceded by a *gap record* (type 0) that reaches exactly to the end:
 *
 *      head                        tail before              capacity
 *   ----v----------------------------v------------------------+   1. gap header written (plain), 2. record written at 0 (plain),
 *   new | records not yet consumed   | gap record, type 0     |   3. one atomic store of tail publishes both
 *   ----+----------------------------+------------------------+
 *
 * Publication is the atomic store of `tail`, so a record needs no atomics of its own and consumed space need not be zeroed: what lies at or
 * behind `tail` is never looked at. While claimed, a record carries minus its length (Agrona's mark of an unpublished
 * record): a tail that moved over
 * a record that was not committed is a broken invariant, and the consumer's assertion finds it.
 */
export const RING_MAGIC = 0x42524e47;

/** Indexes into the Int32Array over the header. */
export const MAGIC_INDEX = 0;
export const CAPACITY_INDEX = 1;
export const TAIL_INDEX = 128 / 4;
export const HEAD_INDEX = 256 / 4;

/** Where the data region begins, in bytes. */
export const DATA_OFFSET = 384;

/** Every record starts at a multiple of this; so does its payload. */
export const ALIGNMENT = 8;

export const RECORD_HEADER_BYTES = 8;

/** Where in a record, in 32-bit words. */
export const RECORD_LENGTH_WORD = 0;
export const RECORD_TYPE_WORD = 1;

/** Type of the record that fills the region's end before a wrap. Never handed to a reader. */
export const TYPE_GAP = 0;
export const TYPE_MAX = 65_535;

export const CAPACITY_MIN = 1_024;
/** Bytes in use must fit a non-negative 32-bit integer. */
export const CAPACITY_MAX = 1 << 30;

/** Bytes that a record with this payload length takes in the ring. */
export function recordFootprint(length: number): number {
  return (length + RECORD_HEADER_BYTES + (ALIGNMENT - 1)) & ~(ALIGNMENT - 1);
}

/** Longest payload: with its header half the ring, so that it fits at any position of a drained ring, behind a gap if need be. */
export function recordBytesMaxOf(capacityBytes: number): number {
  return capacityBytes / 2 - RECORD_HEADER_BYTES;
}

/** An empty ring. `capacityBytes`: a power of two in [1024, 2^30]. */
export function createRing(capacityBytes: number): SharedArrayBuffer {
  return createRingAt(capacityBytes, 0);
}

/** An empty ring whose positions start at `position` (a multiple of 8, modulo 2^32): lets a test reach the wrap of the counters at once. */
export function createRingAt(capacityBytes: number, position: number): SharedArrayBuffer {
  assert(
    Number.isInteger(capacityBytes) && capacityBytes >= CAPACITY_MIN && capacityBytes <= CAPACITY_MAX,
    'a ring holds 1 KiB to 1 GiB',
  );
  assert((capacityBytes & (capacityBytes - 1)) === 0, "a ring's capacity is a power of two");
  assert(position % ALIGNMENT === 0, 'a position is a multiple of 8');
  const buffer = new SharedArrayBuffer(DATA_OFFSET + capacityBytes);
  const header = new Int32Array(buffer, 0, DATA_OFFSET / 4);
  // Plain stores: the buffer reaches another thread by a message, which orders them.
  header[MAGIC_INDEX] = RING_MAGIC;
  header[CAPACITY_INDEX] = capacityBytes;
  header[TAIL_INDEX] = position | 0;
  header[HEAD_INDEX] = position | 0;
  return buffer;
}

/** Checks that `buffer` is a ring and gives its capacity in bytes. */
export function ringCapacity(buffer: SharedArrayBuffer): number {
  assert(buffer.byteLength >= DATA_OFFSET + CAPACITY_MIN, 'the buffer is too short for a ring');
  const header = new Int32Array(buffer, 0, DATA_OFFSET / 4);
  assert(header[MAGIC_INDEX] === RING_MAGIC, 'the buffer is not a ring: make it with createRing');
  const capacityBytes = header[CAPACITY_INDEX] as number;
  assert(buffer.byteLength === DATA_OFFSET + capacityBytes, 'the ring was cut short');
  return capacityBytes;
}

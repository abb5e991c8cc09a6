import { assert } from './assert.ts';

/**
 * Little-endian readers and writers. Ids, sequences and times are unsigned 64-bit integers on disk and in commands, but only those that a
 * JavaScript number holds exactly exist: 0 to 2^53-1. Anything beyond is refused and never rounded.
 */
export const SAFE_UINT_MAX = Number.MAX_SAFE_INTEGER;

const TWO_32 = 0x1_0000_0000;
/** High word of 2^53-1. */
const HIGH_MAX = 0x1f_ffff;

/** An unsigned 64-bit integer as a number, or -1 if it is beyond 2^53-1. */
export function tryReadSafeUint(view: DataView, offset: number): number {
  const high = view.getUint32(offset + 4, true);
  return high > HIGH_MAX ? -1 : high * TWO_32 + view.getUint32(offset, true);
}

/** The same for bytes that this program has written: beyond 2^53-1 is damage (AssertionError). */
export function readSafeUint(view: DataView, offset: number): number {
  const value = tryReadSafeUint(view, offset);
  assert(value >= 0, 'an integer is beyond 2^53-1');
  return value;
}

/** Writes `value` (0 to 2^53-1, asserted) in 8 bytes. */
export function writeSafeUint(view: DataView, offset: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, () => `${value} is not an integer from 0 to 2^53-1`);
  view.setUint32(offset, value % TWO_32, true);
  view.setUint32(offset + 4, Math.floor(value / TWO_32), true);
}

/** Reads fields one after another; reading past the end is damage (AssertionError). */
export class ByteReader {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  #offset: number;

  constructor(bytes: Uint8Array, offset = 0) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#offset = offset;
  }

  get offset(): number {
    return this.#offset;
  }

  get remaining(): number {
    return this.bytes.length - this.#offset;
  }

  uint8(): number {
    return this.#view.getUint8(this.skip(1));
  }

  uint16(): number {
    return this.#view.getUint16(this.skip(2), true);
  }

  uint32(): number {
    return this.#view.getUint32(this.skip(4), true);
  }

  safeUint(): number {
    return readSafeUint(this.#view, this.skip(8));
  }

  /** Any f64 (NaN included). */
  float64(): number {
    return this.#view.getFloat64(this.skip(8), true);
  }

  /** A view on the next `length` bytes. */
  take(length: number): Uint8Array {
    const start = this.skip(length);
    return this.bytes.subarray(start, start + length);
  }

  /** Moves on by `length` bytes; returns where they start. */
  skip(length: number): number {
    const start = this.#offset;
    assert(length >= 0 && length <= this.remaining, () => `${length} bytes wanted at ${start}, ${this.remaining} left`);
    this.#offset = start + length;
    return start;
  }
}

/**
 * Writes fields one after another into memory that grows by half when it is full. `claim` replaces the view, so it is called before the
 * view is read.
 */
export class ByteWriter {
  #bytes: Uint8Array;
  #view: DataView;
  #length = 0;

  constructor(capacity = 256) {
    this.#bytes = new Uint8Array(capacity);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Bytes written. */
  get length(): number {
    return this.#length;
  }

  /** What was written: a view, valid until the next write or `clear`. */
  get written(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** A copy of what was written. */
  toBytes(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  clear(): void {
    this.#length = 0;
  }

  uint8(value: number): void {
    assert(value >>> 0 === value && value <= 0xff, () => `${value} is not a uint8`);
    const at = this.claim(1);
    this.#view.setUint8(at, value);
  }

  uint16(value: number): void {
    assert(value >>> 0 === value && value <= 0xffff, () => `${value} is not a uint16`);
    const at = this.claim(2);
    this.#view.setUint16(at, value, true);
  }

  uint32(value: number): void {
    assert(value >>> 0 === value, () => `${value} is not a uint32`);
    const at = this.claim(4);
    this.#view.setUint32(at, value, true);
  }

  safeUint(value: number): void {
    const at = this.claim(8);
    writeSafeUint(this.#view, at, value);
  }

  float64(value: number): void {
    const at = this.claim(8);
    this.#view.setFloat64(at, value, true);
  }

  bytes(source: Uint8Array, start = 0, end = source.length): void {
    const at = this.claim(end - start);
    for (let i = start; i < end; i++) this.#bytes[at + i - start] = source[i] as number;
  }

  /** Overwrites a uint32 written before, for a length or count known only afterwards. */
  patchUint32(offset: number, value: number): void {
    assert(offset >= 0 && offset + 4 <= this.#length && value >>> 0 === value, () => `patch ${value} at ${offset}`);
    this.#view.setUint32(offset, value, true);
  }

  /** Makes room for `length` bytes and returns where it starts. */
  claim(length: number): number {
    const start = this.#length;
    const end = start + length;
    if (end > this.#bytes.length) {
      const grown = new Uint8Array(end + (end >>> 1));
      grown.set(this.#bytes.subarray(0, start));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#length = end;
    return start;
  }
}

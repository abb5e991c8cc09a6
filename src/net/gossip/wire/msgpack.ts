import { assert } from '../../../base/assert.ts';
import { ByteWriter } from '../../../base/bytes.ts';
import { isUtf8 } from '../../../base/utf8.ts';

/**
 * msgpack as Go's codec writes and reads it for memberlist and Serf (hashicorp/go-msgpack v2 codec/msgpack.go, MsgpackHandle with WriteExt off): the format
 * from before 2013, in which strings and byte slices are one type, "raw", without its 8-bit length; unsigned fields are written with the unsigned types
 * and signed fields with the signed ones, also if positive. A struct is a map of its field names.
 *
 * Our own and not a package's, since foreign bytes are read here: a reader that is told which type and which largest size comes next builds nothing that
 * a sender can choose, and stays usable from field to field of a stream.
 */

/** `cut`: the bytes end inside a value. `type`: another type than asked for. `range`: a number or count beyond its bound. `long`: a string or byte slice. */
export type MsgpackFailure = 'cut' | 'type' | 'range' | 'long' | 'utf8';

/** Longest key of a map that is looked at; all field names are shorter. Longer ones are unknown fields. */
const KEY_BYTES_MAX = 32;
const TWO_32 = 0x1_0000_0000;
const EMPTY = new Uint8Array(0);

/**
 * Reads values one after another. Nothing throws: the first failure stays in `failure`, and every later call returns a zero value. So check `failure` once,
 * behind the last read, and no loop bound comes from the bytes without passing `mapStart` or `arrayStart`, which are 0 after a failure. nil is the zero value
 * of what is asked for, as in Go.
 */
export class MsgpackReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #end: number;
  #offset: number;
  #failure: MsgpackFailure | null = null;

  /** Reads bytes[offset, end). */
  constructor(bytes: Uint8Array, offset = 0, end = bytes.length) {
    assert(offset >= 0 && offset <= end && end <= bytes.length, 'a range outside of the bytes');
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#offset = offset;
    this.#end = end;
  }

  get failure(): MsgpackFailure | null {
    return this.#failure;
  }

  /** Where the next value starts. */
  get offset(): number {
    return this.#offset;
  }

  /** Bytes that are left; 0 after a failure. */
  get remaining(): number {
    return this.#failure === null ? this.#end - this.#offset : 0;
  }

  /** For a rule of the caller's that a value broke. */
  fail(failure: MsgpackFailure): void {
    this.#failure ??= failure;
  }

  /** Number of key and value pairs that follow; nil counts as none. */
  mapStart(countMax: number): number {
    const type = this.#byte();
    if (type === 0xc0) return 0;
    if (type >= 0x80 && type <= 0x8f) return this.#count(type & 0x0f, 2, countMax);
    if (type === 0xde) return this.#count(this.#uintBE(2), 2, countMax);
    if (type === 0xdf) return this.#count(this.#uintBE(4), 2, countMax);
    return this.#wrongType();
  }

  /** Number of values that follow; nil counts as none. */
  arrayStart(countMax: number): number {
    const type = this.#byte();
    if (type === 0xc0) return 0;
    if (type >= 0x90 && type <= 0x9f) return this.#count(type & 0x0f, 1, countMax);
    if (type === 0xdc) return this.#count(this.#uintBE(2), 1, countMax);
    if (type === 0xdd) return this.#count(this.#uintBE(4), 1, countMax);
    return this.#wrongType();
  }

  /** A field's name; '' for one that no field of ours has (not ASCII or too long). */
  key(): string {
    const length = this.#rawLength();
    const start = this.#take(length);
    if (this.#failure !== null || length > KEY_BYTES_MAX) return '';
    let key = '';
    for (let i = start; i < start + length; i++) {
      const code = this.#bytes[i] as number;
      if (code > 0x7e) return '';
      key += String.fromCharCode(code);
    }
    return key;
  }

  /** An integer of 0 to `max` (at most 2^53-1). */
  uint(max: number): number {
    const value = this.#integer();
    if (value >= 0 && value <= max) return Number(value);
    this.fail('range');
    return 0;
  }

  /** Any unsigned 64-bit integer. */
  uint64(): bigint {
    const value = this.#integer();
    if (value >= 0) return BigInt(value);
    this.fail('range');
    return 0n;
  }

  /** A signed integer of -2^53+1 to 2^53-1. */
  int(): number {
    const value = Number(this.#integer());
    if (Number.isSafeInteger(value)) return value;
    this.fail('range');
    return 0;
  }

  /** Any float (NaN and infinities included) or integer. */
  float64(): number {
    const type = this.#peek();
    if (type !== 0xca && type !== 0xcb) return Number(this.#integer());
    this.#byte();
    const start = this.#take(type === 0xca ? 4 : 8);
    if (this.#failure !== null) return 0;
    return type === 0xca ? this.#view.getFloat32(start) : this.#view.getFloat64(start);
  }

  bool(): boolean {
    const type = this.#byte();
    if (type === 0xc3 || type === 1) return true;
    if (type !== 0xc2 && type !== 0xc0 && type !== 0) this.fail('type');
    return false;
  }

  /** A view of at most `max` bytes. */
  bytes(max: number): Uint8Array {
    if (this.#peek() === 0xc0) return this.#nil();
    const length = this.#rawLength();
    if (length > max) this.fail('long');
    const start = this.#take(length);
    return this.#failure === null ? this.#bytes.subarray(start, start + length) : EMPTY;
  }

  /** At most `max` bytes of UTF-8. Others would become one and the same replacement character, and two names could turn equal. */
  string(max: number): string {
    const bytes = this.bytes(max);
    if (isUtf8(bytes, 0, bytes.length)) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString();
    this.fail('utf8');
    return '';
  }

  /** Passes over one value of any type, however deep. */
  skip(): void {
    if (this.#failure !== null) return;
    const length = new ValueScanner().scan(this.#bytes.subarray(this.#offset, this.#end));
    if (length === 'more') this.fail('cut');
    else if (typeof length === 'string') this.fail('type');
    else this.#offset += length;
  }

  /** A bigint only beyond 2^53-1; nil is 0. */
  #integer(): number | bigint {
    const type = this.#byte();
    if (type <= 0x7f) return type;
    if (type >= 0xe0) return type - 0x100;
    switch (type) {
      case 0xc0:
        return 0;
      case 0xcc:
        return this.#uintBE(1);
      case 0xcd:
        return this.#uintBE(2);
      case 0xce:
        return this.#uintBE(4);
      case 0xcf:
        return this.#integer64(false);
      case 0xd0:
        return (this.#uintBE(1) << 24) >> 24;
      case 0xd1:
        return (this.#uintBE(2) << 16) >> 16;
      case 0xd2:
        return this.#uintBE(4) | 0;
      case 0xd3:
        return this.#integer64(true);
      default:
        return this.#wrongType();
    }
  }

  #integer64(isSigned: boolean): number | bigint {
    const start = this.#take(8);
    if (this.#failure !== null) return 0;
    const value = isSigned ? this.#view.getBigInt64(start) : this.#view.getBigUint64(start);
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }

  /** Length of a string or byte slice, whose bytes come next. */
  #rawLength(): number {
    const type = this.#byte();
    if (type >= 0xa0 && type <= 0xbf) return type & 0x1f;
    switch (type) {
      case 0xc4:
      case 0xd9:
        return this.#uintBE(1);
      case 0xc5:
      case 0xda:
        return this.#uintBE(2);
      case 0xc6:
      case 0xdb:
        return this.#uintBE(4);
      default:
        return this.#wrongType();
    }
  }

  /** Each value has a byte at least, so that a count beyond what is left is known to be false at once. */
  #count(count: number, values: number, countMax: number): number {
    if (count > countMax) this.fail('range');
    else if (count * values > this.remaining) this.fail('cut');
    return this.#failure === null ? count : 0;
  }

  #wrongType(): number {
    this.fail('type');
    return 0;
  }

  #nil(): Uint8Array {
    this.#byte();
    return EMPTY;
  }

  /** 0xc1, which no value starts with, if there is none. */
  #peek(): number {
    if (this.#failure === null && this.#offset < this.#end) return this.#bytes[this.#offset] as number;
    this.fail('cut');
    return 0xc1;
  }

  #byte(): number {
    const type = this.#peek();
    if (this.#failure === null) this.#offset += 1;
    return type;
  }

  #uintBE(width: number): number {
    const start = this.#take(width);
    if (this.#failure !== null) return 0;
    if (width === 1) return this.#view.getUint8(start);
    return width === 2 ? this.#view.getUint16(start) : this.#view.getUint32(start);
  }

  #take(length: number): number {
    const start = this.#offset;
    if (length > this.remaining) this.fail('cut');
    else this.#offset = start + length;
    return start;
  }
}

/** Of types 0xc0 to 0xdf: bytes of type, tag and fixed content; bytes of the length that follows; values for each of that length, 0 if it counts bytes. */
const LAYOUTS: readonly (readonly [fixed: number, lengthBytes: number, values: number] | null)[] = [
  [1, 0, 0], // nil
  null,
  [1, 0, 0], // false, true
  [1, 0, 0],
  [1, 1, 0], // bin 8, 16, 32
  [1, 2, 0],
  [1, 4, 0],
  [2, 1, 0], // ext 8, 16, 32
  [2, 2, 0],
  [2, 4, 0],
  [5, 0, 0], // float 32, 64
  [9, 0, 0],
  [2, 0, 0], // uint 8 to 64
  [3, 0, 0],
  [5, 0, 0],
  [9, 0, 0],
  [2, 0, 0], // int 8 to 64
  [3, 0, 0],
  [5, 0, 0],
  [9, 0, 0],
  [3, 0, 0], // fixext 1, 2, 4, 8, 16
  [4, 0, 0],
  [6, 0, 0],
  [10, 0, 0],
  [18, 0, 0],
  [1, 1, 0], // str 8, 16, 32
  [1, 2, 0],
  [1, 4, 0],
  [1, 2, 1], // array 16, 32
  [1, 4, 1],
  [1, 2, 2], // map 16, 32
  [1, 4, 2],
];

/**
 * Finds where a value ends, in bytes that may still be coming: each call goes on where the one before stopped, so that a value in many small pieces costs what
 * it costs in one. Without recursion: what is left to read is a number of values, whoever contains them.
 */
export class ValueScanner {
  #at = 0;
  #values = 1;

  /**
   * `bytes`: from the value's start on, the same and more in each call. Returns the value's length; `tooLarge` as soon as its head claims more than
   * `lengthMax` bytes, each value inside of it being one at least.
   */
  scan(bytes: Uint8Array, lengthMax = Number.POSITIVE_INFINITY): number | 'more' | 'malformed' | 'tooLarge' {
    while (this.#values > 0) {
      if (this.#at + this.#values > lengthMax) return 'tooLarge';
      if (this.#at >= bytes.length) return 'more';
      const type = bytes[this.#at] as number;
      if (type < 0xc0 || type > 0xdf) this.#short(type);
      else {
        const layout = LAYOUTS[type - 0xc0];
        if (layout === null || layout === undefined) return 'malformed';
        const [fixed, lengthBytes, values] = layout;
        if (this.#at + 1 + lengthBytes > bytes.length) return 'more';
        let length = 0;
        for (let i = 1; i <= lengthBytes; i++) length = length * 0x100 + (bytes[this.#at + i] as number);
        this.#at += fixed + lengthBytes + (values === 0 ? length : 0);
        this.#values += length * values - 1;
      }
    }
    if (this.#at > lengthMax) return 'tooLarge';
    return this.#at > bytes.length ? 'more' : this.#at;
  }

  /** Types that have their length, or all, in their one byte. */
  #short(type: number): void {
    const isRaw = type >= 0xa0 && type <= 0xbf;
    this.#at += isRaw ? 1 + (type & 0x1f) : 1;
    this.#values -= 1;
    if (type >= 0x80 && type <= 0x8f) this.#values += (type & 0x0f) * 2;
    if (type >= 0x90 && type <= 0x9f) this.#values += type & 0x0f;
  }
}

/** Writes values one after another, byte for byte as Go does. */
export class MsgpackWriter {
  readonly #out: ByteWriter;

  constructor(out: ByteWriter = new ByteWriter()) {
    this.#out = out;
  }

  /** A copy of what was written. */
  toBytes(): Uint8Array {
    return this.#out.toBytes();
  }

  nil(): this {
    this.#out.uint8(0xc0);
    return this;
  }

  bool(value: boolean): this {
    this.#out.uint8(value ? 0xc3 : 0xc2);
    return this;
  }

  /** A field of an unsigned type: 0 to 2^64-1. */
  uint(value: number | bigint): this {
    assert(value >= 0 && value < 1n << 64n, () => `${value} is not a uint64`);
    if (value <= 0x7f) return this.#head(Number(value), 0, 0);
    if (value <= 0xff) return this.#head(0xcc, 1, Number(value));
    if (value <= 0xffff) return this.#head(0xcd, 2, Number(value));
    if (value < TWO_32) return this.#head(0xce, 4, Number(value));
    return this.#integer64(0xcf, BigInt(value));
  }

  /** A field of a signed type: -2^63 to 2^63-1. */
  int(value: number | bigint): this {
    assert(value >= -(1n << 63n) && value < 1n << 63n, () => `${value} is not an int64`);
    if (value >= -32 && value <= 0x7f) return this.#head(Number(value) & 0xff, 0, 0);
    if (value >= -0x80 && value < 0) return this.#head(0xd0, 1, Number(value) & 0xff);
    if (value >= -0x8000 && value <= 0x7fff) return this.#head(0xd1, 2, Number(value) & 0xffff);
    if (value >= -0x8000_0000 && value <= 0x7fff_ffff) return this.#head(0xd2, 4, Number(value) >>> 0);
    return this.#integer64(0xd3, BigInt.asUintN(64, BigInt(value)));
  }

  float64(value: number): this {
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, value);
    this.#out.uint8(0xcb);
    this.#out.bytes(new Uint8Array(view.buffer));
    return this;
  }

  string(value: string): this {
    return this.bytes(Buffer.from(value));
  }

  /** Go writes a slice that is nil as nil, an empty one as empty; it reads both as empty. */
  bytes(value: Uint8Array | null): this {
    if (value === null) return this.nil();
    const length = value.length;
    if (length <= 31) this.#head(0xa0 | length, 0, 0);
    else if (length <= 0xffff) this.#head(0xda, 2, length);
    else this.#head(0xdb, 4, length);
    this.#out.bytes(value);
    return this;
  }

  /** `count` keys and values follow. */
  map(count: number): this {
    return this.#container(count, 0x80, 0xde);
  }

  /** `count` values follow. */
  array(count: number): this {
    return this.#container(count, 0x90, 0xdc);
  }

  #container(count: number, fixed: number, wide: number): this {
    if (count <= 15) return this.#head(fixed | count, 0, 0);
    return count <= 0xffff ? this.#head(wide, 2, count) : this.#head(wide + 1, 4, count);
  }

  #integer64(type: number, value: bigint): this {
    this.#head(type, 4, Number(value >> 32n));
    return this.#word(4, Number(value & 0xffff_ffffn));
  }

  #head(type: number, width: number, value: number): this {
    this.#out.uint8(type);
    return this.#word(width, value);
  }

  #word(width: number, value: number): this {
    for (let shift = (width - 1) * 8; shift >= 0; shift -= 8) this.#out.uint8((value >>> shift) & 0xff);
    return this;
  }
}

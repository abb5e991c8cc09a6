import type { Reason } from '../base/errors.ts';
import {
  isTraceparentKey,
  readTraceparent,
  TRACEPARENT_KEY_LENGTH,
  TRACEPARENT_LENGTH,
} from '../base/trace-context.ts';
import { isUtf8 } from '../base/utf8.ts';
import { BODY_TAG, EXPIRATION_SECONDS_MAX, EXPIRATION_TAG, HEADERS_TAG, RECORD_TAG } from './batch-format.ts';
import { TAG_BYTES_MAX, VarintCursor } from './varint.ts';

/** What a record may hold; all sizes in bytes. */
export interface RecordLimits {
  readonly bodyBytes: number;
  /** Keys and values of a record's headers together. */
  readonly headersBytes: number;
  readonly headersCount: number;
  /** Records of one section. */
  readonly records: number;
}

const WIRE_VARINT = 0;
const WIRE_FIXED64 = 1;
const WIRE_BYTES = 2;
const WIRE_FIXED32 = 5;

/** Headers have keys and values: `0x0a` Header.key = 1, `0x12` Header.value = 2. */
const HEADER_KEY_TAG = 0x0a;
const HEADER_VALUE_TAG = 0x12;
const HEADER_KEY_BYTES_MAX = 255;

/**
 * Reads the fields of one record, shallowly: where they are, not what they hold. Fields that are not known are skipped, and of a field
 * that comes twice the last counts, as in protobuf. One per reader, reused.
 */
export class RecordFields {
  bodyStart = 0;
  bodyEnd = 0;
  /** 0: never expires. */
  expirationSeconds = 0;
  headersCount = 0;
  headersBytes = 0;
  /** Every header has a key of 1 to 255 bytes of UTF-8. */
  hasKeys = true;
  /** Every tag and length is short enough for any reader of protobuf: a longer one is stored in batches of earlier versions, and taken no more. */
  isReadable = true;
  /** Where the value of a `traceparent` is, if it is as long as one; -1: there is none. */
  traceAt = -1;
  readonly #varint = new VarintCursor();

  /** False if the bytes are not a record. A negative expiry is read as `expirationSeconds` = -1. */
  read(bytes: Uint8Array, start: number, end: number): boolean {
    this.bodyStart = start;
    this.bodyEnd = start;
    this.expirationSeconds = 0;
    this.headersCount = 0;
    this.headersBytes = 0;
    this.hasKeys = true;
    this.isReadable = true;
    this.traceAt = -1;
    let at = start;
    while (at < end) {
      at = this.#field(bytes, at, end);
      if (at < 0) return false;
    }
    return true;
  }

  #field(bytes: Uint8Array, start: number, end: number): number {
    // Every tag that is known is one byte.
    let tag = bytes[start] as number;
    let at = start + 1;
    if (tag >= 0x80) {
      at = this.#short(bytes, start, end);
      if (at < 0) return -1;
      tag = this.#varint.value;
    }
    if (tag === EXPIRATION_TAG) return this.#expiration(bytes, at, end);
    const next = this.#skip(bytes, at, end, tag);
    if (next < 0) return -1;
    if (tag === BODY_TAG) {
      this.bodyStart = next - this.#varint.value;
      this.bodyEnd = next;
    } else if (tag === HEADERS_TAG) {
      this.headersCount += 1;
      if (!this.#header(bytes, next - this.#varint.value, next)) return -1;
    }
    return next;
  }

  /** Reads a tag or a length. */
  #short(bytes: Uint8Array, start: number, end: number): number {
    const at = this.#varint.read(bytes, start, end);
    // Of five bytes are those that may be too large: the usual one costs one comparison.
    if (at - start >= TAG_BYTES_MAX && (at - start > TAG_BYTES_MAX || this.#varint.value > 0xffff_ffff)) {
      this.isReadable = false;
    }
    return at;
  }

  /** Skips a field's content. For a length-delimited one the cursor's value is its length afterwards. */
  #skip(bytes: Uint8Array, start: number, end: number, tag: number): number {
    if (tag < 8) return -1;
    switch (tag % 8) {
      case WIRE_VARINT:
        return skipVarint(bytes, start, end);
      case WIRE_FIXED64:
        return start + 8 <= end ? start + 8 : -1;
      case WIRE_FIXED32:
        return start + 4 <= end ? start + 4 : -1;
      case WIRE_BYTES: {
        const at = this.#short(bytes, start, end);
        return at < 0 || this.#varint.value > end - at ? -1 : at + this.#varint.value;
      }
      default:
        return -1;
    }
  }

  #expiration(bytes: Uint8Array, start: number, end: number): number {
    const at = skipVarint(bytes, start, end);
    if (at < 0) return -1;
    // A negative int32 is sign-extended to ten bytes, which the cursor refuses as too large.
    const isSmall = this.#varint.read(bytes, start, end) === at && this.#varint.value <= EXPIRATION_SECONDS_MAX;
    this.expirationSeconds = isSmall ? this.#varint.value : -1;
    return at;
  }

  /** Adds up keys and values. */
  #header(bytes: Uint8Array, start: number, end: number): boolean {
    let at = start;
    let keyStart = start;
    let keyEnd = start;
    let valueBytes = 0;
    let valueEnd = start;
    while (at < end) {
      at = this.#short(bytes, at, end);
      if (at < 0) return false;
      const tag = this.#varint.value;
      at = this.#skip(bytes, at, end, tag);
      if (at < 0) return false;
      if (tag !== HEADER_KEY_TAG && tag !== HEADER_VALUE_TAG) continue;
      const length = this.#varint.value;
      this.headersBytes += length;
      if (tag === HEADER_VALUE_TAG) {
        valueBytes = length;
        valueEnd = at;
        continue;
      }
      keyStart = at - length;
      keyEnd = at;
    }
    const length = keyEnd - keyStart;
    if (length === TRACEPARENT_KEY_LENGTH && valueBytes === TRACEPARENT_LENGTH) {
      if (isTraceparentKey(bytes, keyStart, keyEnd)) this.traceAt = valueEnd - valueBytes;
    }
    this.hasKeys &&= length >= 1 && length <= HEADER_KEY_BYTES_MAX && isUtf8(bytes, keyStart, keyEnd);
    return true;
  }
}

function skipVarint(bytes: Uint8Array, start: number, end: number): number {
  const last = Math.min(end, start + 10);
  for (let at = start; at < last; at++) {
    if ((bytes[at] as number) < 0x80) return at + 1;
  }
  return -1;
}

const NO_TRACES: readonly Uint8Array[] = [];
/** Contexts that are taken of one section. */
const TRACES_MAX = 16;

/** Judges a records section that a client made, before it is stored as it is. One per reader, reused. */
export class RecordsScan {
  count = 0;
  /** Largest `expirationSeconds`; 0 if any message never expires. */
  expiresMax = 0;
  hasExpiry = false;
  /** Trace contexts that messages bring are wanted. */
  wantsTraces = false;
  /** The first few of them, if they are wanted; the same array while there are none. */
  traces: readonly Uint8Array[] = NO_TRACES;
  readonly #fields = new RecordFields();
  readonly #varint = new VarintCursor();

  /** Walks bytes[start, end). Returns why it is refused, or null; then the fields above hold. */
  scan(bytes: Uint8Array, start: number, end: number, limits: RecordLimits): Reason | null {
    this.count = 0;
    this.expiresMax = 0;
    this.hasExpiry = false;
    this.traces = NO_TRACES;
    let hasEndless = false;
    let longest = 0;
    let at = start;
    while (at < end) {
      if (bytes[at] !== RECORD_TAG) return 'MALFORMED_MESSAGE';
      const lengthAt = at + 1;
      at = this.#varint.read(bytes, lengthAt, end);
      if (at < 0 || at - lengthAt > TAG_BYTES_MAX || this.#varint.value > end - at) return 'MALFORMED_MESSAGE';
      const next = at + this.#varint.value;
      const fault = this.#judge(bytes, at, next, limits);
      if (fault !== null) return fault;
      if (this.#fields.traceAt >= 0 && this.wantsTraces) this.#takeTrace(bytes, this.#fields.traceAt);
      const seconds = this.#fields.expirationSeconds;
      if (seconds === 0) hasEndless = true;
      else if (seconds > longest) longest = seconds;
      this.count += 1;
      if (this.count > limits.records) return 'BATCH_TOO_LARGE';
      at = next;
    }
    this.hasExpiry = longest > 0;
    this.expiresMax = hasEndless ? 0 : longest;
    return this.count > 0 ? null : 'MALFORMED_MESSAGE';
  }

  #takeTrace(bytes: Uint8Array, at: number): void {
    if (this.traces.length >= TRACES_MAX) return;
    const context = readTraceparent(bytes, at, TRACEPARENT_LENGTH);
    if (context !== null) this.traces = [...this.traces, context];
  }

  #judge(bytes: Uint8Array, start: number, end: number, limits: RecordLimits): Reason | null {
    const fields = this.#fields;
    if (!fields.read(bytes, start, end) || !fields.isReadable) return 'MALFORMED_MESSAGE';
    if (fields.bodyEnd - fields.bodyStart > limits.bodyBytes) return 'BODY_TOO_LARGE';
    if (fields.headersCount > limits.headersCount || fields.headersBytes > limits.headersBytes)
      return 'HEADERS_TOO_LARGE';
    if (!fields.hasKeys) return 'HEADER_INVALID';
    return fields.expirationSeconds < 0 ? 'EXPIRATION_NEGATIVE' : null;
  }
}

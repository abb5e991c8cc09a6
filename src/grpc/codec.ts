import type { Reason } from '../base/errors.ts';
import { isUtf8 } from '../base/utf8.ts';
import { TAG_BYTES_MAX, varintBytes, writeVarint } from '../batch/varint.ts';

/**
 * The hot path's reader and writer of the public service's messages (proto/broker.proto), on raw bytes: offsets instead of objects. A scanner fills a
 * reusable record of numbers and returns null, or the rule that the bytes break. Unknown fields are skipped; of a field that
 * occurs twice the last one counts, as protobuf says; groups (never used in proto3) and anything cut off are malformed.
 */

/** Limits that a scanned publish is held to, in bytes and numbers of headers. */
export interface ScanLimits {
  readonly bodyBytes: number;
  readonly headersBytes: number;
  readonly headersCount: number;
}

/** Wire types (protobuf encoding, "Message Structure"). */
export const WireType = { VARINT: 0, FIXED64: 1, BYTES: 2, FIXED32: 5 } as const;
const { VARINT, FIXED64, BYTES, FIXED32 } = WireType;

const VARINT_BYTES_MAX = 10;
const HEADER_KEY_BYTES_MAX = 255;
export const PRODUCER_BYTES_MAX = 64;
const TWO_32 = 0x1_0000_0000;

/** One field at a time. Varints are kept as two 32-bit halves, because a negative int32 arrives as ten bytes. */
export class FieldReader {
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
  end = 0;
  field = 0;
  wire = 0;
  /** Of a length-delimited field. */
  valueStart = 0;
  valueEnd = 0;
  low = 0;
  high = 0;

  reset(bytes: Uint8Array, start: number, end: number): void {
    this.bytes = bytes;
    this.at = start;
    this.end = end;
  }

  get done(): boolean {
    return this.at >= this.end;
  }

  /** The next field with its value; false if the bytes are malformed. */
  next(): boolean {
    if (!this.#short()) return false;
    this.field = this.low >>> 3;
    this.wire = this.low & 7;
    if (this.field === 0) return false;
    switch (this.wire) {
      case VARINT:
        return this.#varint();
      case BYTES: {
        if (!this.#short() || this.low > this.end - this.at) return false;
        this.valueStart = this.at;
        this.valueEnd = this.at + this.low;
        this.at = this.valueEnd;
        return true;
      }
      case FIXED64:
      case FIXED32:
        this.at += this.wire === FIXED64 ? 8 : 4;
        return this.at <= this.end;
      default:
        return false;
    }
  }

  /** A varint that is exact as a number and not negative; -1 otherwise. */
  get safe(): number {
    return this.high >= 0x20_0000 ? -1 : this.high * TWO_32 + this.low;
  }

  /** As int32: readers take the lower 32 bits (protobuf encoding, "Updating a message type"). */
  get int32(): number {
    return this.low | 0;
  }

  /** A tag or a length: what is longer, some reader of what goes out again would refuse. */
  #short(): boolean {
    const start = this.at;
    return this.#varint() && this.high === 0 && this.at - start <= TAG_BYTES_MAX;
  }

  #varint(): boolean {
    let low = 0;
    let high = 0;
    for (let i = 0; i < VARINT_BYTES_MAX; i++) {
      if (this.at >= this.end) return false;
      const byte = this.bytes[this.at++] as number;
      const bits = byte & 0x7f;
      if (i < 4) low |= bits << (i * 7);
      else if (i === 4) {
        low |= bits << 28;
        high = bits >>> 4;
      } else if (i < 9) high |= bits << (i * 7 - 32);
      else if (bits > 1) return false;
      else high |= bits << 31;
      if (byte < 0x80) {
        this.low = low >>> 0;
        this.high = high >>> 0;
        return true;
      }
    }
    return false;
  }
}

/** Where the subject of a request is, and its producer if it is a publish: what the main thread needs to find the shard. */
export class SubjectRange {
  start = 0;
  end = 0;
  producerStart = 0;
  producerEnd = 0;
  readonly reader = new FieldReader();
}

/** Fields 1 and 5 of any request; the rest is walked, not read, so that the last occurrence is found. */
export function scanSubject(bytes: Uint8Array, start: number, end: number, out: SubjectRange): Reason | null {
  const { reader } = out;
  reader.reset(bytes, start, end);
  out.start = start;
  out.end = start;
  out.producerStart = start;
  out.producerEnd = start;
  while (!reader.done) {
    if (!reader.next()) return 'MALFORMED_MESSAGE';
    if (reader.field === 1) {
      if (reader.wire !== BYTES) return 'MALFORMED_MESSAGE';
      out.start = reader.valueStart;
      out.end = reader.valueEnd;
    } else if (reader.field === 5 && reader.wire === BYTES) {
      out.producerStart = reader.valueStart;
      out.producerEnd = reader.valueEnd;
    }
  }
  return null;
}

/** A PublishRequest as offsets into the scanned bytes. */
export class PublishScan {
  subjectStart = 0;
  subjectEnd = 0;
  bodyStart = 0;
  bodyEnd = 0;
  expirationSeconds = 0;
  /** Pairs of start and end of the contents of the Header messages. */
  headers = new Uint32Array(32);
  headerCount = 0;
  producerStart = 0;
  producerEnd = 0;
  /** 0: the message names no producer. */
  sequence = 0;
  readonly reader = new FieldReader();
  readonly headerReader = new FieldReader();
}

export function scanPublish(
  bytes: Uint8Array,
  start: number,
  end: number,
  out: PublishScan,
  limits: ScanLimits,
): Reason | null {
  const { reader } = out;
  out.subjectStart = out.subjectEnd = out.bodyStart = out.bodyEnd = out.producerStart = out.producerEnd = start;
  out.expirationSeconds = out.headerCount = out.sequence = 0;
  let headersBytes = 0;
  reader.reset(bytes, start, end);
  while (!reader.done) {
    if (!reader.next()) return 'MALFORMED_MESSAGE';
    const { field, wire } = reader;
    if (field > 6) continue;
    if (wire !== (field === 3 || field === 6 ? VARINT : BYTES)) return 'MALFORMED_MESSAGE';
    switch (field) {
      case 1:
        out.subjectStart = reader.valueStart;
        out.subjectEnd = reader.valueEnd;
        break;
      case 2:
        out.bodyStart = reader.valueStart;
        out.bodyEnd = reader.valueEnd;
        break;
      case 3:
        out.expirationSeconds = reader.int32;
        break;
      case 4: {
        headersBytes += reader.valueEnd - reader.valueStart;
        if (out.headerCount >= limits.headersCount || headersBytes > limits.headersBytes) return 'HEADERS_TOO_LARGE';
        const fault = scanHeader(bytes, reader.valueStart, reader.valueEnd, out.headerReader);
        if (fault !== null) return fault;
        addHeader(out, reader.valueStart, reader.valueEnd);
        break;
      }
      case 5:
        out.producerStart = reader.valueStart;
        out.producerEnd = reader.valueEnd;
        break;
      default:
        out.sequence = reader.safe;
    }
  }
  if (out.bodyEnd - out.bodyStart > limits.bodyBytes) return 'BODY_TOO_LARGE';
  if (out.expirationSeconds < 0) return 'EXPIRATION_NEGATIVE';
  return producerFault(bytes, out);
}

/** Both fields or neither: a sequence without a producer would silently not be idempotent. */
function producerFault(bytes: Uint8Array, scan: PublishScan): Reason | null {
  const length = scan.producerEnd - scan.producerStart;
  if (length === 0 && scan.sequence === 0) return null;
  if (length < 1 || length > PRODUCER_BYTES_MAX || scan.sequence < 1) return 'PRODUCER_INVALID';
  return isUtf8(bytes, scan.producerStart, scan.producerEnd) ? null : 'PRODUCER_INVALID';
}

function scanHeader(bytes: Uint8Array, start: number, end: number, reader: FieldReader): Reason | null {
  let keyStart = start;
  let keyEnd = start;
  reader.reset(bytes, start, end);
  while (!reader.done) {
    if (!reader.next()) return 'MALFORMED_MESSAGE';
    if (reader.field > 2) continue;
    if (reader.wire !== BYTES) return 'MALFORMED_MESSAGE';
    if (reader.field === 2) continue;
    keyStart = reader.valueStart;
    keyEnd = reader.valueEnd;
  }
  const length = keyEnd - keyStart;
  return length >= 1 && length <= HEADER_KEY_BYTES_MAX && isUtf8(bytes, keyStart, keyEnd) ? null : 'HEADER_INVALID';
}

function addHeader(scan: PublishScan, start: number, end: number): void {
  const at = scan.headerCount * 2;
  if (at === scan.headers.length) {
    const grown = new Uint32Array(at * 2);
    grown.set(scan.headers);
    scan.headers = grown;
  }
  scan.headers[at] = start;
  scan.headers[at + 1] = end;
  scan.headerCount += 1;
}

/** A FetchRequest. */
export class FetchScan {
  id = 0;
  readonly reader = new FieldReader();
}

export function scanFetch(bytes: Uint8Array, start: number, end: number, out: FetchScan): Reason | null {
  const { reader } = out;
  out.id = 0;
  reader.reset(bytes, start, end);
  while (!reader.done) {
    if (!reader.next()) return 'MALFORMED_MESSAGE';
    if (reader.field !== 2) continue;
    if (reader.wire !== VARINT) return 'MALFORMED_MESSAGE';
    out.id = reader.safe;
  }
  return out.id >= 1 ? null : 'ID_INVALID';
}

/** Start positions of a subscription, as numbers. */
export const Start = { NEW: 0, EARLIEST: 1, ID: 2, TIME: 3 } as const;

/** A SubscribeRequest: of the oneof the last one counts; none is NEW. */
export class SubscribeScan {
  start: number = Start.NEW;
  /** An id, or ms since 1970. */
  value = 0;
  readonly reader = new FieldReader();
}

export function scanSubscribe(bytes: Uint8Array, start: number, end: number, out: SubscribeScan): Reason | null {
  const { reader } = out;
  out.start = Start.NEW;
  out.value = 0;
  reader.reset(bytes, start, end);
  while (!reader.done) {
    if (!reader.next()) return 'MALFORMED_MESSAGE';
    const { field } = reader;
    if (field < 2 || field > 5) continue;
    if (reader.wire !== VARINT) return 'MALFORMED_MESSAGE';
    out.start = field - 2;
    out.value = reader.safe;
  }
  switch (out.start) {
    case Start.ID:
      return out.value >= 1 ? null : 'ID_INVALID';
    case Start.TIME:
      return out.value >= 0 ? null : 'START_INVALID';
    case Start.EARLIEST:
      return out.value === 1 ? null : 'START_INVALID';
    default:
      // `new: false` says nothing, and neither does an absent start: both mean new.
      return out.value === 0 || out.value === 1 ? null : 'START_INVALID';
  }
}

/** PublishResponse and IncIdxResponse: field 1, varint. */
export function encodeId(id: number): Buffer {
  const bytes = Buffer.allocUnsafe(1 + varintBytes(id));
  bytes[0] = 0x08;
  writeVarint(bytes, 1, id);
  return bytes;
}

/** Reads what `encodeId` wrote. */
export function decodeId(bytes: Uint8Array): number {
  const reader = new FieldReader();
  reader.reset(bytes, 0, bytes.length);
  return !reader.done && reader.next() ? reader.safe : 0;
}

export function encodeBroadcastResponse(ack: boolean): Buffer {
  return ack ? Buffer.from([0x08, 1]) : Buffer.alloc(0);
}

/** The MessageResponse of a broadcast: body, subject and headers; it has no id and no time. */
export function encodeBroadcastMessage(request: Uint8Array, scan: PublishScan): Buffer {
  const parts: Uint8Array[] = [];
  const field = (tag: number, start: number, end: number): void => {
    const head = Buffer.alloc(1 + varintBytes(end - start));
    head[0] = tag;
    writeVarint(head, 1, end - start);
    parts.push(head, request.subarray(start, end));
  };
  if (scan.bodyEnd > scan.bodyStart) field(0x0a, scan.bodyStart, scan.bodyEnd);
  field(0x1a, scan.subjectStart, scan.subjectEnd);
  for (let i = 0; i < scan.headerCount * 2; i += 2)
    field(0x2a, scan.headers[i] as number, scan.headers[i + 1] as number);
  return Buffer.concat(parts);
}

import { assert } from '../base/assert.ts';
import { writeSafeUint } from '../base/bytes.ts';
import { crc32, joinCrc32 } from '../base/checksum.ts';
import { SUBJECT_BYTES_MAX } from '../base/subject.ts';
import {
  aligned,
  BATCH_ALIGNMENT,
  BATCH_BYTES_MAX,
  BATCH_HEADER_BYTES,
  BATCH_MAGIC,
  BATCH_VERSION,
  BatchKind,
  BatchOffset,
  BODY_TAG,
  EXPIRATION_SECONDS_MAX,
  EXPIRATION_TAG,
  FLAG_EXPIRY,
  HEADERS_TAG,
  RECORD_TAG,
} from './batch-format.ts';
import { copyBytes } from './copy-bytes.ts';
import { RecordFields, type RecordsScan } from './records-scan.ts';
import { VarintCursor, varintBytes, writeVarint } from './varint.ts';

const START_BYTES = 4 * 1024;
/** A pooled builder that one huge batch has grown gives its memory back. */
const KEPT_BYTES_MAX = 256 * 1024;
/** From this size on it takes less to join the checksum of a section than to read the section again. */
const JOINED_BYTES_MIN = 1024;

/**
 * Gathers the records of one batch in memory that is reused. Order of use: `reset`, `appendRecord`…, `seal`, `stampBatch` on what seal
 * returned, and `reset` again when nobody reads those bytes any more.
 */
export class BatchBuilder {
  #bytes = Buffer.allocUnsafeSlow(START_BYTES);
  #view = new DataView(this.#bytes.buffer);
  #recordsStart = BATCH_HEADER_BYTES;
  #end = BATCH_HEADER_BYTES;
  #lastRecordStart = BATCH_HEADER_BYTES;
  #count = 0;
  /** Checksum of the records up to `#summedEnd`; what comes behind is not read for it yet. */
  #sum = 0;
  #summedEnd = BATCH_HEADER_BYTES;
  /** Largest expirationSeconds seen. */
  #longest = 0;
  #hasEndless = false;

  /** Starts a batch of the subject in subject[start, end), whose subjectHash is `hash`. */
  reset(subject: Uint8Array, start: number, end: number, hash: number): void {
    const length = end - start;
    assert(length >= 1 && length <= SUBJECT_BYTES_MAX, 'a subject has 1 to 255 bytes');
    if (this.#bytes.length > KEPT_BYTES_MAX) this.#allocate(START_BYTES);
    writeFrame(this.#bytes, this.#view, subject, start, end, hash);
    this.#recordsStart = BATCH_HEADER_BYTES + length;
    this.#clear();
  }

  #clear(): void {
    this.#end = this.#recordsStart;
    this.#lastRecordStart = this.#recordsStart;
    this.#count = 0;
    this.#sum = 0;
    this.#summedEnd = this.#recordsStart;
    this.#longest = 0;
    this.#hasEndless = false;
  }

  get count(): number {
    return this.#count;
  }

  /** Bytes that `seal` will return, before padding. */
  get byteLength(): number {
    return this.#end;
  }

  /** Largest `expirationSeconds` of the batch in seconds; 0 if any of its messages never expires. */
  get expiresMax(): number {
    return this.#hasEndless ? 0 : this.#longest;
  }

  /** Some message expires. */
  get hasExpiry(): boolean {
    return this.#longest > 0;
  }

  /**
   * Appends a message. Its body is source[bodyStart, bodyEnd); `headers` holds `headerCount` pairs of start and end, in `source`, of the
   * contents of its Header messages; `expirationSeconds` is 0 to 2^31-1. Everything was validated before.
   */
  appendRecord(
    source: Uint8Array,
    bodyStart: number,
    bodyEnd: number,
    headers: ArrayLike<number>,
    headerCount: number,
    expirationSeconds: number,
  ): void {
    assert(bodyEnd >= bodyStart, 'a body ends before it starts');
    assert(expirationSeconds >= 0 && expirationSeconds <= EXPIRATION_SECONDS_MAX, 'an expiry is out of range');
    const length = recordBytes(bodyEnd - bodyStart, headers, headerCount, expirationSeconds);
    const frame = 1 + varintBytes(length) + length;
    this.#reserve(this.#end + frame);
    const bytes = this.#bytes;
    bytes[this.#end] = RECORD_TAG;
    let at = writeVarint(bytes, this.#end + 1, length);
    this.#lastRecordStart = at;
    if (bodyEnd > bodyStart) at = writeField(bytes, at, BODY_TAG, source, bodyStart, bodyEnd);
    for (let i = 0; i < headerCount * 2; i += 2) {
      at = writeField(bytes, at, HEADERS_TAG, source, headers[i] as number, headers[i + 1] as number);
    }
    if (expirationSeconds > 0) {
      bytes[at] = EXPIRATION_TAG;
      at = writeVarint(bytes, at + 1, expirationSeconds);
    }
    assert(at === this.#end + frame, 'a record has another length than was computed');
    this.#end = at;
    this.#count += 1;
    this.#noteExpiry(expirationSeconds);
  }

  /**
   * Appends a records section that a client made and `scan` has found good, as it is. `checksum`: its CRC-32, or null if nobody has worked it out:
   * with it a large section is not read a second time.
   */
  appendSection(source: Uint8Array, start: number, end: number, scan: RecordsScan, checksum: number | null): void {
    assert(scan.count > 0 && end > start, 'a records section is empty');
    this.#reserve(this.#end + (end - start));
    if (checksum !== null && end - start >= JOINED_BYTES_MIN) {
      this.#sum = joinCrc32(this.#sumOfRecords(), checksum, end - start);
      this.#summedEnd = this.#end + (end - start);
    }
    copyBytes(source, start, end, this.#bytes, this.#end);
    this.#end += end - start;
    this.#lastRecordStart = this.#end;
    this.#count += scan.count;
    // Both hold of a section at once when some of its messages expire and others never do.
    if (scan.expiresMax === 0) this.#hasEndless = true;
    if (scan.hasExpiry) this.#longest = Math.max(this.#longest, scan.expiresMax, 1);
  }

  /** The record appended last, without its frame: a view, valid until the next change. */
  lastRecord(): Buffer {
    return this.#bytes.subarray(this.#lastRecordStart, this.#end);
  }

  /** Takes out the records that `keep` refuses (rare: every record is walked). A sealed batch has to be sealed again. */
  keepOnly(keep: (index: number) => boolean): void {
    const bytes = this.#bytes;
    const end = this.#end;
    const count = this.#count;
    const varint = new VarintCursor();
    const fields = new RecordFields();
    this.#clear();
    let at = this.#recordsStart;
    for (let index = 0; index < count; index++) {
      const start = varint.read(bytes, at + 1, end);
      const next = start + varint.value;
      assert(start > 0 && next <= end, 'a record that was appended cannot be read');
      if (keep(index)) {
        assert(fields.read(bytes, start, next), 'a record that was appended cannot be read');
        this.#noteExpiry(fields.expirationSeconds);
        bytes.copyWithin(this.#end, at, next);
        this.#lastRecordStart = this.#end + (start - at);
        this.#end += next - at;
        this.#count += 1;
      }
      at = next;
    }
    assert(at === end, 'the records do not fill their section');
  }

  /** Finishes everything but base, time and header CRC (`stampBatch`). The bytes are the builder's own, valid until the next change. */
  seal(): Buffer {
    assert(this.#count > 0, 'a batch has at least one message');
    const total = aligned(this.#end);
    assert(total <= BATCH_BYTES_MAX, () => `a batch of ${total} bytes`);
    this.#bytes.fill(0, this.#end, total);
    const view = this.#view;
    view.setUint8(BatchOffset.KIND, BatchKind.DATA);
    view.setUint16(BatchOffset.FLAGS, this.hasExpiry ? FLAG_EXPIRY : 0, true);
    view.setUint32(BatchOffset.BODY_CRC, this.#sumOfRecords(), true);
    view.setUint32(BatchOffset.TOTAL_LENGTH, total, true);
    view.setUint32(BatchOffset.RECORDS_LENGTH, this.#end - this.#recordsStart, true);
    view.setUint32(BatchOffset.COUNT, this.#count, true);
    view.setUint32(BatchOffset.EXPIRES_MAX, this.expiresMax, true);
    return this.#bytes.subarray(0, total);
  }

  #sumOfRecords(): number {
    if (this.#summedEnd < this.#end) {
      this.#sum = crc32(this.#bytes.subarray(this.#summedEnd, this.#end), this.#sum);
      this.#summedEnd = this.#end;
    }
    return this.#sum;
  }

  #noteExpiry(seconds: number): void {
    if (seconds === 0) this.#hasEndless = true;
    else if (seconds > this.#longest) this.#longest = seconds;
  }

  /** Room up to `end`, and for the padding behind it. */
  #reserve(end: number): void {
    const needed = end + BATCH_ALIGNMENT;
    if (needed <= this.#bytes.length) return;
    assert(needed <= BATCH_BYTES_MAX, () => `a batch of ${needed} bytes`);
    const old = this.#bytes;
    this.#allocate(Math.max(needed, old.length * 2));
    copyBytes(old, 0, this.#end, this.#bytes, 0);
  }

  #allocate(length: number): void {
    this.#bytes = Buffer.allocUnsafeSlow(length);
    this.#view = new DataView(this.#bytes.buffer);
  }
}

/** Writes base (1 to 2^53-1), time (epoch ms) and header CRC into a sealed batch: it is complete afterwards. */
export function stampBatch(bytes: Uint8Array, base: number, publishedAt: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = view.getUint32(BatchOffset.COUNT, true);
  // Not `base + count - 1`, which is rounded near the end.
  assert(base >= 1 && base <= Number.MAX_SAFE_INTEGER - (count - 1), 'ids run from 1 to 2^53-1');
  writeSafeUint(view, BatchOffset.BASE, base);
  writeSafeUint(view, BatchOffset.PUBLISHED_AT, publishedAt);
  const prefix = BATCH_HEADER_BYTES + view.getUint8(BatchOffset.SUBJECT_LENGTH);
  view.setUint32(BatchOffset.HEADER_CRC, crc32(bytes.subarray(BatchOffset.VERSION, prefix)), true);
}

/** A void mark: says that ids [base, base + count) will never have a message. Complete and stamped. */
export function sealVoidMark(
  subject: Uint8Array,
  hash: number,
  base: number,
  count: number,
  publishedAt: number,
): Buffer {
  assert(subject.length >= 1 && subject.length <= SUBJECT_BYTES_MAX, 'a subject has 1 to 255 bytes');
  assert(count >= 1 && count <= 0xffff_ffff, 'a void mark covers 1 to 2^32-1 ids');
  const bytes = Buffer.alloc(aligned(BATCH_HEADER_BYTES + subject.length));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  writeFrame(bytes, view, subject, 0, subject.length, hash);
  view.setUint8(BatchOffset.KIND, BatchKind.VOID);
  view.setUint32(BatchOffset.TOTAL_LENGTH, bytes.length, true);
  view.setUint32(BatchOffset.COUNT, count, true);
  stampBatch(bytes, base, publishedAt);
  return bytes;
}

/** Magic, version and subject; everything else zero. */
function writeFrame(
  bytes: Uint8Array,
  view: DataView,
  subject: Uint8Array,
  start: number,
  end: number,
  hash: number,
): void {
  bytes.fill(0, 0, BATCH_HEADER_BYTES);
  view.setUint32(BatchOffset.MAGIC, BATCH_MAGIC, true);
  view.setUint8(BatchOffset.VERSION, BATCH_VERSION);
  view.setUint32(BatchOffset.HASH, hash, true);
  view.setUint8(BatchOffset.SUBJECT_LENGTH, end - start);
  copyBytes(subject, start, end, bytes, BATCH_HEADER_BYTES);
}

function recordBytes(body: number, headers: ArrayLike<number>, headerCount: number, expirationSeconds: number): number {
  let length = body > 0 ? fieldBytes(body) : 0;
  for (let i = 0; i < headerCount * 2; i += 2)
    length += fieldBytes((headers[i + 1] as number) - (headers[i] as number));
  return expirationSeconds > 0 ? length + 1 + varintBytes(expirationSeconds) : length;
}

function fieldBytes(content: number): number {
  return 1 + varintBytes(content) + content;
}

function writeField(
  target: Uint8Array,
  offset: number,
  tag: number,
  source: Uint8Array,
  start: number,
  end: number,
): number {
  target[offset] = tag;
  const at = writeVarint(target, offset + 1, end - start);
  copyBytes(source, start, end, target, at);
  return at + (end - start);
}

import { assert } from '../base/assert.ts';
import { tryReadSafeUint } from '../base/bytes.ts';
import { crc32 } from '../base/checksum.ts';
import {
  aligned,
  BATCH_BYTES_MAX,
  BATCH_HEADER_BYTES,
  BATCH_MAGIC,
  BATCH_VERSION,
  type BatchFault,
  BatchKind,
  BatchOffset,
  FLAG_EXPIRY,
  FLAGS_KNOWN,
  RECORD_TAG,
} from './batch-format.ts';
import { RecordFields } from './records-scan.ts';
import { VarintCursor } from './varint.ts';

const NO_BYTES = new Uint8Array(0);
const NO_VIEW = new DataView(NO_BYTES.buffer);

/**
 * Reads a batch in place. `wrap` judges the header, `verifyBody` the records; both name what is wrong and never throw, whatever the bytes
 * are. After both have passed, the cursor (`seek`, `next`) walks the records. One view is reused for many batches.
 */
export class BatchView {
  bytes: Uint8Array = NO_BYTES;
  /** Where the batch starts in `bytes`. */
  start = 0;
  kind: number = BatchKind.DATA;
  hasExpiry = false;
  /** Id of the first record, 1 to 2^53-1. */
  base = 0;
  /** Number of ids, at least 1. */
  count = 0;
  /** Epoch ms. */
  publishedAt = 0;
  /** Largest `expirationSeconds`; 0 if a message never expires. */
  expiresMax = 0;
  hash = 0;
  headerCrc = 0;
  bodyCrc = 0;
  /** Bytes of the whole batch, a multiple of 8. */
  totalLength = 0;
  subjectStart = 0;
  subjectEnd = 0;
  recordsStart = 0;
  recordsEnd = 0;
  /** Id of the record that `next` read. */
  id = 0;
  /** The record's bytes, without its frame: [recordStart, recordEnd) of `bytes`. */
  recordStart = 0;
  recordEnd = 0;
  /** Offset of the next record's frame. */
  #at = 0;
  #fieldsRead = false;
  #data: DataView = NO_VIEW;
  readonly #varint = new VarintCursor();
  readonly #fields = new RecordFields();

  /** Takes the batch at `offset`: null, or why its header is not good (then nothing else here may be used). */
  wrap(bytes: Uint8Array, offset: number): BatchFault | null {
    const fault = this.wrapPrefix(bytes, offset);
    if (fault !== null) return fault;
    return offset + this.totalLength <= bytes.length ? null : 'cut';
  }

  /** The same, but only the header and the subject have to be there: the records must not be touched. */
  wrapPrefix(bytes: Uint8Array, offset: number): BatchFault | null {
    const fault = this.#readHeader(bytes, offset);
    if (fault !== null) return fault;
    return this.#headerChecksum() === this.headerCrc ? null : 'header-checksum';
  }

  /** True if the records are what the writer wrote, and nothing but zeros follows them. Reads every byte of the batch. */
  verifyBody(): boolean {
    if (crc32(this.bytes.subarray(this.recordsStart, this.recordsEnd)) !== this.bodyCrc) return false;
    return this.paddingIsZero();
  }

  paddingIsZero(): boolean {
    const end = this.start + this.totalLength;
    for (let at = this.recordsEnd; at < end; at++) {
      if (this.bytes[at] !== 0) return false;
    }
    return true;
  }

  /**
   * True if the records section is `count` well-formed records. What our own writers made and `verifyBody` passed always is; a section
   * of another's making is judged by `RecordsScan` before it is stored.
   */
  verifyRecords(): boolean {
    let at = this.recordsStart;
    let count = 0;
    while (at < this.recordsEnd) {
      at = this.#frame(at);
      if (at < 0 || !this.#fields.read(this.bytes, this.recordStart, this.recordEnd)) return false;
      count += 1;
    }
    this.#rewind();
    return count === (this.kind === BatchKind.DATA ? this.count : 0);
  }

  subject(): Uint8Array {
    return this.bytes.subarray(this.subjectStart, this.subjectEnd);
  }

  subjectIs(name: Uint8Array): boolean {
    if (name.length !== this.subjectEnd - this.subjectStart) return false;
    for (let i = 0; i < name.length; i++) {
      if (this.bytes[this.subjectStart + i] !== name[i]) return false;
    }
    return true;
  }

  /** Puts the cursor before the record of `id` (base to base + count), so that `next` reads it. False if the records end before. */
  seek(id: number): boolean {
    assert(id >= this.base && id <= this.base + this.count, 'an id is not in this batch');
    if (id <= this.id) this.#rewind();
    while (this.id + 1 < id) {
      if (!this.next()) return false;
    }
    return true;
  }

  /** Offset in `bytes` of the frame of the record that `next` will read. */
  get nextFrame(): number {
    return this.#at;
  }

  /** Reads the next record; false at the end of the batch (or where its bytes are no record). */
  next(): boolean {
    if (this.#at >= this.recordsEnd) return false;
    const at = this.#frame(this.#at);
    if (at < 0) return false;
    this.#at = at;
    this.id += 1;
    this.#fieldsRead = false;
    return true;
  }

  /** Where the record of `id` is: then `recordStart` and the others are set. False if it is not in the batch. */
  recordAt(id: number): boolean {
    if (id < this.base || id >= this.base + this.count) return false;
    return this.seek(id) && this.next();
  }

  /** Seconds after `publishedAt` at which this record expires; 0: never. */
  get expirationSeconds(): number {
    if (!this.hasExpiry) return 0;
    this.#readFields();
    return this.#fields.expirationSeconds;
  }

  /** Epoch ms from which on this record must not be delivered; Infinity: never expires. */
  get expiresAt(): number {
    const seconds = this.expirationSeconds;
    return seconds === 0 ? Number.POSITIVE_INFINITY : this.publishedAt + seconds * 1000;
  }

  get bodyStart(): number {
    this.#readFields();
    return this.#fields.bodyStart;
  }

  get bodyEnd(): number {
    this.#readFields();
    return this.#fields.bodyEnd;
  }

  #readFields(): void {
    if (this.#fieldsRead) return;
    assert(this.#fields.read(this.bytes, this.recordStart, this.recordEnd), 'a stored record is malformed');
    this.#fieldsRead = true;
  }

  #rewind(): void {
    this.#at = this.recordsStart;
    this.id = this.base - 1;
    this.#fieldsRead = false;
  }

  /** Reads the frame at `at` into recordStart and recordEnd; returns where the next one is, or -1. */
  #frame(at: number): number {
    if (this.bytes[at] !== RECORD_TAG) return -1;
    const start = this.#varint.read(this.bytes, at + 1, this.recordsEnd);
    if (start < 0 || this.#varint.value > this.recordsEnd - start) return -1;
    this.recordStart = start;
    this.recordEnd = start + this.#varint.value;
    return this.recordEnd;
  }

  #readHeader(bytes: Uint8Array, offset: number): BatchFault | null {
    if (offset < 0 || offset + BATCH_HEADER_BYTES > bytes.length) return 'cut';
    if (this.bytes.buffer !== bytes.buffer || this.#data === NO_VIEW) this.#data = new DataView(bytes.buffer);
    this.bytes = bytes;
    this.start = offset;
    const data = this.#data;
    const at = bytes.byteOffset + offset;
    if (data.getUint32(at + BatchOffset.MAGIC, true) !== BATCH_MAGIC) return 'magic';
    if (data.getUint8(at + BatchOffset.VERSION) !== BATCH_VERSION) return 'version';
    this.kind = data.getUint8(at + BatchOffset.KIND);
    if (this.kind !== BatchKind.DATA && this.kind !== BatchKind.VOID) return 'kind';
    const flags = data.getUint16(at + BatchOffset.FLAGS, true);
    if ((flags & ~FLAGS_KNOWN) !== 0) return 'flags';
    this.hasExpiry = (flags & FLAG_EXPIRY) !== 0;
    this.headerCrc = data.getUint32(at + BatchOffset.HEADER_CRC, true);
    this.bodyCrc = data.getUint32(at + BatchOffset.BODY_CRC, true);
    this.base = tryReadSafeUint(data, at + BatchOffset.BASE);
    this.publishedAt = tryReadSafeUint(data, at + BatchOffset.PUBLISHED_AT);
    this.count = data.getUint32(at + BatchOffset.COUNT, true);
    this.expiresMax = data.getUint32(at + BatchOffset.EXPIRES_MAX, true);
    this.hash = data.getUint32(at + BatchOffset.HASH, true);
    return this.#readLengths(data, at);
  }

  #readLengths(data: DataView, at: number): BatchFault | null {
    const { bytes, start } = this;
    const nameLength = data.getUint8(at + BatchOffset.SUBJECT_LENGTH);
    const recordsLength = data.getUint32(at + BatchOffset.RECORDS_LENGTH, true);
    const total = data.getUint32(at + BatchOffset.TOTAL_LENGTH, true);
    const needed = BATCH_HEADER_BYTES + nameLength + recordsLength;
    if (nameLength === 0 || total > BATCH_BYTES_MAX || total !== aligned(needed)) return 'lengths';
    if ((this.kind === BatchKind.VOID) !== (recordsLength === 0)) return 'lengths';
    if (data.getUint16(at + BatchOffset.ZERO, true) !== 0 || data.getUint8(at + BatchOffset.ZERO + 2) !== 0)
      return 'padding';
    if (start + BATCH_HEADER_BYTES + nameLength > bytes.length) return 'cut';
    if (this.base < 1 || this.publishedAt < 0 || this.count === 0) return 'ids';
    if (this.base > Number.MAX_SAFE_INTEGER - (this.count - 1)) return 'ids';
    this.totalLength = total;
    this.subjectStart = start + BATCH_HEADER_BYTES;
    this.subjectEnd = this.subjectStart + nameLength;
    this.recordsStart = this.subjectEnd;
    this.recordsEnd = this.recordsStart + recordsLength;
    this.#rewind();
    return null;
  }

  #headerChecksum(): number {
    return crc32(this.bytes.subarray(this.start + BatchOffset.VERSION, this.recordsStart));
  }
}

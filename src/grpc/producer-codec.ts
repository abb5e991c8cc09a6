import { BrokerError, REASONS, type Reason, type ReasonRow } from '../base/errors.ts';
import { SPACE_END } from '../base/subject-space.ts';
import { isUtf8 } from '../base/utf8.ts';
import { RECORD_TAG } from '../batch/batch-format.ts';
import { VarintCursor, varintBytes, writeVarint } from '../batch/varint.ts';
import { FieldReader, PRODUCER_BYTES_MAX, WireType } from './codec.ts';
import { FRAME_HEADER_BYTES } from './frame.ts';
import { BatchError, Outcome } from './gen/broker/v1/producer.ts';
import { statusCodeOf } from './status.ts';

/**
 * Reader and writer of the frames of broker.v1.Producer/PublishStream (proto/broker/v1/producer.proto) on raw bytes. A frame is walked batch by
 * batch; of a batch only its head and the lengths of its records are looked at.
 */

/** ProducerOpen. */
export interface ProducerOpen {
  /** Copied; empty = nobody remembers the sequences. */
  readonly producer: Buffer;
  /** From 1. */
  readonly firstSequence: number;
}

const OPEN_FIELD = 1;
const BATCHES_FIELD = 2;

/** What the next field of a frame is. */
export const FramePart = { END: 0, OPEN: 1, BATCH: 2, MALFORMED: 3 } as const;

/** A frame of the client: call `next` until it says END or MALFORMED. One per stream owner, reused. */
export class FrameScan {
  /** Of the batch: offsets in the frame. */
  subjectStart = 0;
  subjectEnd = 0;
  /** -1: not a number from 1 to 2^53-1. */
  sequence = 0;
  sectionStart = 0;
  sectionEnd = 0;
  /** -1: any. */
  expectedHead = -1;
  /** Messages, by their frames; only when `fault` is null. */
  count = 0;
  /** Why the batch by itself cannot be stored, or null. */
  fault: Reason | null = null;
  readonly #frame = new FieldReader();
  readonly #batch = new FieldReader();
  readonly #varint = new VarintCursor();

  /** Starts at `offset` of the frame. */
  reset(frame: Uint8Array, offset: number): void {
    this.#frame.reset(frame, offset, frame.length);
  }

  /** Where the part behind the one that `next` told of begins. */
  get offset(): number {
    return this.#frame.at;
  }

  next(): number {
    const frame = this.#frame;
    while (!frame.done) {
      if (!frame.next()) return FramePart.MALFORMED;
      if (frame.field > BATCHES_FIELD) continue;
      if (frame.wire !== WireType.BYTES) return FramePart.MALFORMED;
      if (frame.field === OPEN_FIELD) return FramePart.OPEN;
      return this.#readBatch(frame.valueStart, frame.valueEnd) ? FramePart.BATCH : FramePart.MALFORMED;
    }
    return FramePart.END;
  }

  /** The open that `next` told of; null if it is malformed, or its reason. */
  open(): ProducerOpen | Reason {
    const frame = this.#frame;
    const reader = this.#batch;
    const { bytes } = frame;
    let producer = Buffer.alloc(0);
    let firstSequence = 0;
    reader.reset(bytes, frame.valueStart, frame.valueEnd);
    while (!reader.done) {
      if (!reader.next()) return 'MALFORMED_MESSAGE';
      if (reader.field > 2) continue;
      if (reader.wire !== (reader.field === 1 ? WireType.BYTES : WireType.VARINT)) return 'MALFORMED_MESSAGE';
      if (reader.field === 1) producer = Buffer.from(bytes.subarray(reader.valueStart, reader.valueEnd));
      else firstSequence = reader.safe;
    }
    const isName = producer.length <= PRODUCER_BYTES_MAX && isUtf8(producer, 0, producer.length);
    // Producers of tenants would be within reach.
    if (!isName || producer.includes(SPACE_END) || firstSequence < 0) return 'PRODUCER_INVALID';
    return { producer, firstSequence: Math.max(1, firstSequence) };
  }

  #readBatch(start: number, end: number): boolean {
    const reader = this.#batch;
    reader.reset(this.#frame.bytes, start, end);
    this.subjectStart = this.subjectEnd = this.sectionStart = this.sectionEnd = start;
    this.sequence = 0;
    this.expectedHead = -1;
    this.fault = null;
    let hasExpected = false;
    while (!reader.done) {
      if (!reader.next()) return false;
      const { field } = reader;
      if (field > 4) continue;
      if (reader.wire !== (field === 1 || field === 3 ? WireType.BYTES : WireType.VARINT)) return false;
      switch (field) {
        case 1:
          this.subjectStart = reader.valueStart;
          this.subjectEnd = reader.valueEnd;
          break;
        case 2:
          this.sequence = reader.safe === 0 ? -1 : reader.safe;
          break;
        case 3:
          this.sectionStart = reader.valueStart;
          this.sectionEnd = reader.valueEnd;
          break;
        default:
          hasExpected = true;
          this.expectedHead = reader.safe;
      }
    }
    if (this.sequence === 0) this.sequence = -1;
    if (hasExpected && this.expectedHead < 0) this.fault = 'ID_INVALID';
    this.#count();
    return true;
  }

  /** Records are counted, not judged: that is for the shard. */
  #count(): void {
    const { bytes } = this.#frame;
    const end = this.sectionEnd;
    let at = this.sectionStart;
    let count = 0;
    while (at < end) {
      if (bytes[at] !== RECORD_TAG) break;
      at = this.#varint.read(bytes, at + 1, end);
      if (at < 0 || this.#varint.value > end - at) break;
      at += this.#varint.value;
      count += 1;
    }
    this.count = count;
    if (at !== end || count === 0) this.fault ??= 'MALFORMED_MESSAGE';
  }
}

/** Longest of what is written once for a response: acknowledged 10, window 2 + 2 * 10. */
const RESPONSE_HEAD_MAX = 32;
/** A result without an error: tag and length 2, three fields of up to 9 bytes. */
const RESULT_BYTES_MAX = 32;
const START_BYTES = 1024;

const ACKNOWLEDGED_TAG = 0x10;
const RESULT_TAG = 0x1a;
const WINDOW_TAG = 0x22;

/** Builds the PublishStreamResponses of one stream, framed for gRPC. Results gather until `take`. */
export class ResponseBuilder {
  #bytes = Buffer.allocUnsafe(START_BYTES);
  #at = FRAME_HEADER_BYTES;

  get isEmpty(): boolean {
    return this.#at === FRAME_HEADER_BYTES;
  }

  get byteLength(): number {
    return this.#at;
  }

  stored(sequence: number, firstId: number, lastId: number): void {
    this.#reserve(RESULT_BYTES_MAX);
    const bytes = this.#bytes;
    const length = 3 + varintBytes(sequence) + varintBytes(firstId) + varintBytes(lastId);
    bytes[this.#at] = RESULT_TAG;
    bytes[this.#at + 1] = length;
    bytes[this.#at + 2] = 0x08;
    let at = writeVarint(bytes, this.#at + 3, sequence);
    bytes[at] = 0x10;
    at = writeVarint(bytes, at + 1, firstId);
    bytes[at] = 0x18;
    this.#at = writeVarint(bytes, at + 1, lastId);
  }

  /** `error`: an encoded BatchError. */
  refused(sequence: number, error: Uint8Array): void {
    this.#reserve(RESULT_BYTES_MAX + error.length);
    const bytes = this.#bytes;
    const length = 1 + varintBytes(sequence) + 1 + varintBytes(error.length) + error.length;
    bytes[this.#at] = RESULT_TAG;
    let at = writeVarint(bytes, this.#at + 1, length);
    bytes[at] = 0x08;
    at = writeVarint(bytes, at + 1, sequence);
    bytes[at] = 0x22;
    at = writeVarint(bytes, at + 1, error.length);
    bytes.set(error, at);
    this.#at = at + error.length;
  }

  /** Anything encoded already: the fields of another PublishStreamResponse. */
  append(fields: Uint8Array): void {
    this.#reserve(fields.length);
    this.#bytes.set(fields, this.#at);
    this.#at += fields.length;
  }

  /** The frame with what was gathered; begins anew. The bytes are the caller's. */
  take(acknowledged: number, bytesLimit: number, messagesLimit: number): Buffer {
    this.#reserve(RESPONSE_HEAD_MAX);
    const bytes = this.#bytes;
    let at = this.#at;
    if (acknowledged > 0) {
      bytes[at] = ACKNOWLEDGED_TAG;
      at = writeVarint(bytes, at + 1, acknowledged);
    }
    bytes[at] = WINDOW_TAG;
    bytes[at + 1] = 2 + varintBytes(bytesLimit) + varintBytes(messagesLimit);
    bytes[at + 2] = 0x08;
    at = writeVarint(bytes, at + 3, bytesLimit);
    bytes[at] = 0x10;
    at = writeVarint(bytes, at + 1, messagesLimit);
    bytes[0] = 0;
    bytes.writeUInt32BE(at - FRAME_HEADER_BYTES, 1);
    const frame = Buffer.from(bytes.subarray(0, at));
    this.#at = FRAME_HEADER_BYTES;
    if (this.#bytes.length > START_BYTES * 16) this.#bytes = Buffer.allocUnsafe(START_BYTES);
    return frame;
  }

  #reserve(more: number): void {
    if (this.#at + more <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#at + more));
    larger.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = larger;
  }
}

/** The encoded BatchErrors of all reasons, each made once: under overload a refusal costs a look-up. */
export class BatchErrors {
  readonly #encoded = new Map<Reason, Uint8Array>();

  of(reason: Reason): Uint8Array {
    let found = this.#encoded.get(reason);
    if (found === undefined) {
      found = encodeBatchError(reason);
      this.#encoded.set(reason, found);
    }
    return found;
  }
}

/** `retryAfterMs`: in the place of what the catalogue says. */
export function encodeBatchError(reason: Reason, retryAfterMs?: number): Uint8Array {
  const row: ReasonRow = REASONS[reason];
  const delayMs = retryAfterMs ?? row.retryAfterMs;
  return BatchError.encode({
    code: statusCodeOf(reason),
    reason,
    message: new BrokerError(reason).message,
    outcome: row.outcome === 'none' ? Outcome.OUTCOME_NONE : Outcome.OUTCOME_UNKNOWN,
    // 0 says that another try is for nothing.
    retryAfterMs: delayMs === undefined ? 0 : Math.max(1, delayMs),
  }).finish();
}

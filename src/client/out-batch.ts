/** A batch on its way out: records written one behind the other into a pooled buffer, and who wants to know what becomes of them. */
import { assert } from '../base/assert.ts';
import { SUBJECT_BYTES_MAX } from '../base/subject.ts';
import { BODY_TAG, EXPIRATION_TAG, HEADERS_TAG, RECORD_TAG } from '../batch/batch-format.ts';
import { copyBytes } from '../batch/copy-bytes.ts';
import { varintBytes, writeVarint } from '../batch/varint.ts';
import type { ChunkPool } from './chunk-pool.ts';
import type { ClientError } from './errors.ts';
import type { Body, Header } from './message.ts';

/**
 * Room in front of the records for the rest of the Batch message, written when its sequence is known, so that what goes out is one slice:
 * tag and length (1 + 5), subject (1 + 2 + 255), sequence (1 + 8), expected_last_id (1 + 8), tag and length of the records (1 + 5).
 */
export const PREFIX_BYTES_MAX = 288;

/** PublishStreamRequest.batches = 2; Batch: subject = 1, sequence = 2, records = 3, expected_last_id = 4. */
const BATCHES_TAG = 0x12;
const SUBJECT_TAG = 0x0a;
const SEQUENCE_TAG = 0x10;
const RECORDS_TAG = 0x1a;
const EXPECTED_TAG = 0x20;
const KEY_TAG = 0x0a;
const VALUE_TAG = 0x12;

/** What a message brings along besides its body. */
export interface RecordExtras {
  readonly headers: readonly Header[];
  /** 0: never. */
  readonly expirationSeconds: number;
}

/** Some messages of a batch whose publisher waits for their ids. */
export interface Waiter {
  stored(firstId: number): void;
  failed(error: ClientError): void;
}

interface Part {
  /** Of the first message in the batch. */
  readonly offset: number;
  readonly waiter: Waiter;
}

export class OutBatch {
  readonly subject: string;
  /** When its first message came, in ms of the caller's clock. */
  readonly madeAt: number;
  /** The subject's last id that the batch insists on; -1: any. */
  readonly expectedLastId: number;
  readonly #subjectBytes: Buffer;
  readonly #pool: ChunkPool;
  #chunk: Buffer;
  #end: number = PREFIX_BYTES_MAX;
  #count = 0;
  #parts: Part[] = [];
  #tracked = 0;
  #settled: (() => void)[] = [];

  /** 0 until it is sent for the first time. Kept from then on: a session's property. */
  sequence = 0;
  /** Times that it was refused. */
  refusals = 0;
  /** It was sent, now or before, and nobody said what became of that. */
  isUnknown = false;
  /** It is on its way, without a result. */
  isInFlight = false;
  /** It was sent on an earlier stream and has yet to be sent on this one. */
  isResend = false;
  /** Of the last refusal. */
  lastError: ClientError | null = null;

  constructor(fields: {
    readonly subject: string;
    readonly madeAt: number;
    readonly expectedLastId: number;
    readonly pool: ChunkPool;
    /** Of the records; a guess. */
    readonly bytes: number;
  }) {
    this.subject = fields.subject;
    this.madeAt = fields.madeAt;
    this.expectedLastId = fields.expectedLastId;
    this.#subjectBytes = Buffer.from(fields.subject);
    assert(this.#subjectBytes.length <= SUBJECT_BYTES_MAX, 'the prefix has room for the subject');
    this.#pool = fields.pool;
    this.#chunk = fields.pool.take(PREFIX_BYTES_MAX + fields.bytes);
  }

  get count(): number {
    return this.#count;
  }

  /** Size of the records section. */
  get bytes(): number {
    return this.#end - PREFIX_BYTES_MAX;
  }

  /** Messages for which nobody waits: their failure has to be told in another way. */
  get untracked(): number {
    return this.#count - this.#tracked;
  }

  /** `recordLength` and `bodyLength` as `measure` found them. */
  append(body: Body, bodyLength: number, recordLength: number, extras: RecordExtras | null): void {
    const size = 1 + varintBytes(recordLength) + recordLength;
    if (this.#end + size > this.#chunk.length) this.#grow(size);
    const chunk = this.#chunk;
    const start = this.#end;
    chunk[start] = RECORD_TAG;
    let at = writeVarint(chunk, start + 1, recordLength);
    if (bodyLength > 0) {
      chunk[at] = BODY_TAG;
      at = writeVarint(chunk, at + 1, bodyLength);
      if (typeof body === 'string') chunk.write(body, at, bodyLength, 'utf8');
      else copyBytes(body, 0, bodyLength, chunk, at);
      at += bodyLength;
    }
    if (extras !== null) at = writeExtras(chunk, at, extras);
    assert(at === start + size, 'a record has the length that was measured');
    this.#end = at;
    this.#count += 1;
  }

  /** `waiter` is told of the `count` messages that were appended last. */
  track(waiter: Waiter, count: number): void {
    this.#parts.push({ offset: this.#count - count, waiter });
    this.#tracked += count;
  }

  /** The field of a PublishStreamRequest. It is a view: valid until the batch is settled. */
  encode(): Buffer {
    assert(this.sequence > 0 && this.#count > 0, 'a batch is sent with a sequence and messages');
    const chunk = this.#chunk;
    const subject = this.#subjectBytes;
    const hasExpected = this.expectedLastId >= 0;
    const length =
      1 +
      varintBytes(subject.length) +
      subject.length +
      1 +
      varintBytes(this.sequence) +
      (hasExpected ? 1 + varintBytes(this.expectedLastId) : 0) +
      1 +
      varintBytes(this.bytes) +
      this.bytes;
    const start = this.#end - length - varintBytes(length) - 1;
    chunk[start] = BATCHES_TAG;
    let at = writeVarint(chunk, start + 1, length);
    chunk[at] = SUBJECT_TAG;
    at = writeVarint(chunk, at + 1, subject.length);
    at += subject.copy(chunk, at);
    chunk[at] = SEQUENCE_TAG;
    at = writeVarint(chunk, at + 1, this.sequence);
    if (hasExpected) {
      chunk[at] = EXPECTED_TAG;
      at = writeVarint(chunk, at + 1, this.expectedLastId);
    }
    chunk[at] = RECORDS_TAG;
    at = writeVarint(chunk, at + 1, this.bytes);
    assert(at === PREFIX_BYTES_MAX, 'the prefix ends where the records begin');
    return chunk.subarray(start, this.#end);
  }

  stored(firstId: number): void {
    this.#release();
    for (const { offset, waiter } of this.#parts) waiter.stored(firstId + offset);
  }

  failed(error: ClientError): void {
    this.#release();
    for (const { waiter } of this.#parts) waiter.failed(error);
  }

  /** Calls `listener` once the batch has come to an end, whichever. */
  onSettled(listener: () => void): void {
    this.#settled.push(listener);
  }

  #release(): void {
    this.#pool.give(this.#chunk);
    for (const listener of this.#settled) listener();
    this.#settled = [];
  }

  #grow(more: number): void {
    const larger = this.#pool.take(Math.max(this.#chunk.length * 2, this.#end + more));
    this.#chunk.copy(larger, PREFIX_BYTES_MAX, PREFIX_BYTES_MAX, this.#end);
    this.#pool.give(this.#chunk);
    this.#chunk = larger;
  }
}

/** Length of the body in bytes. */
export function bodyLengthOf(body: Body): number {
  return typeof body === 'string' ? Buffer.byteLength(body) : body.length;
}

/** Length of the Record message. */
export function recordLengthOf(bodyLength: number, extras: RecordExtras | null): number {
  const body = bodyLength === 0 ? 0 : 1 + varintBytes(bodyLength) + bodyLength;
  return extras === null ? body : body + extrasLength(extras);
}

/** What a record takes up in the records section. */
export function sectionBytesOf(recordLength: number): number {
  return 1 + varintBytes(recordLength) + recordLength;
}

function extrasLength({ headers, expirationSeconds }: RecordExtras): number {
  let length = expirationSeconds === 0 ? 0 : 1 + varintBytes(expirationSeconds);
  for (const header of headers) {
    const inner = headerLength(header);
    length += 1 + varintBytes(inner) + inner;
  }
  return length;
}

function headerLength({ key, value }: Header): number {
  const keyLength = Buffer.byteLength(key);
  return 1 + varintBytes(keyLength) + keyLength + 1 + varintBytes(value.length) + value.length;
}

function writeExtras(chunk: Buffer, offset: number, { headers, expirationSeconds }: RecordExtras): number {
  let at = offset;
  for (const header of headers) {
    chunk[at] = HEADERS_TAG;
    at = writeVarint(chunk, at + 1, headerLength(header));
    const keyLength = Buffer.byteLength(header.key);
    chunk[at] = KEY_TAG;
    at = writeVarint(chunk, at + 1, keyLength);
    at += chunk.write(header.key, at, keyLength, 'utf8');
    chunk[at] = VALUE_TAG;
    at = writeVarint(chunk, at + 1, header.value.length);
    copyBytes(header.value, 0, header.value.length, chunk, at);
    at += header.value.length;
  }
  if (expirationSeconds !== 0) {
    chunk[at] = EXPIRATION_TAG;
    at = writeVarint(chunk, at + 1, expirationSeconds);
  }
  return at;
}

import type { Reason } from '../base/errors.ts';
import { isUtf8 } from '../base/utf8.ts';
import { copyBytes } from '../batch/copy-bytes.ts';
import { VarintCursor, varintBytes, writeVarint } from '../batch/varint.ts';
import { FieldReader, SubjectRange, SubscribeScan, scanSubject, scanSubscribe, WireType } from './codec.ts';
import { FRAME_HEADER_BYTES } from './frame.ts';

/**
 * Reader and writer of the frames of broker.v1.Consumer/Consume (proto/broker/v1/consumer.proto) on raw bytes. A delivery is a small head and a
 * records section, byte for byte as it is stored.
 */

const OPEN_FIELD = 1;
const CREDIT_FIELD = 2;

/** One SubjectStart of an open frame. */
export interface SubjectSpec {
  /** Own copy of the subject or pattern; valid UTF-8, otherwise not checked. */
  readonly name: Buffer;
  /** A Start kind of codec.ts, and its value. */
  readonly start: number;
  readonly value: number;
}

export interface ConsumeOpening {
  readonly specs: readonly SubjectSpec[];
  readonly resumeToken: Uint8Array;
  readonly heartbeatMs: number;
}

/** A ConsumeRequest. One per stream owner, reused. */
export class ConsumeScan {
  opening: ConsumeOpening | null = null;
  bytes = 0;
  messages = 0;
  readonly frame = new FieldReader();
  readonly inner = new FieldReader();
  readonly range = new SubjectRange();
  readonly start = new SubscribeScan();
}

/** Null, or the rule that the frame breaks. `specsMax`: an open with more subjects is refused. */
export function scanConsume(bytes: Buffer, specsMax: number, out: ConsumeScan): Reason | null {
  const { frame } = out;
  out.opening = null;
  out.bytes = 0;
  out.messages = 0;
  frame.reset(bytes, 0, bytes.length);
  while (!frame.done) {
    if (!frame.next()) return 'MALFORMED_MESSAGE';
    if (frame.field > CREDIT_FIELD) continue;
    if (frame.wire !== WireType.BYTES) return 'MALFORMED_MESSAGE';
    const { valueStart, valueEnd } = frame;
    const fault =
      frame.field === OPEN_FIELD
        ? scanOpen(bytes, valueStart, valueEnd, specsMax, out)
        : scanCredit(bytes, valueStart, valueEnd, out);
    if (fault !== null) return fault;
  }
  return null;
}

function scanCredit(bytes: Buffer, start: number, end: number, out: ConsumeScan): Reason | null {
  const { inner } = out;
  inner.reset(bytes, start, end);
  while (!inner.done) {
    if (!inner.next()) return 'MALFORMED_MESSAGE';
    if (inner.field > 2) continue;
    if (inner.wire !== WireType.VARINT) return 'MALFORMED_MESSAGE';
    if (inner.safe < 0) return 'CREDIT_INVALID';
    if (inner.field === 1) out.bytes = inner.safe;
    else out.messages = inner.safe;
  }
  return null;
}

const HEARTBEAT_MS_DEFAULT = 10_000;
const HEARTBEAT_MS_MIN = 100;
const HEARTBEAT_MS_MAX = 600_000;

function scanOpen(bytes: Buffer, start: number, end: number, specsMax: number, out: ConsumeScan): Reason | null {
  const { inner } = out;
  const specs: SubjectSpec[] = [];
  let resumeToken: Uint8Array = bytes.subarray(0, 0);
  let heartbeat = 0;
  inner.reset(bytes, start, end);
  while (!inner.done) {
    if (!inner.next()) return 'MALFORMED_MESSAGE';
    if (inner.field > 3) continue;
    if (inner.wire !== (inner.field === 3 ? WireType.VARINT : WireType.BYTES)) return 'MALFORMED_MESSAGE';
    if (inner.field === 1) {
      if (specs.length === specsMax) return 'CONSUMER_SUBJECTS_FULL';
      const fault = scanSpec(bytes, inner.valueStart, inner.valueEnd, specs, out);
      if (fault !== null) return fault;
    } else if (inner.field === 2) resumeToken = bytes.subarray(inner.valueStart, inner.valueEnd);
    else heartbeat = inner.int32;
  }
  const wanted = heartbeat === 0 ? HEARTBEAT_MS_DEFAULT : heartbeat;
  const heartbeatMs = Math.min(HEARTBEAT_MS_MAX, Math.max(HEARTBEAT_MS_MIN, wanted));
  out.opening = { specs, resumeToken, heartbeatMs };
  return specs.length === 0 ? 'SUBJECT_EMPTY' : null;
}

/** A SubjectStart has the fields of a SubscribeRequest. */
function scanSpec(bytes: Buffer, start: number, end: number, specs: SubjectSpec[], out: ConsumeScan): Reason | null {
  const { range, start: position } = out;
  const fault = scanSubject(bytes, start, end, range) ?? scanSubscribe(bytes, start, end, position);
  if (fault !== null) return fault;
  if (!isUtf8(bytes, range.start, range.end)) return 'SUBJECT_NOT_UTF8';
  const name = Buffer.from(bytes.subarray(range.start, range.end));
  specs.push({ name, start: position.start, value: position.value });
  return null;
}

// --- ConsumeResponse.deliveries ---

const DELIVERIES_TAG = 0x0a;
const SUBJECT_TAG = 0x0a;
const FIRST_ID_TAG = 0x10;
const COUNT_TAG = 0x18;
const PUBLISHED_AT_TAG = 0x20;
const RECORDS_TAG = 0x2a;
const RECORD_TAG = 0x1a;

/** What stands before the records section of a delivery. */
export interface DeliveryHead {
  readonly firstId: number;
  readonly count: number;
  /** Epoch ms. */
  readonly publishedAt: number;
}

function innerBytes(subjectBytes: number, head: DeliveryHead, sectionBytes: number): number {
  const { firstId, count, publishedAt } = head;
  const numbers = varintBytes(firstId) + varintBytes(count) + varintBytes(publishedAt);
  return 5 + varintBytes(subjectBytes) + subjectBytes + numbers + varintBytes(sectionBytes) + sectionBytes;
}

/** Bytes of a delivery within its response, the field's tag and length included. */
export function deliveryBytes(subjectBytes: number, head: DeliveryHead, sectionBytes: number): number {
  const inner = innerBytes(subjectBytes, head, sectionBytes);
  return 1 + varintBytes(inner) + inner;
}

/** Writes a delivery with the section source[start, end) at `offset`; returns the offset behind it. */
export function writeDelivery(
  target: Uint8Array,
  offset: number,
  subject: Uint8Array,
  head: DeliveryHead,
  source: Uint8Array,
  start: number,
  end: number,
): number {
  target[offset] = DELIVERIES_TAG;
  let at = writeVarint(target, offset + 1, innerBytes(subject.length, head, end - start));
  target[at] = SUBJECT_TAG;
  at = writeVarint(target, at + 1, subject.length);
  copyBytes(subject, 0, subject.length, target, at);
  at += subject.length;
  target[at] = FIRST_ID_TAG;
  at = writeVarint(target, at + 1, head.firstId);
  target[at] = COUNT_TAG;
  at = writeVarint(target, at + 1, head.count);
  target[at] = PUBLISHED_AT_TAG;
  at = writeVarint(target, at + 1, head.publishedAt);
  target[at] = RECORDS_TAG;
  at = writeVarint(target, at + 1, end - start);
  copyBytes(source, start, end, target, at);
  return at + end - start;
}

/** The gRPC header of a message of `length` bytes. */
export function writeFrameHeader(target: Uint8Array, offset: number, length: number): number {
  target[offset] = 0;
  target[offset + 1] = length >>> 24;
  target[offset + 2] = length >>> 16;
  target[offset + 3] = length >>> 8;
  target[offset + 4] = length;
  return offset + FRAME_HEADER_BYTES;
}

/** What a stream may have of a frame: its deliveries from id `next` on, while some of both credits is left. */
export interface FrameCut {
  /** Null: nothing of it. */
  readonly frame: Buffer | null;
  /** First id of the first delivery that was left out for want of credit; -1: none was. */
  readonly stoppedAt: number;
  /** Of the sections that are in it. */
  readonly bytes: number;
  readonly messages: number;
}

/**
 * Takes a frame of deliveries of one subject (the broker's own, with its gRPC header) apart. For the few streams that cannot have all of it:
 * those that stand inside of it, or whose credit ends there.
 */
export function cutFrame(frame: Buffer, next: number, creditBytes: number, creditMessages: number): FrameCut {
  const outer = new FieldReader();
  const inner = new FieldReader();
  const parts: Buffer[] = [];
  let stoppedAt = -1;
  let bytes = 0;
  let messages = 0;
  outer.reset(frame, FRAME_HEADER_BYTES, frame.length);
  while (!outer.done && outer.next()) {
    const { subject, firstId, count, publishedAt, start, end } = readDelivery(inner, frame, outer);
    if (firstId + count <= next) continue;
    if (bytes >= creditBytes || messages >= creditMessages) {
      stoppedAt = Math.max(firstId, next);
      break;
    }
    const skipped = Math.max(0, next - firstId);
    const from = skipRecords(frame, start, end, skipped);
    const head = { firstId: firstId + skipped, count: count - skipped, publishedAt };
    const part = Buffer.allocUnsafe(deliveryBytes(subject.length, head, end - from));
    writeDelivery(part, 0, subject, head, frame, from, end);
    parts.push(part);
    bytes += end - from;
    messages += head.count;
  }
  if (parts.length === 0) return { frame: null, stoppedAt, bytes, messages };
  const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
  writeFrameHeader(
    header,
    0,
    parts.reduce((sum, { length }) => sum + length, 0),
  );
  return { frame: Buffer.concat([header, ...parts]), stoppedAt, bytes, messages };
}

function readDelivery(inner: FieldReader, frame: Buffer, outer: FieldReader) {
  const found = { subject: frame.subarray(0, 0), firstId: 0, count: 0, publishedAt: 0, start: 0, end: 0 };
  inner.reset(frame, outer.valueStart, outer.valueEnd);
  while (!inner.done && inner.next()) {
    switch (inner.field) {
      case SUBJECT_TAG >>> 3:
        found.subject = frame.subarray(inner.valueStart, inner.valueEnd);
        break;
      case FIRST_ID_TAG >>> 3:
        found.firstId = inner.safe;
        break;
      case COUNT_TAG >>> 3:
        found.count = inner.safe;
        break;
      case PUBLISHED_AT_TAG >>> 3:
        found.publishedAt = inner.safe;
        break;
      default:
        found.start = inner.valueStart;
        found.end = inner.valueEnd;
    }
  }
  return found;
}

/** Offset behind the first `count` records of a section. */
function skipRecords(bytes: Uint8Array, start: number, end: number, count: number): number {
  const varint = new VarintCursor();
  let at = start;
  for (let i = 0; i < count && bytes[at] === RECORD_TAG; i++) {
    at = varint.read(bytes, at + 1, end) + varint.value;
  }
  return at;
}

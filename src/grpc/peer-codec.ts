import { SUBJECT_BYTES_MAX } from '../base/subject.ts';
import { copyBytes } from '../batch/copy-bytes.ts';
import { varintBytes, writeVarint } from '../batch/varint.ts';
import { FieldReader, WireType } from './codec.ts';
import { PeerMessage } from './gen/broker/v1/peer.ts';

/**
 * Reader and writer of the messages between nodes (proto/broker/v1/peer.proto) on raw bytes. All fields but the hello are repeated, so parts of a message
 * are written one by one, and what has gathered is a message by being laid one behind the other.
 */

/** The highest version of these messages that this program knows. */
export const PEER_VERSION = 1;

const HELLO_FIELD = 1;
const INTERESTS_FIELD = 2;
const BATCHES_FIELD = 3;
const BROADCASTS_FIELD = 4;
const PROOFS_FIELD = 6;
const { VARINT, BYTES } = WireType;

/** Names of clusters, nodes and instances are short; a longer one is a stranger's. */
const NAME_BYTES_MAX = 255;

/** Subjects of one PeerInterest: a set of more of them comes in several. */
export const INTEREST_SUBJECTS_MAX = 4_096;
/** The same in bytes, with what stands in front of each: a peer may take messages of 64 KiB only (the least that limits.message_bytes may be). */
export const INTEREST_BYTES_MAX = 32 << 10;
/** In front of a name: a tag, and a length of at most two bytes. */
export const INTEREST_NAME_OVERHEAD = 3;

export interface PeerHello {
  readonly clusterId: string;
  readonly nodeId: string;
  readonly instanceId: string;
  /** Ms since 1970. */
  readonly incarnation: number;
  readonly version: number;
  readonly messageBytesMax: number;
  /** '' in an answer. */
  readonly challenge: string;
}

export interface PeerInterest {
  readonly everything: boolean;
  readonly first: boolean;
  readonly last: boolean;
  readonly added: readonly Uint8Array[];
  readonly removed: readonly Uint8Array[];
}

/** Where the parts of a batch lie in its message. One per reader, reused. */
export class PeerBatchScan {
  subjectStart = 0;
  subjectEnd = 0;
  base = 0;
  count = 0;
  /** Epoch ms. */
  publishedAt = 0;
  batchStart = 0;
  batchEnd = 0;
  /** Empty if it is not traced. */
  traceStart = 0;
  traceEnd = 0;
}

/** What is in a message, in the order in which it was written. Bytes are valid until the call returns. */
export interface PeerParts {
  hello(hello: PeerHello): void;
  interest(interest: PeerInterest): void;
  batch(message: Buffer, scan: PeerBatchScan): void;
  broadcast(request: Buffer): void;
  proof(challenge: string): void;
}

export function encodeHello(hello: PeerHello): Buffer {
  return encode({ hello });
}

export function encodeInterest(interest: PeerInterest): Buffer {
  const copy = ({ buffer, byteOffset, length }: Uint8Array): Buffer =>
    Buffer.from(buffer as ArrayBuffer, byteOffset, length);
  const { added, removed } = interest;
  return encode({ interests: [{ ...interest, added: added.map(copy), removed: removed.map(copy) }] });
}

export function encodeBroadcast(request: Buffer): Buffer {
  return encode({ broadcasts: [{ request }] });
}

export function encodeProof(challenge: string): Buffer {
  return encode({ proofs: [challenge] });
}

export function encodeKeepalive(): Buffer {
  return encode({ keepalive: true });
}

function encode(parts: Partial<PeerMessage>): Buffer {
  const empty: PeerMessage = {
    hello: undefined,
    interests: [],
    batches: [],
    broadcasts: [],
    keepalive: false,
    proofs: [],
  };
  return Buffer.from(PeerMessage.encode({ ...empty, ...parts }).finish());
}

const SUBJECT_TAG = 0x0a;
const BASE_TAG = 0x10;
const COUNT_TAG = 0x18;
const PUBLISHED_AT_TAG = 0x20;
const BATCH_TAG = 0x2a;
const TRACE_TAG = 0x32;
const BATCHES_TAG = (BATCHES_FIELD << 3) | BYTES;

export interface PeerBatchHead {
  readonly base: number;
  readonly count: number;
  readonly publishedAt: number;
}

/** A batch whose subject is source[subjectStart, batchStart) and whose bytes are source[batchStart, batchEnd). `traceBytes`: of a trace context behind it, at most 127, or 0. */
export function encodeBatch(
  head: PeerBatchHead,
  source: Uint8Array,
  subjectStart: number,
  batchStart: number,
  batchEnd: number,
  traceBytes = 0,
): Buffer {
  const { base, count, publishedAt } = head;
  const subjectBytes = batchStart - subjectStart;
  const batchBytes = batchEnd - batchStart;
  const numbers = varintBytes(base) + varintBytes(count) + varintBytes(publishedAt);
  const lengths = varintBytes(subjectBytes) + subjectBytes + varintBytes(batchBytes) + batchBytes;
  const inner = 5 + numbers + lengths + (traceBytes === 0 ? 0 : 2 + traceBytes);
  const target = Buffer.allocUnsafe(1 + varintBytes(inner) + inner);
  target[0] = BATCHES_TAG;
  let at = writeVarint(target, 1, inner);
  target[at] = SUBJECT_TAG;
  at = writeVarint(target, at + 1, subjectBytes);
  copyBytes(source, subjectStart, batchStart, target, at);
  at += subjectBytes;
  target[at] = BASE_TAG;
  at = writeVarint(target, at + 1, base);
  target[at] = COUNT_TAG;
  at = writeVarint(target, at + 1, count);
  target[at] = PUBLISHED_AT_TAG;
  at = writeVarint(target, at + 1, publishedAt);
  target[at] = BATCH_TAG;
  at = writeVarint(target, at + 1, batchBytes);
  copyBytes(source, batchStart, batchEnd, target, at);
  if (traceBytes === 0) return target;
  at += batchBytes;
  target[at] = TRACE_TAG;
  at = writeVarint(target, at + 1, traceBytes);
  copyBytes(source, batchEnd, batchEnd + traceBytes, target, at);
  return target;
}

/** Walks messages of a peer. One per stream, reused. */
export class PeerReader {
  readonly #outer = new FieldReader();
  readonly #inner = new FieldReader();
  readonly #batch = new PeerBatchScan();

  /** Hands the parts of the message on as they come; false where the bytes are malformed: what came before that was handed on. */
  read(message: Buffer, parts: PeerParts): boolean {
    const outer = this.#outer;
    outer.reset(message, 0, message.length);
    while (!outer.done) {
      if (!outer.next()) return false;
      if (outer.field > BROADCASTS_FIELD && outer.field !== PROOFS_FIELD) continue;
      if (outer.wire !== BYTES || !this.#part(message, outer, parts)) return false;
    }
    return true;
  }

  #part(message: Buffer, { field, valueStart, valueEnd }: FieldReader, parts: PeerParts): boolean {
    this.#inner.reset(message, valueStart, valueEnd);
    switch (field) {
      case HELLO_FIELD: {
        const hello = this.#hello(message);
        if (hello !== null) parts.hello(hello);
        return hello !== null;
      }
      case INTERESTS_FIELD: {
        const interest = this.#interest(message);
        if (interest !== null) parts.interest(interest);
        return interest !== null;
      }
      case BATCHES_FIELD:
        if (!this.#scanBatch()) return false;
        parts.batch(message, this.#batch);
        return true;
      case PROOFS_FIELD:
        if (valueEnd - valueStart > NAME_BYTES_MAX) return false;
        parts.proof(message.toString('utf8', valueStart, valueEnd));
        return true;
      default: {
        const request = this.#request(message);
        if (request !== null) parts.broadcast(request);
        return request !== null;
      }
    }
  }

  #hello(message: Buffer): PeerHello | null {
    const inner = this.#inner;
    const names = ['', '', '', ''];
    const numbers = [0, 0, 0];
    while (!inner.done) {
      if (!inner.next()) return null;
      const { field, wire } = inner;
      if (field > 7) continue;
      const isNumber = field >= 4 && field <= 6;
      if (wire !== (isNumber ? VARINT : BYTES)) return null;
      if (isNumber) numbers[field - 4] = inner.safe;
      else if (inner.valueEnd - inner.valueStart > NAME_BYTES_MAX) return null;
      else names[Math.min(field - 1, 3)] = message.toString('utf8', inner.valueStart, inner.valueEnd);
    }
    const [clusterId, nodeId, instanceId, challenge] = names as [string, string, string, string];
    const [incarnation, version, messageBytesMax] = numbers as [number, number, number];
    return { clusterId, nodeId, instanceId, incarnation, version, messageBytesMax, challenge };
  }

  #interest(message: Buffer): PeerInterest | null {
    const inner = this.#inner;
    const flags = [false, false, false];
    const added: Uint8Array[] = [];
    const removed: Uint8Array[] = [];
    while (!inner.done) {
      if (!inner.next()) return null;
      const { field, wire, valueStart, valueEnd } = inner;
      if (field > 5) continue;
      if (wire !== (field <= 3 ? VARINT : BYTES)) return null;
      if (field <= 3) flags[field - 1] = inner.low !== 0 || inner.high !== 0;
      else if (!isSubjectLength(valueEnd - valueStart) || added.length + removed.length >= INTEREST_SUBJECTS_MAX)
        return null;
      else (field === 4 ? added : removed).push(message.subarray(valueStart, valueEnd));
    }
    const [everything, first, last] = flags as [boolean, boolean, boolean];
    return { everything, first, last, added, removed };
  }

  #scanBatch(): boolean {
    const inner = this.#inner;
    const out = this.#batch;
    out.subjectStart = out.subjectEnd = out.batchStart = out.batchEnd = 0;
    out.base = out.count = out.publishedAt = out.traceStart = out.traceEnd = 0;
    while (!inner.done) {
      if (!inner.next()) return false;
      const { field, wire } = inner;
      if (field > 6) continue;
      if (wire !== (field === 1 || field >= 5 ? BYTES : VARINT)) return false;
      switch (field) {
        case 1:
          out.subjectStart = inner.valueStart;
          out.subjectEnd = inner.valueEnd;
          break;
        case 2:
          out.base = inner.safe;
          break;
        case 3:
          out.count = inner.safe;
          break;
        case 4:
          out.publishedAt = inner.safe;
          break;
        case 5:
          out.batchStart = inner.valueStart;
          out.batchEnd = inner.valueEnd;
          break;
        default:
          out.traceStart = inner.valueStart;
          out.traceEnd = inner.valueEnd;
      }
    }
    const isNumbered = out.base >= 1 && out.count >= 1 && out.count <= 0xffff_ffff && out.publishedAt >= 0;
    return isNumbered && isSubjectLength(out.subjectEnd - out.subjectStart) && out.batchEnd > out.batchStart;
  }

  #request(message: Buffer): Buffer | null {
    const inner = this.#inner;
    let request = message.subarray(0, 0);
    while (!inner.done) {
      if (!inner.next()) return null;
      if (inner.field !== 1) continue;
      if (inner.wire !== BYTES) return null;
      request = message.subarray(inner.valueStart, inner.valueEnd);
    }
    return request;
  }
}

function isSubjectLength(length: number): boolean {
  return length >= 1 && length <= SUBJECT_BYTES_MAX;
}

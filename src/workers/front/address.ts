import type { Caller } from '../../access/caller.ts';
import type { Reason } from '../../base/errors.ts';
import { SUBJECT_BYTES_MAX, subjectFault, subjectHash } from '../../base/subject.ts';
import { SPACE_END } from '../../base/subject-space.ts';
import { isUtf8 } from '../../base/utf8.ts';
import { writeVarint } from '../../batch/varint.ts';
import { PRODUCER_BYTES_MAX, SubjectRange, scanSubject } from '../../grpc/codec.ts';
import { producerInSpace } from './producer-names.ts';

const SUBJECT_TAG = 0x0a;
const PRODUCER_TAG = 0x2a;
/** A tag and a length that fits two bytes, twice. */
const TAIL_BYTES_MAX = 3 + SUBJECT_BYTES_MAX + 3 + PRODUCER_BYTES_MAX;
const NO_TAIL: Uint8Array = new Uint8Array(0);

/**
 * Where a request goes: what its subject, and its producer, are called inside the broker. For callers without a space that is what they say. One for
 * all requests: valid until the next `find`.
 */
export class Address {
  /** The subject is bytes[start, end). */
  bytes: Uint8Array = NO_TAIL;
  start = 0;
  end = 0;
  hash = 0;
  /**
   * Fields to write behind a request for a shard or another node: of a field that occurs twice the last one counts, so that a request need not be
   * written anew. Empty: as it is.
   */
  tail: Uint8Array = NO_TAIL;
  readonly #range = new SubjectRange();
  readonly #room = Buffer.allocUnsafe(TAIL_BYTES_MAX);

  get subject(): Buffer {
    const { buffer, byteOffset } = this.bytes;
    return Buffer.from(buffer as ArrayBuffer, byteOffset + this.start, this.end - this.start);
  }

  /** Null, or why nobody may have such a request. */
  find(request: Buffer, { space }: Pick<Caller, 'space'>): Reason | null {
    const range = this.#range;
    const fault = scanSubject(request, 0, request.length, range) ?? subjectFault(request, range.start, range.end);
    if (fault !== null) return fault;
    const { producerStart, producerEnd } = range;
    // Producers of the space would be within reach.
    if (producerEnd > producerStart && has(request, producerStart, producerEnd, SPACE_END)) return 'PRODUCER_INVALID';
    if (space.length === 0) {
      this.bytes = request;
      this.start = range.start;
      this.end = range.end;
      this.tail = NO_TAIL;
    } else if (!this.#tryEnter(request, space)) return 'SUBJECT_TOO_LONG';
    this.hash = subjectHash(this.bytes, this.start, this.end);
    return null;
  }

  #tryEnter(request: Buffer, space: Uint8Array): boolean {
    const { start, end, producerStart, producerEnd } = this.#range;
    const length = space.length + end - start;
    if (length > SUBJECT_BYTES_MAX) return false;
    const room = this.#room;
    room[0] = SUBJECT_TAG;
    this.start = writeVarint(room, 1, length);
    room.set(space, this.start);
    this.end = this.start + space.length + request.copy(room, this.start + space.length, start, end);
    this.bytes = room;
    let at = this.end;
    const producerBytes = producerEnd - producerStart;
    // One that is no producer is left as it is, for the shard to refuse.
    const isProducer = producerBytes > 0 && producerBytes <= PRODUCER_BYTES_MAX;
    if (isProducer && isUtf8(request, producerStart, producerEnd)) {
      const producer = producerInSpace(space, request.subarray(producerStart, producerEnd));
      room[at] = PRODUCER_TAG;
      at = writeVarint(room, at + 1, producer.length);
      at += producer.copy(room, at);
    }
    this.tail = room.subarray(0, at);
    return true;
  }
}

function has(bytes: Uint8Array, start: number, end: number, byte: number): boolean {
  for (let i = start; i < end; i++) if (bytes[i] === byte) return true;
  return false;
}

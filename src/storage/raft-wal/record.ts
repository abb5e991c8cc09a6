import { assert } from '../../base/assert.ts';
import { tryReadSafeUint, writeSafeUint } from '../../base/bytes.ts';
import { crc32 } from '../../base/checksum.ts';
import * as format from './format.ts';
import type { WalEntry, WalHardState } from './types.ts';

/** Where a record goes and what it is chained to. */
export interface RecordPlace {
  readonly epoch: number;
  readonly previous: number;
  readonly position: number;
  readonly synced: number;
}

/** A record buffer above this is given back after use. */
const KEPT_BUFFER_BYTES = 4 * 1024 * 1024;
const FIRST_BUFFER_BYTES = 64 * 1024;
const VOTE_BYTES_MAX = 255;

/**
 * Builds one record at a time in one reused buffer: `bytes[0, length)` after a `put…` and a `seal`. Besides the two views that the
 * checksum needs, a record allocates nothing.
 */
export class RecordBuilder {
  #buffer = Buffer.alloc(FIRST_BUFFER_BYTES);
  #view = new DataView(this.#buffer.buffer);
  #payloadLength = 0;
  #type = 0;

  get bytes(): Buffer {
    return this.#buffer;
  }

  /** Length of the record with header and padding. */
  get length(): number {
    return format.recordBytes(this.#payloadLength);
  }

  putSegment(sequence: number, firstIndex: number, instance: Uint8Array): void {
    this.#begin(format.TYPE_SEGMENT, format.SEGMENT_PAYLOAD_BYTES);
    const at = format.HEADER_BYTES;
    writeSafeUint(this.#view, at, sequence);
    writeSafeUint(this.#view, at + 8, firstIndex);
    assert(instance.length === format.SEGMENT_INSTANCE_BYTES, 'an instance id has 16 bytes');
    this.#buffer.set(instance, at + 16);
  }

  putPointer(pointer: {
    readonly index: number;
    readonly term: number;
    readonly bytes: number;
    readonly crc: number;
    readonly installed: boolean;
  }): void {
    this.#begin(format.TYPE_POINTER, format.POINTER_PAYLOAD_BYTES);
    const at = format.HEADER_BYTES;
    writeSafeUint(this.#view, at, pointer.index);
    writeSafeUint(this.#view, at + 8, pointer.term);
    writeSafeUint(this.#view, at + 16, pointer.bytes);
    this.#view.setUint32(at + 24, pointer.crc, true);
    this.#view.setUint32(at + 28, pointer.installed ? format.FLAG_INSTALLED : 0, true);
  }

  putAppend(entries: readonly WalEntry[], hardState: WalHardState | null): void {
    const voteLength = hardState === null ? 0 : Buffer.byteLength(hardState.vote);
    assert(voteLength <= VOTE_BYTES_MAX, 'a vote has at most 255 bytes');
    let payload = format.APPEND_FIXED_BYTES + entries.length * format.APPEND_ENTRY_BYTES;
    if (hardState !== null) payload += format.APPEND_HARD_STATE_BYTES + voteLength;
    for (let i = 0; i < entries.length; i++) payload += (entries[i] as WalEntry).data.length;
    this.#begin(format.TYPE_APPEND, payload);

    const view = this.#view;
    let at = format.HEADER_BYTES;
    view.setUint32(at, entries.length, true);
    view.setUint8(at + 4, hardState === null ? 0 : format.FLAG_HARD_STATE);
    view.setUint8(at + 5, voteLength);
    view.setUint16(at + 6, 0, true);
    writeSafeUint(view, at + 8, entries.length === 0 ? 0 : (entries[0] as WalEntry).index);
    at += format.APPEND_FIXED_BYTES;
    if (hardState !== null) {
      writeSafeUint(view, at, hardState.term);
      writeSafeUint(view, at + 8, hardState.commit);
      at += format.APPEND_HARD_STATE_BYTES;
      at += this.#buffer.write(hardState.vote, at);
    }
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i] as WalEntry;
      assert(entry.type >>> 0 === entry.type && entry.type <= 0xff, 'an entry type is 0 to 255');
      writeSafeUint(view, at, entry.term);
      view.setUint32(at + 8, entry.data.length, true);
      view.setUint32(at + 12, entry.type, true);
      at += format.APPEND_ENTRY_BYTES;
      this.#buffer.set(entry.data, at);
      at += entry.data.length;
    }
    assert(at === format.HEADER_BYTES + payload, 'an append record has another length than it was measured to have');
  }

  /** Writes the header; returns the record's own checksum, the `previous` of the next one. */
  seal(place: RecordPlace): number {
    const view = this.#view;
    const end = this.length;
    this.#buffer.fill(format.PADDING, format.HEADER_BYTES + this.#payloadLength, end);
    const body = crc32(this.#buffer.subarray(format.HEADER_BYTES, end), place.previous);
    view.setUint32(format.BODY_CRC, body, true);
    view.setUint32(format.LENGTH, this.#payloadLength, true);
    view.setUint16(format.MAGIC, format.RECORD_MAGIC, true);
    view.setUint8(format.TYPE, this.#type);
    view.setUint8(format.VERSION, format.FORMAT_VERSION);
    view.setUint32(format.EPOCH, place.epoch, true);
    view.setUint32(format.PREVIOUS, place.previous, true);
    view.setUint32(format.POSITION, place.position, true);
    view.setUint32(format.SYNCED, place.synced, true);
    const own = crc32(this.#buffer.subarray(format.BODY_CRC, format.HEADER_BYTES));
    view.setUint32(format.HEADER_CRC, own, true);
    return own;
  }

  /** Gives an unusually large buffer back. */
  trim(): void {
    if (this.#buffer.length > KEPT_BUFFER_BYTES) this.#allocate(FIRST_BUFFER_BYTES);
  }

  #begin(type: number, payloadLength: number): void {
    const length = format.recordBytes(payloadLength);
    assert(length <= format.RECORD_BYTES_MAX, () => `a record of ${length} bytes is over ${format.RECORD_BYTES_MAX}`);
    if (length > this.#buffer.length) this.#allocate(Math.max(length, this.#buffer.length * 2));
    this.#type = type;
    this.#payloadLength = payloadLength;
  }

  #allocate(bytes: number): void {
    this.#buffer = Buffer.alloc(bytes);
    this.#view = new DataView(this.#buffer.buffer);
  }
}

export interface ParsedAppend {
  readonly entries: WalEntry[];
  readonly hardState: WalHardState | null;
}

export interface ParsedPointer {
  readonly index: number;
  readonly term: number;
  readonly bytes: number;
  readonly crc: number;
  readonly installed: boolean;
}

export interface ParsedSegment {
  readonly sequence: number;
  readonly firstIndex: number;
  readonly instance: Uint8Array;
}

/** The checksum was right and the content is not: a defect or a newer writer. The text is for WalDamaged. */
export class RecordMalformed extends Error {
  override name = 'RecordMalformed';
}

/** Payloads are views; the entries of an append keep the payload alive. */
export function parseSegment(payload: Uint8Array): ParsedSegment {
  if (payload.length !== format.SEGMENT_PAYLOAD_BYTES) throw new RecordMalformed('a segment header of another length');
  const view = viewOf(payload);
  return {
    sequence: uint(view, 0, 'sequence'),
    firstIndex: uint(view, 8, 'first index'),
    // Not slice(): of a Buffer that is a view, and the window it looks on moves.
    instance: Uint8Array.from(payload.subarray(16, 32)),
  };
}

export function parsePointer(payload: Uint8Array): ParsedPointer {
  if (payload.length !== format.POINTER_PAYLOAD_BYTES) throw new RecordMalformed('a pointer of another length');
  const view = viewOf(payload);
  const flags = view.getUint32(28, true);
  if (flags > format.FLAG_INSTALLED) throw new RecordMalformed(`unknown pointer flags ${flags}`);
  return {
    index: uint(view, 0, 'snapshot index'),
    term: uint(view, 8, 'snapshot term'),
    bytes: uint(view, 16, 'snapshot size'),
    crc: view.getUint32(24, true),
    installed: flags === format.FLAG_INSTALLED,
  };
}

export function parseAppend(payload: Uint8Array): ParsedAppend {
  const view = viewOf(payload);
  need(payload, 0, format.APPEND_FIXED_BYTES);
  const count = view.getUint32(0, true);
  const flags = view.getUint8(4);
  if (flags > format.FLAG_HARD_STATE) throw new RecordMalformed(`unknown append flags ${flags}`);
  const first = uint(view, 8, 'entry index');
  let at = format.APPEND_FIXED_BYTES;
  let hardState: WalHardState | null = null;
  if (flags === format.FLAG_HARD_STATE) {
    const voteLength = view.getUint8(5);
    need(payload, at, format.APPEND_HARD_STATE_BYTES + voteLength);
    const term = uint(view, at, 'term');
    const commit = uint(view, at + 8, 'commit');
    at += format.APPEND_HARD_STATE_BYTES;
    hardState = { term, vote: Buffer.from(payload.subarray(at, at + voteLength)).toString('utf8'), commit };
    at += voteLength;
  }
  if (count > 0 && (first === 0 || first > format.INDEX_MAX - count + 1)) {
    throw new RecordMalformed(`${count} entries from index ${first}`);
  }
  const entries: WalEntry[] = [];
  for (let i = 0; i < count; i++) {
    need(payload, at, format.APPEND_ENTRY_BYTES);
    const term = uint(view, at, 'entry term');
    const length = view.getUint32(at + 8, true);
    const type = view.getUint32(at + 12, true);
    at += format.APPEND_ENTRY_BYTES;
    need(payload, at, length);
    entries.push({ term, index: first + i, type, data: payload.subarray(at, at + length) });
    at += length;
  }
  if (at !== payload.length) throw new RecordMalformed(`${payload.length - at} bytes too many in an append record`);
  return { entries, hardState };
}

function need(payload: Uint8Array, at: number, length: number): void {
  if (at + length > payload.length) throw new RecordMalformed(`${length} bytes wanted at ${at} of ${payload.length}`);
}

/** Refused, never rounded, beyond 2^53-1 (traps R29). */
function uint(view: DataView, at: number, what: string): number {
  const value = tryReadSafeUint(view, at);
  if (value < 0) throw new RecordMalformed(`${what} is beyond 2^53-1`);
  return value;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

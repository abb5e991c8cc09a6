import { assert } from '../../base/assert.ts';
import { tryReadSafeUint, writeSafeUint } from '../../base/bytes.ts';
import { crc32 } from '../../base/checksum.ts';
import { slotOfHash } from '../../base/subject.ts';
import { SubjectTable } from '../../base/subject-table.ts';
import { alignedTo } from './segment-format.ts';
import { ENTRY_BYTES, EntryKind, type IndexEntry, newEntry, packEntry, unpackEntry } from './slot-index.ts';
import type { SubjectIndex } from './subject-index.ts';

/**
 * Layout of a sidecar, the index of one sealed segment (docs/record-format.md). It is derived: when it is missing, damaged or does not fit its
 * segment, the segment is scanned and it is made again.
 *
 *   header (128 B) · for each subject: u32 hash · u32 entries · u8 name length · name · zeros to 8 · entries (slot-index.ts), in base order
 */
export const SIDECAR_HEADER_BYTES = 128;
const SIDECAR_MAGIC = 0x31495242; // "BRI1"
const SIDECAR_VERSION = 1;
const ENTRY_WORDS = ENTRY_BYTES / 4;
/** Batches whose notes lie in one piece of memory (152 KiB): a segment has tens of them, so that hardly any memory is empty, and none is copied. */
const PIECE_BITS = 12;
const PIECE_BATCHES = 1 << PIECE_BITS;
const PIECE_MASK = PIECE_BATCHES - 1;
/** The first piece begins with so many. */
const FIRST_BATCHES = 256;
export const SUBJECT_HEADER_BYTES = 9;

const Offset = {
  MAGIC: 0,
  CRC: 4,
  VERSION: 8,
  SEGMENT: 12,
  NONCE: 16,
  SEGMENT_LENGTH: 24,
  NEWEST: 32,
  OLDEST: 40,
  EXPIRES_AT: 48,
  BATCH_BYTES: 56,
  BODY_LENGTH: 64,
  BODY_CRC: 72,
  SUBJECTS: 76,
  BATCHES: 80,
  CHAIN: 84,
  DAMAGED: 88,
} as const;

/** What is known of a segment without looking into it. */
export interface SegmentSummary {
  /** segmentId. */
  readonly segment: number;
  readonly nonce: number;
  /** Bytes of the file. */
  readonly length: number;
  /** Largest and smallest time of its batches, epoch ms; 0 if there are none. */
  readonly newest: number;
  readonly oldest: number;
  /** When its last message expires, epoch ms; 0 if one never does, or if it holds void marks (they say something for ever). */
  readonly expiresAt: number;
  readonly batchBytes: number;
  readonly subjects: number;
  readonly batches: number;
  /** CRC of the last group's header. */
  readonly chain: number;
  /** Places where the last scan found damage. */
  readonly damaged: number;
}

export interface SidecarHeader extends SegmentSummary {
  readonly bodyLength: number;
  readonly bodyCrc: number;
}

/** Tables that notes can point into; where there are more, names are copied. */
const TABLES_MAX = 0xffff;

/** Notes of up to PIECE_BATCHES batches. */
class NotesPiece {
  /** Of each batch, the row of its subject, and the number of the table that it is in. */
  rows: Uint32Array;
  tables: Uint16Array;
  entries: Uint32Array;

  constructor(batches: number) {
    this.rows = new Uint32Array(batches);
    this.tables = new Uint16Array(batches);
    this.entries = new Uint32Array(batches * ENTRY_WORDS);
  }

  grow(batches: number): void {
    const larger = new NotesPiece(batches);
    larger.rows.set(this.rows);
    larger.tables.set(this.tables);
    larger.entries.set(this.entries);
    this.rows = larger.rows;
    this.tables = larger.tables;
    this.entries = larger.entries;
  }

  byteLength(): number {
    return this.rows.byteLength + this.tables.byteLength + this.entries.byteLength;
  }
}

/** Batches by subject: those of one subject in the order they were added. */
interface Sorted {
  /** Of so many batches. */
  readonly batches: number;
  readonly order: Uint32Array;
  readonly subjects: number;
}

/**
 * Gathers what a segment holds while it is written or scanned: 38 bytes a batch. Names stay where they are, in the tables of the index: rows and
 * names of a table never change, also when its slot has gone to another shard. A scan has no index and keeps the names itself.
 */
export class SidecarBuilder {
  /** Tables pointed into, by number. */
  readonly #tables: SubjectTable[] = [];
  readonly #numbers = new Map<SubjectTable, number>();
  /** Names that are in no other table. */
  #own: SubjectTable | null = null;
  #sorted: Sorted | null = null;
  readonly #pieces: NotesPiece[] = [new NotesPiece(FIRST_BATCHES)];
  #batches = 0;
  #batchBytes = 0;
  #newest = 0;
  #oldest = 0;
  #expiresAt = 0;
  #hasEndless = false;

  get batches(): number {
    return this.#batches;
  }

  get newest(): number {
    return this.#newest;
  }

  get expiresAt(): number {
    return this.#hasEndless ? 0 : this.#expiresAt;
  }

  /** A batch of a subject whose name is kept here. */
  add(name: Uint8Array, start: number, end: number, hash: number, entry: IndexEntry, expiresMax: number): void {
    this.#own ??= new SubjectTable(64);
    let row = this.#own.find(name, start, end, hash);
    if (row < 0) row = this.#own.insert(name, start, end, hash);
    this.#add(this.#numberOf(this.#own), row, entry, expiresMax);
  }

  /** A batch of the subject in a row of `table`, which must outlive the notes. */
  addRow(table: SubjectTable, row: number, entry: IndexEntry, expiresMax: number): void {
    if (this.#tables.length >= TABLES_MAX && !this.#numbers.has(table)) {
      const name = table.nameAt(row);
      this.add(name, 0, name.length, table.hashAt(row), entry, expiresMax);
    } else {
      this.#add(this.#numberOf(table), row, entry, expiresMax);
    }
  }

  #numberOf(table: SubjectTable): number {
    let number = this.#numbers.get(table);
    if (number === undefined) {
      number = this.#tables.length;
      this.#tables.push(table);
      this.#numbers.set(table, number);
    }
    return number;
  }

  #add(table: number, row: number, entry: IndexEntry, expiresMax: number): void {
    const piece = this.#pieceForNext();
    const at = this.#batches & PIECE_MASK;
    piece.rows[at] = row;
    piece.tables[at] = table;
    packEntry(piece.entries, at * ENTRY_WORDS, entry);
    this.#batches += 1;
    this.#batchBytes += entry.length;
    this.#note(entry, expiresMax);
  }

  #pieceForNext(): NotesPiece {
    const at = this.#batches & PIECE_MASK;
    const number = this.#batches >>> PIECE_BITS;
    if (number === this.#pieces.length) this.#pieces.push(new NotesPiece(PIECE_BATCHES));
    const piece = this.#pieces[number] as NotesPiece;
    if (at === piece.rows.length) piece.grow(PIECE_BATCHES);
    return piece;
  }

  #pieceOf(batch: number): NotesPiece {
    return this.#pieces[batch >>> PIECE_BITS] as NotesPiece;
  }

  #rowOf(batch: number): number {
    return this.#pieceOf(batch).rows[batch & PIECE_MASK] as number;
  }

  #tableOf(batch: number): number {
    return this.#pieceOf(batch).tables[batch & PIECE_MASK] as number;
  }

  /** Memory held, in bytes, without the few objects themselves and without the tables of others. */
  byteLength(): number {
    return this.#pieces.reduce((bytes, piece) => bytes + piece.byteLength(), this.#own?.byteLength() ?? 0);
  }

  #note(entry: IndexEntry, expiresMax: number): void {
    if (entry.publishedAt > 0) {
      this.#newest = Math.max(this.#newest, entry.publishedAt);
      this.#oldest = this.#oldest === 0 ? entry.publishedAt : Math.min(this.#oldest, entry.publishedAt);
    }
    if (entry.kind === EntryKind.VOID || expiresMax === 0) this.#hasEndless = true;
    else this.#expiresAt = Math.max(this.#expiresAt, entry.publishedAt + expiresMax * 1000);
  }

  summary(of: {
    readonly segment: number;
    readonly nonce: number;
    readonly length: number;
    readonly chain: number;
    readonly damaged: number;
  }): SegmentSummary {
    return {
      ...of,
      newest: this.#newest,
      oldest: this.#oldest,
      expiresAt: this.expiresAt,
      batchBytes: this.#batchBytes,
      subjects: this.#sort().subjects,
      batches: this.#batches,
    };
  }

  /** The whole sidecar. */
  encode(summary: SegmentSummary): Buffer {
    const { order } = this.#sort();
    const bytes = Buffer.alloc(SIDECAR_HEADER_BYTES + this.#bodyLength(order));
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let at = SIDECAR_HEADER_BYTES;
    let next = 0;
    while (next < order.length) {
      const batch = order[next] as number;
      const table = this.#tables[this.#tableOf(batch)] as SubjectTable;
      const row = this.#rowOf(batch);
      const end = this.#endOfSubject(order, next);
      at = writeSubjectHeader(bytes, view, at, table.nameAt(row), table.hashAt(row), end - next);
      for (; next < end; next++) at = this.#writeEntry(view, at, order[next] as number);
    }
    assert(at === bytes.length && next === this.#batches, 'a sidecar has another length than was computed');
    writeHeader(bytes, view, summary, bytes.length - SIDECAR_HEADER_BYTES);
    return bytes;
  }

  #bodyLength(order: Uint32Array): number {
    let length = this.#batches * ENTRY_BYTES;
    for (let at = 0; at < order.length; at = this.#endOfSubject(order, at)) {
      const batch = order[at] as number;
      length += subjectBytes((this.#tables[this.#tableOf(batch)] as SubjectTable).nameLength(this.#rowOf(batch)));
    }
    return length;
  }

  /** Behind the last batch of the subject whose first batch is order[at]. */
  #endOfSubject(order: Uint32Array, at: number): number {
    const first = order[at] as number;
    const [table, row] = [this.#tableOf(first), this.#rowOf(first)];
    let end = at + 1;
    while (end < order.length && this.#rowOf(order[end] as number) === row) {
      if (this.#tableOf(order[end] as number) !== table) break;
      end += 1;
    }
    return end;
  }

  #writeEntry(view: DataView, at: number, batch: number): number {
    return writeEntry(view, at, this.#pieceOf(batch).entries, (batch & PIECE_MASK) * ENTRY_WORDS);
  }

  /** By table, then by row (counting sort). */
  #sort(): Sorted {
    if (this.#sorted?.batches === this.#batches) return this.#sorted;
    const firsts = new Float64Array(this.#tables.length);
    let rows = 0;
    for (const [number, table] of this.#tables.entries()) {
      firsts[number] = rows;
      rows += table.size;
    }
    const placeOf = (batch: number): number => (firsts[this.#tableOf(batch)] as number) + this.#rowOf(batch);
    const starts = new Uint32Array(rows + 1);
    let subjects = 0;
    for (let i = 0; i < this.#batches; i++) {
      const place = placeOf(i) + 1;
      if (starts[place] === 0) subjects += 1;
      starts[place] = (starts[place] as number) + 1;
    }
    for (let place = 0; place < rows; place++)
      starts[place + 1] = (starts[place + 1] as number) + (starts[place] as number);
    const order = new Uint32Array(this.#batches);
    for (let i = 0; i < this.#batches; i++) {
      const place = placeOf(i);
      const at = starts[place] as number;
      order[at] = i;
      starts[place] = at + 1;
    }
    this.#sorted = { batches: this.#batches, order, subjects };
    return this.#sorted;
  }
}

function subjectBytes(nameLength: number): number {
  return alignedTo(SUBJECT_HEADER_BYTES + nameLength, 8);
}

/** Returns the offset behind it, where the subject's entries go. */
function writeSubjectHeader(
  bytes: Buffer,
  view: DataView,
  offset: number,
  name: Uint8Array,
  hash: number,
  entries: number,
): number {
  view.setUint32(offset, hash, true);
  view.setUint32(offset + 4, entries, true);
  view.setUint8(offset + 8, name.length);
  bytes.set(name, offset + SUBJECT_HEADER_BYTES);
  return offset + subjectBytes(name.length);
}

/** Writes the entry whose words start at words[from]; returns the offset behind it. */
function writeEntry(view: DataView, offset: number, words: Uint32Array, from: number): number {
  for (let i = 0; i < ENTRY_WORDS; i++) view.setUint32(offset + i * 4, words[from + i] as number, true);
  return offset + ENTRY_BYTES;
}

function writeHeader(bytes: Buffer, view: DataView, summary: SegmentSummary, bodyLength: number): void {
  view.setUint32(Offset.MAGIC, SIDECAR_MAGIC, true);
  view.setUint32(Offset.VERSION, SIDECAR_VERSION, true);
  view.setUint32(Offset.SEGMENT, summary.segment, true);
  writeSafeUint(view, Offset.NONCE, summary.nonce);
  writeSafeUint(view, Offset.SEGMENT_LENGTH, summary.length);
  writeSafeUint(view, Offset.NEWEST, summary.newest);
  writeSafeUint(view, Offset.OLDEST, summary.oldest);
  writeSafeUint(view, Offset.EXPIRES_AT, summary.expiresAt);
  writeSafeUint(view, Offset.BATCH_BYTES, summary.batchBytes);
  writeSafeUint(view, Offset.BODY_LENGTH, bodyLength);
  view.setUint32(Offset.BODY_CRC, crc32(bytes.subarray(SIDECAR_HEADER_BYTES)), true);
  view.setUint32(Offset.SUBJECTS, summary.subjects, true);
  view.setUint32(Offset.BATCHES, summary.batches, true);
  view.setUint32(Offset.CHAIN, summary.chain, true);
  view.setUint32(Offset.DAMAGED, summary.damaged, true);
  view.setUint32(Offset.CRC, crc32(bytes.subarray(Offset.VERSION, SIDECAR_HEADER_BYTES)), true);
}

/** The header of a sidecar, or null if the bytes are none that this program can use. Checks the header's CRC, not the body's. */
export function decodeSidecarHeader(bytes: Uint8Array): SidecarHeader | null {
  if (bytes.length < SIDECAR_HEADER_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, SIDECAR_HEADER_BYTES);
  if (view.getUint32(Offset.MAGIC, true) !== SIDECAR_MAGIC) return null;
  const crc = crc32(bytes.subarray(Offset.VERSION, SIDECAR_HEADER_BYTES));
  if (view.getUint32(Offset.CRC, true) !== crc || view.getUint32(Offset.VERSION, true) !== SIDECAR_VERSION) return null;
  return {
    segment: view.getUint32(Offset.SEGMENT, true),
    nonce: tryReadSafeUint(view, Offset.NONCE),
    length: tryReadSafeUint(view, Offset.SEGMENT_LENGTH),
    newest: tryReadSafeUint(view, Offset.NEWEST),
    oldest: tryReadSafeUint(view, Offset.OLDEST),
    expiresAt: tryReadSafeUint(view, Offset.EXPIRES_AT),
    batchBytes: tryReadSafeUint(view, Offset.BATCH_BYTES),
    bodyLength: tryReadSafeUint(view, Offset.BODY_LENGTH),
    bodyCrc: view.getUint32(Offset.BODY_CRC, true),
    subjects: view.getUint32(Offset.SUBJECTS, true),
    batches: view.getUint32(Offset.BATCHES, true),
    chain: view.getUint32(Offset.CHAIN, true),
    damaged: view.getUint32(Offset.DAMAGED, true),
  };
}

/** True if the body has its checksum, and the subjects and entries that the header counts: only then may it be walked. */
export function sidecarBodyIsGood(header: SidecarHeader, bytes: Uint8Array): boolean {
  const body = bytes.subarray(SIDECAR_HEADER_BYTES);
  return body.length === header.bodyLength && crc32(body) === header.bodyCrc && isSound(header, bytes);
}

function isSound(header: SidecarHeader, bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let subjects = 0;
  let batches = 0;
  let at = SIDECAR_HEADER_BYTES;
  while (at < bytes.length) {
    if (at + SUBJECT_HEADER_BYTES > bytes.length) return false;
    const entries = view.getUint32(at + 4, true);
    const nameLength = view.getUint8(at + 8);
    if (nameLength === 0 || entries === 0) return false;
    at += subjectBytes(nameLength) + entries * ENTRY_BYTES;
    subjects += 1;
    batches += entries;
  }
  return at === bytes.length && subjects === header.subjects && batches === header.batches;
}

/** Visits the subjects of a good sidecar: `entries` of each start at `start` of its bytes (writeEntry), its name is bytes[nameStart, nameEnd). */
export function forEachSubject(
  bytes: Uint8Array,
  visit: (hash: number, nameStart: number, nameEnd: number, start: number, entries: number) => void,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = SIDECAR_HEADER_BYTES; at < bytes.length; ) {
    const entries = view.getUint32(at + 4, true);
    const nameLength = view.getUint8(at + 8);
    const name = at + SUBJECT_HEADER_BYTES;
    const start = at + subjectBytes(nameLength);
    visit(view.getUint32(at, true), name, name + nameLength, start, entries);
    at = start + entries * ENTRY_BYTES;
  }
}

/** Reads an entry as writeEntry wrote it. `words` is scratch for ENTRY_BYTES. */
export function readEntry(view: DataView, offset: number, words: Uint32Array, entry: IndexEntry): void {
  for (let word = 0; word < ENTRY_WORDS; word++) words[word] = view.getUint32(offset + word * 4, true);
  unpackEntry(words, 0, entry);
}

/** Puts the entries of a good sidecar whose slots `ownsSlot` accepts into the index. Returns the number of entries put. */
export function loadSidecar(bytes: Uint8Array, index: SubjectIndex, ownsSlot: (slot: number) => boolean): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const entry = newEntry();
  const words = new Uint32Array(ENTRY_WORDS);
  let put = 0;
  forEachSubject(bytes, (hash, nameStart, nameEnd, start, entries) => {
    if (!ownsSlot(slotOfHash(hash)) || entries === 0) return;
    const place = index.rowFor(bytes, nameStart, nameEnd, hash);
    for (let i = 0; i < entries; i++) {
      readEntry(view, start + i * ENTRY_BYTES, words, entry);
      index.putAt(place, entry);
    }
    put += entries;
  });
  return put;
}

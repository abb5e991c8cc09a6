import { assert } from '../../base/assert.ts';
import { grownSize, SubjectTable, type SubjectTableColumns } from '../../base/subject-table.ts';

/** What an entry stands for. Numbers are in sidecars: append only. */
export const EntryKind = { DATA: 0, VOID: 1, DAMAGED: 2 } as const;

/**
 * One entry, 32 bytes in eight words, the same in memory and in a sidecar:
 *
 *   0  base, low 32 bits              4  count
 *   1  base, high 21 · check 0-10     5  segment, 30 · kind, 2
 *   2  published_at, low 32           6  offset / 8
 *   3  published_at, high 16 · check 11-26     7  length in bytes
 *
 * The check is 27 bits of the batch's header CRC: whatever whole batch an old copy of the file brings back, it is not taken for this one.
 */
export const ENTRY_BYTES = 32;
const WORDS = ENTRY_BYTES / 4;
export const EntryWord = {
  BASE: 0,
  BASE_HIGH: 1,
  TIME: 2,
  TIME_HIGH: 3,
  COUNT: 4,
  PLACE: 5,
  OFFSET: 6,
  LENGTH: 7,
} as const;
const BASE_HIGH_BITS = 21;
const BASE_HIGH_MASK = 2 ** BASE_HIGH_BITS - 1;
const TIME_HIGH_BITS = 16;
const TIME_HIGH_MASK = 2 ** TIME_HIGH_BITS - 1;
/** Year 10889; a later time is kept as this one here (the batch has it whole). */
const TIME_MAX = 2 ** 48 - 1;
const CHECK_LOW_BITS = 11;
const CHECK_LOW_MASK = 2 ** CHECK_LOW_BITS - 1;
const SEGMENT_BITS = 30;
const SEGMENT_MASK = 2 ** SEGMENT_BITS - 1;
const OFFSET_UNIT = 8;
const TWO_32 = 2 ** 32;

/** The part of a batch's header CRC that an entry keeps. */
export function checkOf(headerCrc: number): number {
  return headerCrc >>> 5;
}

/** Up to so many entries a loop copies faster than a view and a native call. */
const LOOP_ENTRIES_MAX = 8;

/** Entries in memory. */
class EntryMemory {
  readonly words: Uint32Array<ArrayBuffer>;

  constructor(entries: number, words = new Uint32Array(entries * WORDS)) {
    this.words = words;
  }

  static of(words: Uint32Array<ArrayBuffer>): EntryMemory {
    return new EntryMemory(words.length / WORDS, words);
  }

  get capacity(): number {
    return this.words.length / WORDS;
  }

  copyFrom(source: EntryMemory, from: number, count: number, at: number): void {
    if (count <= LOOP_ENTRIES_MAX) {
      const start = from * WORDS;
      for (let i = 0; i < count * WORDS; i++) this.words[at * WORDS + i] = source.words[start + i] as number;
      return;
    }
    this.words.set(source.words.subarray(from * WORDS, (from + count) * WORDS), at * WORDS);
  }

  move(from: number, count: number, at: number): void {
    this.words.copyWithin(at * WORDS, from * WORDS, (from + count) * WORDS);
  }
}

/** A batch to be put into the index. */
export interface IndexEntry {
  base: number;
  /** Epoch ms. */
  publishedAt: number;
  count: number;
  segment: number;
  /** EntryKind. */
  kind: number;
  /** Where the batch starts in its segment, bytes, a multiple of 8. */
  offset: number;
  /** Encoded bytes. */
  length: number;
  /** checkOf its header CRC. */
  check: number;
}

export function newEntry(): IndexEntry {
  return { base: 0, publishedAt: 0, count: 0, segment: 0, kind: 0, offset: 0, length: 0, check: 0 };
}

/** Writes the words of an entry at `at`. */
export function packEntry(words: Uint32Array, at: number, entry: IndexEntry): void {
  assert(entry.offset % OFFSET_UNIT === 0, 'a batch is not aligned to 8 bytes');
  const time = Math.min(entry.publishedAt, TIME_MAX);
  const baseHigh = Math.floor(entry.base / TWO_32);
  const timeHigh = Math.floor(time / TWO_32);
  words[at + EntryWord.BASE] = entry.base % TWO_32;
  words[at + EntryWord.BASE_HIGH] = baseHigh | ((entry.check & CHECK_LOW_MASK) << BASE_HIGH_BITS);
  words[at + EntryWord.TIME] = time % TWO_32;
  words[at + EntryWord.TIME_HIGH] = timeHigh | ((entry.check >>> CHECK_LOW_BITS) << TIME_HIGH_BITS);
  words[at + EntryWord.COUNT] = entry.count;
  words[at + EntryWord.PLACE] = entry.segment + entry.kind * 2 ** SEGMENT_BITS;
  words[at + EntryWord.OFFSET] = entry.offset / OFFSET_UNIT;
  words[at + EntryWord.LENGTH] = entry.length;
}

/** Reads the words at `at` into `entry`. */
export function unpackEntry(words: Uint32Array, at: number, entry: IndexEntry): void {
  const baseHigh = words[at + EntryWord.BASE_HIGH] as number;
  const timeHigh = words[at + EntryWord.TIME_HIGH] as number;
  const place = words[at + EntryWord.PLACE] as number;
  entry.base = (baseHigh & BASE_HIGH_MASK) * TWO_32 + (words[at + EntryWord.BASE] as number);
  entry.publishedAt = (timeHigh & TIME_HIGH_MASK) * TWO_32 + (words[at + EntryWord.TIME] as number);
  entry.check = (baseHigh >>> BASE_HIGH_BITS) | ((timeHigh >>> TIME_HIGH_BITS) << CHECK_LOW_BITS);
  entry.count = words[at + EntryWord.COUNT] as number;
  entry.segment = place & SEGMENT_MASK;
  entry.kind = place >>> SEGMENT_BITS;
  entry.offset = (words[at + EntryWord.OFFSET] as number) * OFFSET_UNIT;
  entry.length = words[at + EntryWord.LENGTH] as number;
}

/** The entries of one subject, in base order: a window on the index, valid until it changes. Reused by its owner. */
export class EntryCursor {
  /** Number of entries; 0 if the subject is not known. */
  length = 0;
  #memory: EntryMemory = NO_MEMORY;
  #first = 0;

  point(memory: EntryMemory, first: number, length: number): void {
    this.#memory = memory;
    this.#first = first;
    this.length = length;
  }

  clear(): void {
    this.length = 0;
  }

  base(i: number): number {
    const at = (this.#first + i) * WORDS;
    const words = this.#memory.words;
    return ((words[at + EntryWord.BASE_HIGH] as number) & BASE_HIGH_MASK) * TWO_32 + (words[at] as number);
  }

  publishedAt(i: number): number {
    const at = (this.#first + i) * WORDS;
    const words = this.#memory.words;
    const high = (words[at + EntryWord.TIME_HIGH] as number) & TIME_HIGH_MASK;
    return high * TWO_32 + (words[at + EntryWord.TIME] as number);
  }

  count(i: number): number {
    return this.#memory.words[(this.#first + i) * WORDS + EntryWord.COUNT] as number;
  }

  /** First id behind entry i. */
  end(i: number): number {
    return this.base(i) + this.count(i);
  }

  segment(i: number): number {
    return (this.#memory.words[(this.#first + i) * WORDS + EntryWord.PLACE] as number) & SEGMENT_MASK;
  }

  kind(i: number): number {
    return (this.#memory.words[(this.#first + i) * WORDS + EntryWord.PLACE] as number) >>> SEGMENT_BITS;
  }

  offset(i: number): number {
    return (this.#memory.words[(this.#first + i) * WORDS + EntryWord.OFFSET] as number) * OFFSET_UNIT;
  }

  bytes(i: number): number {
    return this.#memory.words[(this.#first + i) * WORDS + EntryWord.LENGTH] as number;
  }

  /** The whole entry. */
  copyTo(i: number, entry: IndexEntry): void {
    unpackEntry(this.#memory.words, (this.#first + i) * WORDS, entry);
  }

  /** First entry whose base is at least `base`; `length` if there is none. */
  lowerBound(base: number): number {
    const last = this.length - 1;
    // Nearly every search is for the newest batches.
    if (last < 0 || this.base(last) < base) return this.length;
    let low = 0;
    let high = last;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.base(middle) < base) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** First entry that holds `id` or lies above it. */
  holding(id: number): number {
    const above = this.lowerBound(id + 1);
    return above > 0 && this.end(above - 1) > id ? above - 1 : above;
  }

  /** First entry of data published at or after `ms`; `length` if there is none. Times of data never fall with rising base; marks may have none. */
  atOrAfter(ms: number): number {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const probe = this.#nextData(middle, high);
      if (probe < high && this.publishedAt(probe) < ms) low = probe + 1;
      else high = middle;
    }
    return this.#nextData(low, this.length);
  }

  /** First entry from `from` on that is not a mark; `until` if there is none before. */
  #nextData(from: number, until: number): number {
    let at = from;
    while (at < until && this.kind(at) === EntryKind.VOID) at += 1;
    return at;
  }
}

const NO_MEMORY = new EntryMemory(0);

/** Blocks of 1, 2, 4 … 32 entries share the slot's slab; a subject with more has memory of its own. */
const CLASSES = 6;
const BLOCK_MAX = 1 << (CLASSES - 1);
const NO_BLOCK = 255;
const LARGE = 254;

/** Entries of a subject with many of them; `first` moves up as it is trimmed. */
interface LargeList {
  memory: EntryMemory;
  first: number;
}

/** The memory of one slot's index, as it goes to another thread (slot-transfer.ts). */
export interface SlotColumns {
  readonly table: SubjectTableColumns;
  readonly slab: Uint32Array<ArrayBuffer>;
  readonly slabUsed: number;
  readonly free: Uint32Array<ArrayBuffer>;
  readonly place: Uint32Array<ArrayBuffer>;
  readonly length: Uint32Array<ArrayBuffer>;
  readonly blockClass: Uint8Array<ArrayBuffer>;
  readonly large: readonly ({ readonly words: Uint32Array<ArrayBuffer>; readonly first: number } | null)[];
  readonly batches: number;
}

/**
 * The batches of one slot's subjects. A subject costs 9 bytes here, its share of the table, its name, and 32 bytes for each batch (from the
 * third batch on up to twice that, because its block grows by doubling).
 */
export class SlotIndex {
  #table: SubjectTable;
  #slab: EntryMemory;
  #slabUsed = 0;
  /** Head of the list of free blocks of each class, as entry + 1; the next one is in the block's first word. */
  #free = new Uint32Array(CLASSES);
  /** By row: where the block is in the slab, or which large list. */
  #place: Uint32Array<ArrayBuffer>;
  #length: Uint32Array<ArrayBuffer>;
  /** By row: class of its block, LARGE, or NO_BLOCK. */
  #class: Uint8Array<ArrayBuffer>;
  #large: (LargeList | null)[] = [];
  #batches = 0;

  constructor(rowsExpected = 2) {
    this.#table = new SubjectTable(rowsExpected, rowsExpected * 16);
    this.#slab = new EntryMemory(rowsExpected);
    this.#place = new Uint32Array(rowsExpected);
    this.#length = new Uint32Array(rowsExpected);
    this.#class = new Uint8Array(rowsExpected).fill(NO_BLOCK);
  }

  /** The index whose columns these were. */
  static of(columns: SlotColumns): SlotIndex {
    const slot = new SlotIndex(0);
    slot.#table = SubjectTable.of(columns.table);
    slot.#slab = EntryMemory.of(columns.slab);
    slot.#slabUsed = columns.slabUsed;
    slot.#free = columns.free;
    slot.#place = columns.place;
    slot.#length = columns.length;
    slot.#class = columns.blockClass;
    slot.#large = columns.large.map((list) => list && { memory: EntryMemory.of(list.words), first: list.first });
    slot.#batches = columns.batches;
    return slot;
  }

  columns(): SlotColumns {
    return {
      table: this.#table.columns(),
      slab: this.#slab.words,
      slabUsed: this.#slabUsed,
      free: this.#free,
      place: this.#place,
      length: this.#length,
      blockClass: this.#class,
      large: this.#large.map((list) => list && { words: list.memory.words, first: list.first }),
      batches: this.#batches,
    };
  }

  get table(): SubjectTable {
    return this.#table;
  }

  get batches(): number {
    return this.#batches;
  }

  rowOf(bytes: Uint8Array, start: number, end: number, hash: number): number {
    const row = this.#table.find(bytes, start, end, hash);
    return row >= 0 ? row : this.#addRow(this.#table.insert(bytes, start, end, hash));
  }

  /** Points the cursor at the entries of a row. */
  open(row: number, cursor: EntryCursor): void {
    const place = this.#place[row] as number;
    if (this.#class[row] === LARGE) {
      const list = this.#large[place] as LargeList;
      cursor.point(list.memory, list.first, this.#length[row] as number);
    } else {
      cursor.point(this.#slab, place, this.#length[row] as number);
    }
  }

  /**
   * Adds a batch. Of two with one base the mark beats the data, a whole copy beats a damaged one, and else the first stays. Returns false if
   * nothing changed. `cursor` is scratch and afterwards points at the row.
   */
  put(row: number, entry: IndexEntry, cursor: EntryCursor): boolean {
    this.open(row, cursor);
    const at = cursor.lowerBound(entry.base);
    if (at < cursor.length && cursor.base(at) === entry.base) {
      if (!beats(entry.kind, cursor.kind(at))) return false;
      this.#write(row, at, entry);
      return true;
    }
    const length = cursor.length;
    this.#ensure(row, length + 1);
    const { memory, first } = this.#where(row);
    if (at < length) memory.move(first + at, length - at, first + at + 1);
    this.#length[row] = length + 1;
    this.#batches += 1;
    this.#write(row, at, entry);
    this.open(row, cursor);
    return true;
  }

  /** Removes the first `count` entries of a row. */
  dropFirst(row: number, count: number): void {
    const length = this.#length[row] as number;
    assert(count >= 0 && count <= length, () => `${count} of ${length} entries`);
    if (count === 0) return;
    this.#batches -= count;
    this.#length[row] = length - count;
    if (count === length) {
      this.#giveBlock(row);
      this.#class[row] = NO_BLOCK;
    } else if (this.#class[row] === LARGE) {
      (this.#large[this.#place[row] as number] as LargeList).first += count;
    } else {
      const { memory, first } = this.#where(row);
      memory.move(first + count, length - count, first);
    }
  }

  /** Removes every entry of a row whose segment is in `segments`. Returns how many. */
  dropSegments(row: number, segments: ReadonlySet<number>, cursor: EntryCursor): number {
    this.open(row, cursor);
    const { memory, first } = this.#where(row);
    let kept = 0;
    for (let i = 0; i < cursor.length; i++) {
      if (segments.has(cursor.segment(i))) continue;
      if (kept < i) memory.move(first + i, 1, first + kept);
      kept += 1;
    }
    const dropped = cursor.length - kept;
    if (dropped === 0) return 0;
    this.#batches -= dropped;
    this.#length[row] = kept;
    if (kept === 0) {
      this.#giveBlock(row);
      this.#class[row] = NO_BLOCK;
    }
    return dropped;
  }

  /** Memory held, in bytes, without the few objects themselves. */
  byteLength(): number {
    let bytes = this.#table.byteLength() + this.#slab.words.byteLength;
    bytes += this.#place.byteLength + this.#length.byteLength + this.#class.byteLength;
    for (const list of this.#large) bytes += list?.memory.words.byteLength ?? 0;
    return bytes;
  }

  #addRow(row: number): number {
    if (row >= this.#place.length) {
      const size = grownSize(row + 1);
      this.#place = grown(this.#place, new Uint32Array(size));
      this.#length = grown(this.#length, new Uint32Array(size));
      this.#class = grown(this.#class, new Uint8Array(size).fill(NO_BLOCK));
    }
    this.#class[row] = NO_BLOCK;
    return row;
  }

  #where(row: number): { memory: EntryMemory; first: number } {
    const place = this.#place[row] as number;
    if (this.#class[row] !== LARGE) return { memory: this.#slab, first: place };
    return this.#large[place] as LargeList;
  }

  #write(row: number, at: number, entry: IndexEntry): void {
    const { memory, first } = this.#where(row);
    packEntry(memory.words, (first + at) * WORDS, entry);
  }

  /** Room for `entries` entries of a row; moves them where needed. */
  #ensure(row: number, entries: number): void {
    const kind = this.#class[row] as number;
    if (kind === LARGE) {
      this.#ensureLarge(this.#large[this.#place[row] as number] as LargeList, entries);
      return;
    }
    if (kind !== NO_BLOCK && entries <= 1 << kind) return;
    const length = this.#length[row] as number;
    if (entries > BLOCK_MAX) {
      const memory = new EntryMemory(BLOCK_MAX * 2);
      memory.copyFrom(this.#slab, this.#place[row] as number, length, 0);
      this.#giveBlock(row);
      this.#place[row] = this.#takeLarge({ memory, first: 0 });
      this.#class[row] = LARGE;
      return;
    }
    const wanted = kind === NO_BLOCK ? 0 : kind + 1;
    const block = this.#takeBlock(wanted);
    // Read only now: the slab may have been packed for the new block.
    this.#slab.move(this.#place[row] as number, length, block);
    this.#giveBlock(row);
    this.#place[row] = block;
    this.#class[row] = wanted;
  }

  #ensureLarge(list: LargeList, entries: number): void {
    if (list.first + entries <= list.memory.capacity) return;
    const length = entries - 1;
    if (list.first > list.memory.capacity / 4) {
      list.memory.move(list.first, length, 0);
    } else {
      const memory = new EntryMemory(entries + (entries >>> 1));
      memory.copyFrom(list.memory, list.first, length, 0);
      list.memory = memory;
    }
    list.first = 0;
  }

  #takeLarge(list: LargeList): number {
    const free = this.#large.indexOf(null);
    const at = free < 0 ? this.#large.length : free;
    this.#large[at] = list;
    return at;
  }

  #takeBlock(kind: number): number {
    const head = this.#free[kind] as number;
    if (head > 0) {
      this.#free[kind] = this.#slab.words[(head - 1) * WORDS] as number;
      return head - 1;
    }
    const length = 1 << kind;
    if (this.#slabUsed + length > this.#slab.capacity) this.#growSlab(length);
    const block = this.#slabUsed;
    this.#slabUsed += length;
    return block;
  }

  /** Moves every block to a larger slab, close together: subjects that grow side by side leave more free blocks behind than they use. */
  #growSlab(more: number): void {
    let live = 0;
    for (let row = 0; row < this.#class.length; row++) live += blockLength(this.#class[row] as number);
    const slab = new EntryMemory(live + more + (live >>> 2) + 2);
    let used = 0;
    for (let row = 0; row < this.#class.length; row++) {
      const length = blockLength(this.#class[row] as number);
      if (length === 0) continue;
      slab.copyFrom(this.#slab, this.#place[row] as number, this.#length[row] as number, used);
      this.#place[row] = used;
      used += length;
    }
    this.#slab = slab;
    this.#slabUsed = used;
    this.#free.fill(0);
  }

  /** Gives back what a row has; its class must be set afterwards. */
  #giveBlock(row: number): void {
    const kind = this.#class[row] as number;
    if (kind === NO_BLOCK) return;
    const place = this.#place[row] as number;
    if (kind === LARGE) {
      this.#large[place] = null;
      return;
    }
    this.#slab.words[place * WORDS] = this.#free[kind] as number;
    this.#free[kind] = place + 1;
  }
}

function blockLength(kind: number): number {
  return kind < CLASSES ? 1 << kind : 0;
}

function beats(challenger: number, holder: number): boolean {
  if (challenger === holder) return false;
  return challenger === EntryKind.VOID || holder === EntryKind.DAMAGED;
}

function grown<T extends Uint32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>>(old: T, larger: T): T {
  larger.set(old);
  return larger;
}

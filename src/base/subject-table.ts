import { assert } from './assert.ts';
import { SUBJECT_BYTES_MAX } from './subject.ts';

/**
 * Subjects to dense row numbers, by bytes: no string and no object is made on the way. Rows are 0, 1, 2, … in the order of insertion and
 * are never given back; whoever uses the table keeps columns of its own beside it.
 *
 *   index  Int32Array, open addressing, linear probing, at most 3/4 full, power of two. An entry is 0 (free) or
 *          bits 31..24: tag of the hash · bits 23..0: row + 1. The tag spares a look at the row for 255 of 256 strangers.
 *   rows   Uint32Array, two per row: hash · start of the name in the arena
 *   arena  names one after another, each behind its length byte
 *
 * The place in the index comes from the top bits of the hash times an odd constant (Knuth, TAOCP 6.4, multiplicative hashing), because
 * the low bits of the hash are the slot and so are equal for every subject of a table that holds one slot.
 */
const ROW_BITS = 24;
const ROW_MASK = (1 << ROW_BITS) - 1;
const INDEX_BITS_MIN = 3;
const GOLDEN = 0x9e3779b1;

/** The memory of a table, as it goes to another thread. */
export interface SubjectTableColumns {
  readonly index: Int32Array<ArrayBuffer>;
  readonly indexBits: number;
  readonly rows: Uint32Array<ArrayBuffer>;
  readonly arena: Uint8Array<ArrayBuffer>;
  readonly arenaUsed: number;
  readonly size: number;
}

export class SubjectTable {
  #index: Int32Array<ArrayBuffer>;
  /** log2 of the length of the index. */
  #indexBits: number;
  #rows: Uint32Array<ArrayBuffer>;
  #arena: Uint8Array<ArrayBuffer>;
  #arenaUsed = 0;
  #size = 0;

  /** `rowsExpected`, `nameBytesExpected`: room made at once (a restored snapshot knows both). */
  constructor(rowsExpected = 4, nameBytesExpected = rowsExpected * 16) {
    this.#indexBits = INDEX_BITS_MIN;
    while (rowsExpected * 4 > 3 << this.#indexBits) this.#indexBits += 1;
    this.#index = new Int32Array(1 << this.#indexBits);
    this.#rows = new Uint32Array(Math.max(1, rowsExpected) * 2);
    this.#arena = new Uint8Array(Math.max(1, nameBytesExpected + rowsExpected));
  }

  /** The table whose columns these were. */
  static of(columns: SubjectTableColumns): SubjectTable {
    const table = new SubjectTable(0, 0);
    assert(columns.index.length === 1 << columns.indexBits, 'the columns are not those of a table');
    table.#index = columns.index;
    table.#indexBits = columns.indexBits;
    table.#rows = columns.rows;
    table.#arena = columns.arena;
    table.#arenaUsed = columns.arenaUsed;
    table.#size = columns.size;
    return table;
  }

  columns(): SubjectTableColumns {
    return {
      index: this.#index,
      indexBits: this.#indexBits,
      rows: this.#rows,
      arena: this.#arena,
      arenaUsed: this.#arenaUsed,
      size: this.#size,
    };
  }

  /** Number of rows. */
  get size(): number {
    return this.#size;
  }

  /** Bytes of all names, without their length bytes. */
  get nameBytes(): number {
    return this.#arenaUsed - this.#size;
  }

  /** Row of the subject in bytes[start, end), or -1. `hash` is its subjectHash. */
  find(bytes: Uint8Array, start: number, end: number, hash: number): number {
    const product = Math.imul(hash, GOLDEN);
    const bits = this.#indexBits;
    const mask = (1 << bits) - 1;
    const tag = product << bits;
    const index = this.#index;
    let place = product >>> (32 - bits);
    for (;;) {
      const entry = index[place] as number;
      if (entry === 0) return -1;
      if ((entry ^ tag) >>> ROW_BITS === 0) {
        const row = (entry & ROW_MASK) - 1;
        if (this.#rows[row * 2] === hash && this.#nameIs(row, bytes, start, end)) return row;
      }
      place = (place + 1) & mask;
    }
  }

  /** Adds a subject that is not there (asserted) and returns its row, which is the old `size`. */
  insert(bytes: Uint8Array, start: number, end: number, hash: number): number {
    const length = end - start;
    assert(length >= 1 && length <= SUBJECT_BYTES_MAX, () => `subject of ${length} bytes`);
    assert(hash >>> 0 === hash, () => `hash ${hash} is not an unsigned 32-bit integer`);
    assert(this.find(bytes, start, end, hash) < 0, 'subject is in the table already');
    const row = this.#size;
    this.#reserve(row + 1, this.#arenaUsed + 1 + length);
    this.#rows[row * 2] = hash;
    this.#rows[row * 2 + 1] = this.#arenaUsed;
    this.#arena[this.#arenaUsed] = length;
    const nameStart = this.#arenaUsed + 1;
    for (let i = 0; i < length; i++) this.#arena[nameStart + i] = bytes[start + i] as number;
    this.#arenaUsed = nameStart + length;
    this.#size = row + 1;
    this.#place(row, hash);
    return row;
  }

  /** Hash of a row. */
  hashAt(row: number): number {
    assert(row >= 0 && row < this.#size, () => `row ${row} of ${this.#size}`);
    return this.#rows[row * 2] as number;
  }

  /** The name of a row: a view on the table's memory, valid until the next insert. */
  nameAt(row: number): Uint8Array {
    const start = this.nameStart(row);
    return this.#arena.subarray(start, start + this.nameLength(row));
  }

  /** The arena that `nameStart` points into; another array after an insert. */
  get names(): Uint8Array {
    return this.#arena;
  }

  nameStart(row: number): number {
    assert(row >= 0 && row < this.#size, () => `row ${row} of ${this.#size}`);
    return (this.#rows[row * 2 + 1] as number) + 1;
  }

  nameLength(row: number): number {
    return this.#arena[this.nameStart(row) - 1] as number;
  }

  /** Memory held, in bytes, without the few objects themselves. */
  byteLength(): number {
    return this.#index.byteLength + this.#rows.byteLength + this.#arena.byteLength;
  }

  #nameIs(row: number, bytes: Uint8Array, start: number, end: number): boolean {
    const arena = this.#arena;
    let at = this.#rows[row * 2 + 1] as number;
    if (arena[at] !== end - start) return false;
    for (let i = start; i < end; i++) {
      at += 1;
      if (arena[at] !== bytes[i]) return false;
    }
    return true;
  }

  #place(row: number, hash: number): void {
    const product = Math.imul(hash, GOLDEN);
    const bits = this.#indexBits;
    const mask = (1 << bits) - 1;
    let place = product >>> (32 - bits);
    while (this.#index[place] !== 0) place = (place + 1) & mask;
    this.#index[place] = ((product << bits) & ~ROW_MASK) | (row + 1);
  }

  #reserve(rows: number, arenaBytes: number): void {
    if (rows * 2 > this.#rows.length) {
      const grown = new Uint32Array(grownSize(rows) * 2);
      grown.set(this.#rows);
      this.#rows = grown;
    }
    if (arenaBytes > this.#arena.length) {
      assert(arenaBytes <= 0xffff_ffff, 'names of a table fill 4 GiB');
      const grown = new Uint8Array(grownSize(arenaBytes));
      grown.set(this.#arena);
      this.#arena = grown;
    }
    if (rows * 4 > this.#index.length * 3) {
      this.#indexBits += 1;
      assert(this.#indexBits <= ROW_BITS, 'a table holds at most 3/4 of 2^24 subjects');
      this.#index = new Int32Array(1 << this.#indexBits);
      for (let row = 0; row < this.#size; row++) this.#place(row, this.#rows[row * 2] as number);
    }
  }
}

/** A quarter as much again, so that at most a fifth of a column is empty: the tables are the memory that stays, growth is rare. */
export function grownSize(needed: number): number {
  return needed + (needed >>> 2) + 4;
}

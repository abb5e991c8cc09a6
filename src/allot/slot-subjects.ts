import { assert } from '../base/assert.ts';
import { SLOT_COUNT } from '../base/subject.ts';
import { grownSize, SubjectTable } from '../base/subject-table.ts';

/** What is known of a subject for ever, beside its ids. Frozen: stored in snapshots. */
export const SubjectFlag = { EVER_EXPIRES: 1, VOID_RANGE: 2 } as const;

/** Rows per slot, so that (slot, row) fits 32 bits. */
const ROWS_MAX = 0x1_0000_0000 / SLOT_COUNT;

/** Columns of a row: 32 bytes, numbers and words over the same memory. */
const NUMBERS = 4;
const WORDS = 8;
const HEAD = 0;
const SETTLED = 1;
const FIRST = 2;
const TAIL_WORD = 6;
const FLAGS_WORD = 7;

/** Ids that are void for ever, recorded by `cluster recover`. */
export interface VoidRange {
  readonly from: number;
  readonly to: number;
}

/** The columns of one slot's subjects. */
export class SubjectColumns {
  #numbers: Float64Array;
  #words: Uint32Array;
  /** By row; null until `cluster recover` has been here. */
  voidRanges: Map<number, VoidRange> | null = null;

  constructor(rows: number) {
    this.#numbers = new Float64Array(rows * NUMBERS);
    this.#words = new Uint32Array(this.#numbers.buffer);
  }

  /** Overwrites rows [at, at + to - from) with the columns (not the void ranges) of rows [from, to) of `source`. */
  copyRows(source: SubjectColumns, from: number, to: number, at: number): void {
    for (let i = from * NUMBERS, k = at * NUMBERS; i < to * NUMBERS; i++, k++) {
      this.#numbers[k] = source.#numbers[i] as number;
    }
  }

  head(row: number): number {
    return this.#numbers[row * NUMBERS + HEAD] as number;
  }

  setHead(row: number, head: number): void {
    this.#numbers[row * NUMBERS + HEAD] = head;
  }

  settled(row: number): number {
    return this.#numbers[row * NUMBERS + SETTLED] as number;
  }

  setSettled(row: number, settled: number): void {
    this.#numbers[row * NUMBERS + SETTLED] = settled;
  }

  first(row: number): number {
    return this.#numbers[row * NUMBERS + FIRST] as number;
  }

  setFirst(row: number, first: number): void {
    this.#numbers[row * NUMBERS + FIRST] = first;
  }

  /** Last slot of the subject's ring of allotments, 0 if everything is settled. */
  tail(row: number): number {
    return this.#words[row * WORDS + TAIL_WORD] as number;
  }

  setTail(row: number, slot: number): void {
    this.#words[row * WORDS + TAIL_WORD] = slot;
  }

  flags(row: number): number {
    return this.#words[row * WORDS + FLAGS_WORD] as number;
  }

  addFlags(row: number, flags: number): void {
    const word = row * WORDS + FLAGS_WORD;
    this.#words[word] = (this.#words[word] as number) | flags;
  }

  /** Ids above the store's highest are void up to the new head, which is settled (`cluster recover`). */
  recover(row: number, storeHighest: number, head: number): void {
    this.voidRanges ??= new Map();
    this.voidRanges.set(row, { from: storeHighest + 1, to: head });
    // The messages that the store kept may have expired: nobody remembers.
    this.addFlags(row, SubjectFlag.VOID_RANGE | SubjectFlag.EVER_EXPIRES);
    this.setHead(row, head);
    this.setSettled(row, head);
  }

  /** Sets up row `row`, which is the first behind those in use: everything up to `head` is settled. */
  protected initialise(row: number, head: number): void {
    if ((row + 1) * NUMBERS > this.#numbers.length) {
      const grown = new Float64Array(grownSize(row + 1) * NUMBERS);
      grown.set(this.#numbers);
      this.#numbers = grown;
      this.#words = new Uint32Array(grown.buffer);
    }
    this.#numbers[row * NUMBERS + HEAD] = head;
    this.#numbers[row * NUMBERS + SETTLED] = head;
    this.#numbers[row * NUMBERS + FIRST] = 1;
  }

  byteLength(): number {
    return this.#numbers.byteLength;
  }
}

/** The subjects of one slot, in the order in which they were first published to. */
export class SlotSubjects extends SubjectColumns {
  readonly names: SubjectTable;

  constructor(rowsExpected = 4, nameBytesExpected = rowsExpected * 16) {
    super(Math.max(1, rowsExpected));
    this.names = new SubjectTable(rowsExpected, nameBytesExpected);
  }

  get size(): number {
    return this.names.size;
  }

  override byteLength(): number {
    return this.names.byteLength() + super.byteLength();
  }

  insert(bytes: Uint8Array, start: number, end: number, hash: number, head: number): number {
    const row = this.names.insert(bytes, start, end, hash);
    assert(row < ROWS_MAX, 'too many subjects in one slot');
    this.initialise(row, head);
    return row;
  }
}

import { ByteWriter } from '../base/bytes.ts';
import { type AllotState, subjectNumber } from './allot-state.ts';
import { type SlotSubjects, SubjectColumns, type VoidRange } from './slot-subjects.ts';
import { writeAllotments } from './snapshot-format.ts';

/**
 * Rows that are copied together: few enough that an entry which touches every slot copies little, enough that there are few copies.
 */
const BLOCK_BITS = 7;
const BLOCK_ROWS = 1 << BLOCK_BITS;
/** More blocks than a slot can have rows for. */
const BLOCK_SPAN = 1 << 16;
/** Rows of one piece of the arena (512 KiB). */
const PIECE_ROWS = 16_384;

/**
 * Subjects as they were when a snapshot began, in blocks of rows of a slot, each copied before its first change. Names need no copy: they
 * are only appended. Copies lie one after another in large pieces of memory, so that freezing makes no garbage.
 */
export class FrozenRows {
  readonly #state: AllotState;
  readonly #scratch = new ByteWriter(256);
  /** Where a block's copy begins, in rows of the arena. Key: slot * BLOCK_SPAN + block. */
  readonly #starts = new Map<number, number>();
  readonly #pieces: SubjectColumns[] = [];
  #used = 0;
  /** Of the copied rows that have them, by subject number: encoded allotments and void ranges. */
  readonly #allotments = new Map<number, Uint8Array>();
  readonly #voidRanges = new Map<number, VoidRange>();

  constructor(state: AllotState) {
    this.#state = state;
  }

  /** Where the copy of a row is, for `columns`; -1 if its block has not changed since. */
  placeOf(slot: number, row: number): number {
    const start = this.#starts.get(slot * BLOCK_SPAN + (row >>> BLOCK_BITS));
    return start === undefined ? -1 : start + (row & (BLOCK_ROWS - 1));
  }

  /** The columns that hold a place; its row there is `place % PIECE_ROWS`. */
  columns(place: number): SubjectColumns {
    return this.#pieces[Math.floor(place / PIECE_ROWS)] as SubjectColumns;
  }

  rowIn(place: number): number {
    return place % PIECE_ROWS;
  }

  /** The u32 number of unresolved ones, then the encoded allotments of a row whose copy has some. */
  allotments(slot: number, row: number): Uint8Array | undefined {
    return this.#allotments.get(subjectNumber(slot, row));
  }

  voidRange(slot: number, row: number): VoidRange | undefined {
    return this.#voidRanges.get(subjectNumber(slot, row));
  }

  /** Copies the block of a row, unless that is done. `rows`: how many the slot had when the snapshot began. */
  freeze(number: number, row: number, rows: number): void {
    const block = row >>> BLOCK_BITS;
    const key = number * BLOCK_SPAN + block;
    if (this.#starts.has(key)) return;
    const slot = this.#state.slots[number] as SlotSubjects;
    const from = block * BLOCK_ROWS;
    const to = Math.min(from + BLOCK_ROWS, rows);
    this.#starts.set(key, this.#copy(slot, from, to));
    for (let each = from; each < to; each++) {
      const tail = slot.tail(each);
      if (tail !== 0) this.#allotments.set(subjectNumber(number, each), this.#encode(tail));
      const range = slot.voidRanges?.get(each);
      if (range !== undefined) this.#voidRanges.set(subjectNumber(number, each), range);
    }
  }

  #copy(slot: SlotSubjects, from: number, to: number): number {
    // A block never lies across two pieces.
    if ((this.#used % PIECE_ROWS) + to - from > PIECE_ROWS) this.#used = this.#pieces.length * PIECE_ROWS;
    if (this.#used === this.#pieces.length * PIECE_ROWS) this.#pieces.push(new SubjectColumns(PIECE_ROWS));
    const place = this.#used;
    this.columns(place).copyRows(slot, from, to, this.rowIn(place));
    this.#used += to - from;
    return place;
  }

  #encode(tail: number): Uint8Array {
    const scratch = this.#scratch;
    scratch.clear();
    scratch.uint32(0);
    scratch.patchUint32(0, writeAllotments(scratch, this.#state.pool, tail));
    return scratch.toBytes();
  }
}

import { assert } from '../base/assert.ts';

/** Ids [from, to). */
export interface IdRange {
  readonly from: number;
  readonly to: number;
}

/** Of one subject and kind; a subject that has lost more is told by these. */
const RANGES_MAX = 1_000;

/**
 * The ids of one subject that must have a batch or a mark, [first, settled], held against what the store has of them, item by item in the
 * order of ids. Pure: what is missing may have been given up meanwhile, which only the log knows.
 */
export class IdWalk {
  readonly missing: IdRange[] = [];
  readonly damaged: IdRange[] = [];
  readonly twice: IdRange[] = [];
  batches = 0;
  messages = 0;
  voids = 0;
  readonly #settled: number;
  /** Below it every id was met or is noted as missing. */
  #expected: number;
  /** Below it, down to the first item, every id was met. */
  #covered = 0;

  constructor(first: number, settled: number) {
    this.#expected = first;
    this.#settled = settled;
  }

  meet(kind: 'data' | 'void' | 'damaged', from: number, to: number): void {
    assert(to > from, 'an item has no ids');
    if (from > this.#expected) note(this.missing, this.#expected, Math.min(from, this.#settled + 1));
    if (from < this.#covered) note(this.twice, from, Math.min(to, this.#covered));
    if (kind === 'damaged') note(this.damaged, from, to);
    else if (kind === 'void') this.voids += to - from;
    else {
      this.batches += 1;
      this.messages += to - from;
    }
    this.#covered = Math.max(this.#covered, to);
    this.#expected = Math.max(this.#expected, to);
  }

  /** Nothing more comes. */
  end(): void {
    if (this.#expected <= this.#settled) note(this.missing, this.#expected, this.#settled + 1);
    this.#expected = this.#settled + 1;
  }

  get isClean(): boolean {
    return this.missing.length + this.damaged.length + this.twice.length === 0;
  }
}

function note(ranges: IdRange[], from: number, to: number): void {
  if (from < to && ranges.length < RANGES_MAX) ranges.push({ from, to });
}

import { assert } from '../base/assert.ts';
import { grownSize } from '../base/subject-table.ts';
import { AllotVerdict } from './verdicts.ts';

/**
 * Allotments above `settled`, as slots of two typed arrays: no object per allotment. Slot 0 is "none".
 *
 *   numbers  f64 x 3: base · end (last id) · opened at (log time, ms)
 *   words    u32 x 12: see Word
 *
 * A subject's slots form a ring in id order: the subject keeps the tail, and tail.next is the first. They cover (settled, head] without
 * a gap. Neighbours that are both stored or both void are merged, so a ring is never longer than twice its unresolved slots plus one.
 * Unresolved slots (open or revoked) are also on the list of their node, in the order of opening.
 */
const NUMBERS = 3;
const WORDS = 12;

const Word = {
  STATE: 0,
  NEXT: 1,
  /** Subject: row * SLOT_COUNT + slot. */
  SUBJECT: 2,
  NODE: 3,
  INCARNATION_LOW: 4,
  INCARNATION_HIGH: 5,
  SHARD: 6,
  COUNTER: 7,
  EXPIRY: 8,
  BYTES: 9,
  NODE_PREVIOUS: 10,
  NODE_NEXT: 11,
} as const;

export class AllotmentPool {
  #numbers = new Float64Array(64 * NUMBERS);
  #words = new Uint32Array(64 * WORDS);
  #used = 1;
  #free = 0;
  #size = 0;

  /** Slots in use. */
  get size(): number {
    return this.#size;
  }

  byteLength(): number {
    return this.#numbers.byteLength + this.#words.byteLength;
  }

  take(subject: number, base: number, end: number, state: number): number {
    let slot = this.#free;
    if (slot !== 0) {
      this.#free = this.next(slot);
    } else {
      slot = this.#used;
      this.#used += 1;
      if (this.#used * WORDS > this.#words.length) this.#grow();
    }
    this.#size += 1;
    const number = slot * NUMBERS;
    this.#numbers[number] = base;
    this.#numbers[number + 1] = end;
    this.#numbers[number + 2] = 0;
    const word = slot * WORDS;
    this.#words.fill(0, word, word + WORDS);
    this.#words[word + Word.STATE] = state;
    this.#words[word + Word.SUBJECT] = subject;
    return slot;
  }

  /** Who opened it and what for. */
  describe(
    slot: number,
    openedAt: number,
    incarnationLow: number,
    incarnationHigh: number,
    shard: number,
    counter: number,
    expiry: number,
    bytes: number,
  ): void {
    this.#numbers[slot * NUMBERS + 2] = openedAt;
    const word = slot * WORDS;
    this.#words[word + Word.INCARNATION_LOW] = incarnationLow;
    this.#words[word + Word.INCARNATION_HIGH] = incarnationHigh;
    this.#words[word + Word.SHARD] = shard;
    this.#words[word + Word.COUNTER] = counter;
    this.#words[word + Word.EXPIRY] = expiry;
    this.#words[word + Word.BYTES] = bytes;
  }

  give(slot: number): void {
    const word = slot * WORDS;
    assert(slot !== 0 && this.#words[word + Word.STATE] !== 0, 'slot is free already');
    this.#words[word + Word.STATE] = 0;
    this.#words[word + Word.NEXT] = this.#free;
    this.#free = slot;
    this.#size -= 1;
  }

  base(slot: number): number {
    return this.#numbers[slot * NUMBERS] as number;
  }

  end(slot: number): number {
    return this.#numbers[slot * NUMBERS + 1] as number;
  }

  setEnd(slot: number, end: number): void {
    this.#numbers[slot * NUMBERS + 1] = end;
  }

  openedAt(slot: number): number {
    return this.#numbers[slot * NUMBERS + 2] as number;
  }

  state(slot: number): number {
    return this.#words[slot * WORDS + Word.STATE] as number;
  }

  setState(slot: number, state: number): void {
    this.#words[slot * WORDS + Word.STATE] = state;
  }

  isUnresolved(slot: number): boolean {
    const state = this.state(slot);
    return state === AllotVerdict.OPEN || state === AllotVerdict.REVOKED;
  }

  next(slot: number): number {
    return this.#words[slot * WORDS + Word.NEXT] as number;
  }

  setNext(slot: number, next: number): void {
    this.#words[slot * WORDS + Word.NEXT] = next;
  }

  subject(slot: number): number {
    return this.#words[slot * WORDS + Word.SUBJECT] as number;
  }

  node(slot: number): number {
    return this.#words[slot * WORDS + Word.NODE] as number;
  }

  setNode(slot: number, node: number): void {
    this.#words[slot * WORDS + Word.NODE] = node;
  }

  incarnationLow(slot: number): number {
    return this.#words[slot * WORDS + Word.INCARNATION_LOW] as number;
  }

  incarnationHigh(slot: number): number {
    return this.#words[slot * WORDS + Word.INCARNATION_HIGH] as number;
  }

  shard(slot: number): number {
    return this.#words[slot * WORDS + Word.SHARD] as number;
  }

  counter(slot: number): number {
    return this.#words[slot * WORDS + Word.COUNTER] as number;
  }

  /** As the OPEN had it: expiryWord of commands.ts. */
  expiry(slot: number): number {
    return this.#words[slot * WORDS + Word.EXPIRY] as number;
  }

  bytes(slot: number): number {
    return this.#words[slot * WORDS + Word.BYTES] as number;
  }

  nodePrevious(slot: number): number {
    return this.#words[slot * WORDS + Word.NODE_PREVIOUS] as number;
  }

  nodeNext(slot: number): number {
    return this.#words[slot * WORDS + Word.NODE_NEXT] as number;
  }

  setNodePrevious(slot: number, other: number): void {
    this.#words[slot * WORDS + Word.NODE_PREVIOUS] = other;
  }

  setNodeNext(slot: number, other: number): void {
    this.#words[slot * WORDS + Word.NODE_NEXT] = other;
  }

  #grow(): void {
    const slots = grownSize(this.#used);
    const numbers = new Float64Array(slots * NUMBERS);
    numbers.set(this.#numbers);
    this.#numbers = numbers;
    const words = new Uint32Array(slots * WORDS);
    words.set(this.#words);
    this.#words = words;
  }
}

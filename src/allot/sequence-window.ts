import { assert } from '../base/assert.ts';

/** Sequences of a producer that are remembered: its highest and the 1,023 below (design section 3, promise 7). */
export const WINDOW_SEQUENCES = 1024;

/** Columns of an entry: 24 bytes, numbers and words over the same memory. */
const NUMBERS = 3;
const WORDS = 6;
const FIRST_ID = 0;
const SEQUENCE_LOW_WORD = 2;
const SUBJECT_WORD = 3;
const COUNT_WORD = 4;
const CHECKSUM_WORD = 5;

/**
 * The latest sequences of one producer with the ids they were given. Entry of sequence s: s modulo the capacity, a power of two that
 * doubles while two remembered sequences meet, up to 1,024, where they cannot. An entry whose first id is 0 is free. Entries that
 * the window has left are cleared at once, so the low half of the sequence is enough to tell two apart.
 */
export class SequenceWindow {
  /** Highest sequence seen, 0 if none. */
  last = 0;
  /** Entries in use. */
  size = 0;
  #capacity: number;
  #numbers: Float64Array;
  #words: Uint32Array;

  constructor(capacity = 2) {
    this.#capacity = capacity;
    this.#numbers = new Float64Array(capacity * NUMBERS);
    this.#words = new Uint32Array(this.#numbers.buffer);
  }

  byteLength(): number {
    return this.#numbers.byteLength;
  }

  clone(): SequenceWindow {
    const copy = new SequenceWindow(1);
    copy.last = this.last;
    copy.size = this.size;
    copy.#capacity = this.#capacity;
    copy.#numbers = this.#numbers.slice();
    copy.#words = new Uint32Array(copy.#numbers.buffer);
    return copy;
  }

  /** Whether the window has moved past the sequence. */
  isBelow(sequence: number): boolean {
    return sequence <= this.last - WINDOW_SEQUENCES;
  }

  /** Entry of a sequence, or -1 if it is not remembered. */
  find(sequence: number): number {
    // Outside the window another sequence may have the same low half.
    if (sequence > this.last || this.isBelow(sequence)) return -1;
    const entry = sequence % this.#capacity;
    if (this.#numbers[entry * NUMBERS + FIRST_ID] === 0) return -1;
    return this.#words[entry * WORDS + SEQUENCE_LOW_WORD] === sequence >>> 0 ? entry : -1;
  }

  firstId(entry: number): number {
    return this.#numbers[entry * NUMBERS + FIRST_ID] as number;
  }

  subject(entry: number): number {
    return this.#words[entry * WORDS + SUBJECT_WORD] as number;
  }

  count(entry: number): number {
    return this.#words[entry * WORDS + COUNT_WORD] as number;
  }

  checksum(entry: number): number {
    return this.#words[entry * WORDS + CHECKSUM_WORD] as number;
  }

  /** Remembers a sequence that is not there and not below the window. */
  put(sequence: number, firstId: number, subject: number, count: number, checksum: number): void {
    assert(!this.isBelow(sequence) && this.find(sequence) < 0, 'sequence is below the window or in it');
    assert(firstId >= 1, 'ids begin with 1');
    if (sequence > this.last) this.#advance(sequence);
    while (this.#numbers[(sequence % this.#capacity) * NUMBERS + FIRST_ID] !== 0) this.#grow();
    this.#write(sequence, firstId, subject, count, checksum);
    this.size += 1;
  }

  /** Forgets a sequence if it still stands for these ids. */
  forget(sequence: number, firstId: number, subject: number): void {
    const entry = this.find(sequence);
    if (entry < 0 || this.firstId(entry) !== firstId || this.subject(entry) !== subject) return;
    this.#numbers[entry * NUMBERS + FIRST_ID] = 0;
    this.size -= 1;
  }

  #advance(sequence: number): void {
    const passed = sequence - this.last;
    if (passed >= WINDOW_SEQUENCES) {
      this.#numbers.fill(0);
      this.size = 0;
    } else {
      const lowest = Math.max(1, this.last - WINDOW_SEQUENCES + 1);
      for (let left = lowest; left <= sequence - WINDOW_SEQUENCES; left++) {
        const entry = this.find(left);
        if (entry < 0) continue;
        this.#numbers[entry * NUMBERS + FIRST_ID] = 0;
        this.size -= 1;
      }
    }
    this.last = sequence;
  }

  #write(sequence: number, firstId: number, subject: number, count: number, checksum: number): void {
    const entry = sequence % this.#capacity;
    this.#numbers[entry * NUMBERS + FIRST_ID] = firstId;
    const word = entry * WORDS;
    this.#words[word + SEQUENCE_LOW_WORD] = sequence >>> 0;
    this.#words[word + SUBJECT_WORD] = subject;
    this.#words[word + COUNT_WORD] = count;
    this.#words[word + CHECKSUM_WORD] = checksum;
  }

  #grow(): void {
    assert(this.#capacity < WINDOW_SEQUENCES, 'two sequences of one window share an entry');
    const old = this.#numbers;
    this.#capacity *= 2;
    this.#numbers = new Float64Array(this.#capacity * NUMBERS);
    const oldWords = this.#words;
    this.#words = new Uint32Array(this.#numbers.buffer);
    // The low half of a sequence is enough to find its place: capacities are powers of two.
    for (let entry = 0; entry * NUMBERS < old.length; entry++) {
      const firstId = old[entry * NUMBERS + FIRST_ID] as number;
      if (firstId === 0) continue;
      const word = entry * WORDS;
      this.#write(
        oldWords[word + SEQUENCE_LOW_WORD] as number,
        firstId,
        oldWords[word + SUBJECT_WORD] as number,
        oldWords[word + COUNT_WORD] as number,
        oldWords[word + CHECKSUM_WORD] as number,
      );
    }
  }
}

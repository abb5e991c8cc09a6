import { assert } from '../base/assert.ts';

/**
 * Named numbers in shared memory with one writing thread; the main thread reads them when it is scraped. Plain loads
 * and stores: an aligned 64-bit slot is not torn by the CPUs we run on, and a reader that is late by a few adds is as
 * good as a scrape a moment earlier.
 */
export class CounterBlock {
  readonly names: readonly string[];
  readonly buffer: SharedArrayBuffer;
  readonly #slots: Float64Array;

  /** Both sides pass the same names; the second one also the first one's `buffer`. */
  constructor(names: readonly string[], buffer?: SharedArrayBuffer) {
    assert(new Set(names).size === names.length, 'counters: a name occurs twice');
    const bytes = CounterBlock.byteLength(names);
    this.names = names;
    this.buffer = buffer ?? new SharedArrayBuffer(bytes);
    assert(this.buffer.byteLength === bytes, 'counters: the buffer was made for other names');
    this.#slots = new Float64Array(this.buffer);
  }

  static byteLength(names: readonly string[]): number {
    return names.length * Float64Array.BYTES_PER_ELEMENT;
  }

  /** For set-up; hot paths keep the index. */
  indexOf(name: string): number {
    const index = this.names.indexOf(name);
    assert(index >= 0, () => `counters: no slot is called ${name}`);
    return index;
  }

  add(index: number, amount: number): void {
    this.#slots[index] = (this.#slots[index] as number) + amount;
  }

  set(index: number, value: number): void {
    this.#slots[index] = value;
  }

  get(index: number): number {
    assert(index >= 0 && index < this.#slots.length, 'counters: no such slot');
    return this.#slots[index] as number;
  }
}

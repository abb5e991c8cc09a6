import { assert } from './assert.ts';

/**
 * The `capacity` first of many things, in the order of `compare` (negative: the first argument comes first), without sorting or keeping the
 * others: a heap whose root is the last of those kept. Equal ones stay in no particular order.
 */
export class TopK<T> {
  readonly #capacity: number;
  readonly #compare: (a: T, b: T) => number;
  readonly #heap: T[] = [];

  constructor(capacity: number, compare: (a: T, b: T) => number) {
    assert(capacity >= 1, 'the first of many things are at least one');
    this.#capacity = capacity;
    this.#compare = compare;
  }

  offer(item: T): void {
    const heap = this.#heap;
    if (heap.length < this.#capacity) {
      heap.push(item);
      this.#rise(heap.length - 1);
    } else if (this.#compare(item, heap[0] as T) < 0) {
      heap[0] = item;
      this.#sink();
    }
  }

  /** Those that are kept, first one first. */
  sorted(): T[] {
    return [...this.#heap].sort(this.#compare);
  }

  #rise(from: number): void {
    const heap = this.#heap;
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.#compare(heap[at] as T, heap[parent] as T) <= 0) return;
      this.#swap(at, parent);
      at = parent;
    }
  }

  #sink(): void {
    const heap = this.#heap;
    let at = 0;
    for (;;) {
      let last = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if (child < heap.length && this.#compare(heap[child] as T, heap[last] as T) > 0) last = child;
      }
      if (last === at) return;
      this.#swap(at, last);
      at = last;
    }
  }

  #swap(a: number, b: number): void {
    const item = this.#heap[a] as T;
    this.#heap[a] = this.#heap[b] as T;
    this.#heap[b] = item;
  }
}

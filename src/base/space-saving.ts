import { assert } from './assert.ts';

/** One of the keys that may be the heaviest. */
export interface HeavyKey<Label> {
  readonly key: number;
  readonly label: Label;
  /** At least what was added for the key since it was taken up, at most `count`; `count - error` is certain. */
  readonly count: number;
  readonly error: number;
}

interface Counter<Label> {
  readonly key: number;
  label: Label;
  count: number;
  error: number;
}

/**
 * The Space-Saving sketch (Metwally, Agrawal, El Abbadi, ICDT 2005): `capacity` counters find the heaviest keys of a stream. When all are taken,
 * a new key inherits the smallest counter, and what that held is its error. Every key with more than 1/capacity of the total is among
 * them, and no count is too low.
 */
export class SpaceSaving<Label> {
  readonly #capacity: number;
  readonly #counters = new Map<number, Counter<Label>>();
  #total = 0;

  constructor(capacity: number) {
    assert(capacity >= 1, 'a sketch has at least one counter');
    this.#capacity = capacity;
  }

  /** Sum of all weights added, as decayed. */
  get total(): number {
    return this.#total;
  }

  add(key: number, label: Label, weight: number): void {
    this.#total += weight;
    const known = this.#counters.get(key);
    if (known !== undefined) {
      known.count += weight;
      known.label = label;
      return;
    }
    let floor = 0;
    if (this.#counters.size >= this.#capacity) {
      const smallest = this.#smallest();
      this.#counters.delete(smallest.key);
      floor = smallest.count;
    }
    this.#counters.set(key, { key, label, count: floor + weight, error: floor });
  }

  /** Halves everything, so that the past weighs less than now; called at a steady pace. Counters of less than 1 go. */
  decay(): void {
    this.#total /= 2;
    for (const counter of this.#counters.values()) {
      counter.count /= 2;
      counter.error /= 2;
      if (counter.count < 1) this.#counters.delete(counter.key);
    }
  }

  /** The `limit` heaviest, heaviest first. */
  top(limit: number): HeavyKey<Label>[] {
    return [...this.#counters.values()].sort((a, b) => b.count - a.count).slice(0, limit);
  }

  /** A walk over the counters: it happens only for keys that are not among them, once a batch, and there are few counters. */
  #smallest(): Counter<Label> {
    let smallest: Counter<Label> | null = null;
    for (const counter of this.#counters.values()) {
      if (smallest === null || counter.count < smallest.count) smallest = counter;
    }
    assert(smallest !== null, 'a full sketch has no counters');
    return smallest;
  }
}

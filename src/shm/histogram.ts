import { assert } from '../base/assert.ts';
import type { CounterBlock } from './counters.ts';

/** What is kept apart: `perDoubling` equal parts of each doubling above `smallest`, as in an HDR histogram. */
export interface HistogramShape {
  /** Upper bound of the first bucket, inclusive, in the unit of what is observed. */
  readonly smallest: number;
  /** Parts of each doubling; a value is known to 1 / perDoubling. */
  readonly perDoubling: 1 | 2 | 4 | 8;
  /** 1 to 27. What is above the last one is in one bucket, which has no upper bound. */
  readonly doublings: number;
}

/** Times in microseconds, 62.5 us to 16 s, known to a quarter. */
export const DURATION_SHAPE: HistogramShape = { smallest: 62.5, perDoubling: 4, doublings: 18 };

/** Which bucket a value is in; a bucket has the values <= its limit that are above the limit before. */
export class BucketGrid {
  /** Number of buckets. */
  readonly length: number;
  readonly #part: number;
  readonly #perDoubling: number;
  readonly #shift: number;
  readonly #stepsMax: number;

  constructor({ smallest, perDoubling, doublings }: HistogramShape) {
    assert(smallest > 0 && doublings >= 1 && doublings <= 27, 'histogram: 1 to 27 doublings above 0');
    this.length = perDoubling * doublings + 2;
    this.#part = smallest / perDoubling;
    this.#perDoubling = perDoubling;
    this.#shift = Math.log2(perDoubling);
    this.#stepsMax = perDoubling * 2 ** doublings;
  }

  bucketOf(value: number): number {
    const steps = Math.ceil(value / this.#part);
    if (steps <= this.#perDoubling) return 0;
    if (!(steps <= this.#stepsMax)) return this.length - 1;
    const doubling = 31 - Math.clz32(steps - 1) - this.#shift;
    // In front of it: the first bucket, and all parts of the doublings before; ((steps - 1) >> doubling) - perDoubling is the part.
    return 1 + (doubling - 1) * this.#perDoubling + ((steps - 1) >> doubling);
  }

  /** Inclusive upper bound; Infinity for the last bucket. */
  limitOf(bucket: number): number {
    assert(bucket >= 0 && bucket < this.length, 'histogram: no such bucket');
    if (bucket === this.length - 1) return Number.POSITIVE_INFINITY;
    if (bucket === 0) return this.#part * this.#perDoubling;
    const doubling = Math.floor((bucket - 1) / this.#perDoubling);
    const part = (bucket - 1) % this.#perDoubling;
    return (this.#perDoubling + part + 1) * 2 ** doubling * this.#part;
  }
}

/** Slots in front of the buckets. */
const COUNT_SLOT = 0;
const SUM_SLOT = 1;
const BUCKET_SLOT = 2;

/**
 * A histogram in consecutive slots of a CounterBlock: count, sum, buckets. `observe` is a few adds, so it may be called per group or per read; it
 * becomes a Prometheus histogram, with fewer buckets, when it is scraped.
 */
export class SharedHistogram {
  readonly grid: BucketGrid;
  readonly #block: CounterBlock;
  readonly #first: number;

  /** `name`: as given to `slotNames`. */
  constructor(block: CounterBlock, name: string, shape: HistogramShape) {
    this.grid = new BucketGrid(shape);
    this.#block = block;
    this.#first = block.indexOf(`${name}_count`);
    const last = this.#first + BUCKET_SLOT + this.grid.length - 1;
    assert(block.names[last] === `${name}_bucket_${this.grid.length - 1}`, 'histogram: not enough slots');
  }

  /** The slots that a histogram takes, in order, for the names of a CounterBlock. */
  static slotNames(name: string, shape: HistogramShape): string[] {
    const { length } = new BucketGrid(shape);
    return [`${name}_count`, `${name}_sum`, ...Array.from({ length }, (_, bucket) => `${name}_bucket_${bucket}`)];
  }

  observe(value: number): void {
    this.#block.add(this.#first + COUNT_SLOT, 1);
    this.#block.add(this.#first + SUM_SLOT, value);
    this.#block.add(this.#first + BUCKET_SLOT + this.grid.bucketOf(value), 1);
  }

  get count(): number {
    return this.#block.get(this.#first + COUNT_SLOT);
  }

  get sum(): number {
    return this.#block.get(this.#first + SUM_SLOT);
  }

  /** Observations in this bucket alone. */
  bucketCount(bucket: number): number {
    assert(bucket >= 0 && bucket < this.grid.length, 'histogram: no such bucket');
    return this.#block.get(this.#first + BUCKET_SLOT + bucket);
  }
}

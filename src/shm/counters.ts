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

export interface Log2Shape {
  /** Upper bound of the first bucket, inclusive, in the unit of what is observed. Bucket i ends at smallest * 2^i. */
  readonly smallest: number;
  /** Number of buckets, 2 to 32; the last one has no upper bound. */
  readonly buckets: number;
}

/** Slots in front of the buckets. */
const COUNT_SLOT = 0;
const SUM_SLOT = 1;
const BUCKET_SLOT = 2;

/**
 * A histogram with power-of-two buckets in consecutive slots of a CounterBlock: count, sum, buckets. `observe` is a few
 * adds, so it may be called per group or per call; it becomes a Prometheus histogram when it is scraped. A bucket
 * counts values <= its limit that are above the limit before.
 */
export class Log2Histogram {
  readonly shape: Log2Shape;
  readonly #block: CounterBlock;
  readonly #first: number;

  /** `first`: the slot of `${name}_count`, the first of slotNames(). */
  constructor(block: CounterBlock, first: number, shape: Log2Shape) {
    assert(shape.smallest > 0 && shape.buckets >= 2 && shape.buckets <= 32, 'histogram: 2 to 32 buckets above 0');
    assert(first >= 0 && first + BUCKET_SLOT + shape.buckets <= block.names.length, 'histogram: not enough slots');
    this.shape = shape;
    this.#block = block;
    this.#first = first;
  }

  /** The slots that a histogram takes, in order, for the names of a CounterBlock. */
  static slotNames(name: string, shape: Log2Shape): string[] {
    const buckets = Array.from({ length: shape.buckets }, (_, bucket) => `${name}_bucket_${bucket}`);
    return [`${name}_count`, `${name}_sum`, ...buckets];
  }

  static bucketOf(value: number, shape: Log2Shape): number {
    const steps = Math.ceil(value / shape.smallest);
    if (steps <= 1) return 0;
    if (steps > 2 ** (shape.buckets - 2)) return shape.buckets - 1;
    return 32 - Math.clz32(steps - 1);
  }

  observe(value: number): void {
    this.#block.add(this.#first + COUNT_SLOT, 1);
    this.#block.add(this.#first + SUM_SLOT, value);
    this.#block.add(this.#first + BUCKET_SLOT + Log2Histogram.bucketOf(value, this.shape), 1);
  }

  get count(): number {
    return this.#block.get(this.#first + COUNT_SLOT);
  }

  get sum(): number {
    return this.#block.get(this.#first + SUM_SLOT);
  }

  /** Observations in this bucket alone. */
  bucketCount(bucket: number): number {
    assert(bucket >= 0 && bucket < this.shape.buckets, 'histogram: no such bucket');
    return this.#block.get(this.#first + BUCKET_SLOT + bucket);
  }

  /** Inclusive upper bound; Infinity for the last bucket. */
  bucketLimit(bucket: number): number {
    return bucket === this.shape.buckets - 1 ? Number.POSITIVE_INFINITY : this.shape.smallest * 2 ** bucket;
  }
}

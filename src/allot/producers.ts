import { assert } from '../base/assert.ts';
import { SLOT_COUNT, slotOfHash } from '../base/subject.ts';
import { SequenceWindow } from './sequence-window.ts';

/** A producer is forgotten this long after its last publish, in ms of log time (design section 3, promise 7). */
export const PRODUCER_KEEP_MS = 24 * 3600 * 1000;

/** Buckets of producers: the unit of expiry and of snapshots. */
export const BUCKET_COUNT = SLOT_COUNT;

/** What a snapshot in progress still needs of a producer that has changed since. */
export interface FrozenProducer {
  readonly name: Uint8Array;
  readonly lastPublish: number;
  readonly window: SequenceWindow;
}

export class Producer implements FrozenProducer {
  readonly name: Uint8Array;
  readonly hash: number;
  /** Log time of the last publish, ms. */
  lastPublish = 0;
  readonly window: SequenceWindow;
  /** True once forgotten: late news of its allotments must not reach a successor of the same name. */
  gone = false;
  /** Next producer with the same hash. */
  sibling: Producer | null = null;
  /** Neighbours in the bucket, which is ordered by lastPublish. */
  older: Producer | null = null;
  newer: Producer | null = null;
  /** Snapshot that must not show it, because it is younger; see ProducerTable.beginSnapshot. */
  bornIn = 0;
  frozen: FrozenProducer | null = null;

  constructor(name: Uint8Array, hash: number, window: SequenceWindow) {
    this.name = name;
    this.hash = hash;
    this.window = window;
  }
}

interface Bucket {
  oldest: Producer | null;
  newest: Producer | null;
  /** Forgotten since the snapshot in progress began, and not yet in it. */
  graves: FrozenProducer[];
}

/**
 * Producers by id. They are forgotten by log time alone: a look-up treats one that is due as unknown, every entry of the log clears one
 * bucket, and a full table clears the first bucket where one is due. What is cleared when depends on the log only, so replicas agree.
 */
export class ProducerTable {
  readonly #byHash = new Map<number, Producer>();
  readonly #buckets: (Bucket | null)[] = new Array<Bucket | null>(BUCKET_COUNT).fill(null);
  #size = 0;
  /** No producer is due before this log time. A cache, no part of the state. */
  #noneDueBefore = 0;
  /** Number of the snapshot in progress or the last one, and the first bucket it has not written; BUCKET_COUNT = none in progress. */
  #snapshot = 0;
  #unwritten = BUCKET_COUNT;

  get size(): number {
    return this.#size;
  }

  /** The producer named bytes[start, end) if it is known at log time `now`. */
  find(bytes: Uint8Array, start: number, end: number, hash: number, now: number): Producer | null {
    let producer = this.#byHash.get(hash | 0) ?? null;
    while (producer !== null && !nameIs(producer.name, bytes, start, end)) producer = producer.sibling;
    if (producer !== null && isDue(producer, now)) {
      this.#forget(producer);
      return null;
    }
    return producer;
  }

  /** Makes room for a new producer; false if `max` are known at log time `now`. */
  tryMakeRoom(max: number, now: number): boolean {
    if (this.#size < max) return true;
    if (now < this.#noneDueBefore) return false;
    let oldest = Number.POSITIVE_INFINITY;
    for (const bucket of this.#buckets) {
      const producer = bucket?.oldest ?? null;
      if (producer === null) continue;
      if (isDue(producer, now)) {
        this.expire(slotOfHash(producer.hash), now);
        return true;
      }
      oldest = Math.min(oldest, producer.lastPublish);
    }
    this.#noneDueBefore = oldest + PRODUCER_KEEP_MS;
    return false;
  }

  /** Forgets every producer of a bucket that is due at log time `now`. */
  expire(bucket: number, now: number): void {
    const list = this.#buckets[bucket] ?? null;
    if (list === null) return;
    while (list.oldest !== null && isDue(list.oldest, now)) this.#forget(list.oldest);
  }

  /** Adds a producer that is not known. */
  add(name: Uint8Array, hash: number, window = new SequenceWindow()): Producer {
    const producer = new Producer(name, hash, window);
    producer.bornIn = this.#snapshot;
    producer.sibling = this.#byHash.get(hash | 0) ?? null;
    this.#byHash.set(hash | 0, producer);
    this.#size += 1;
    this.#append(producer);
    return producer;
  }

  /** Notes a publish at log time `now`. Call before the window is changed. */
  touch(producer: Producer, now: number): void {
    this.beforeChange(producer);
    this.#detach(producer);
    producer.lastPublish = now;
    this.#append(producer);
  }

  /** Keeps what a snapshot in progress still has to write. */
  beforeChange(producer: Producer): void {
    if (!this.#isWanted(producer) || producer.frozen !== null) return;
    producer.frozen = { name: producer.name, lastPublish: producer.lastPublish, window: producer.window.clone() };
  }

  /** Puts producers just added from a snapshot in the order of their last publish, behind those of the bucket that came before. */
  restoreOrder(found: readonly { readonly producer: Producer; readonly lastPublish: number }[]): void {
    for (const { producer } of found) this.#detach(producer);
    const byAge = [...found].sort((a, b) => a.lastPublish - b.lastPublish);
    for (const { producer, lastPublish } of byAge) {
      const bucket = this.#bucketOf(producer);
      producer.lastPublish = lastPublish;
      let older = bucket.newest;
      while (older !== null && older.lastPublish > lastPublish) older = older.older;
      this.#insertBehind(bucket, producer, older);
    }
  }

  beginSnapshot(): void {
    this.#snapshot += 1;
    this.#unwritten = 0;
  }

  /**
   * The producers that a bucket had when the snapshot began, by name; `asOfSnapshot` says what they were. Buckets are asked for in order,
   * each once, and each is ended by `endBucket`: until then a producer that changes is still copied first.
   */
  beginBucket(number: number): FrozenProducer[] {
    assert(number === this.#unwritten, 'buckets of a snapshot are written in order');
    const bucket = this.#buckets[number] ?? null;
    if (bucket === null) return [];
    const found = [...bucket.graves];
    for (let producer = bucket.oldest; producer !== null; producer = producer.newer) {
      if (producer.bornIn !== this.#snapshot) found.push(producer);
    }
    return found.sort(byName);
  }

  asOfSnapshot(found: FrozenProducer): FrozenProducer {
    return found instanceof Producer ? (found.frozen ?? found) : found;
  }

  /** The bucket is written: lets go of what was kept for it. */
  endBucket(number: number): void {
    assert(number === this.#unwritten, 'buckets of a snapshot are ended in order');
    this.#unwritten += 1;
    const bucket = this.#buckets[number] ?? null;
    if (bucket === null) return;
    bucket.graves = [];
    for (let producer = bucket.oldest; producer !== null; producer = producer.newer) producer.frozen = null;
  }

  /** Lets go of what was kept for a snapshot that nobody will finish. */
  abandonSnapshot(): void {
    while (this.#unwritten < BUCKET_COUNT) this.endBucket(this.#unwritten);
  }

  byteLength(): number {
    let bytes = 0;
    for (const bucket of this.#buckets) {
      for (let producer = bucket?.oldest ?? null; producer !== null; producer = producer.newer) {
        bytes += producer.window.byteLength() + producer.name.length;
      }
    }
    return bytes;
  }

  #isWanted(producer: Producer): boolean {
    return producer.bornIn !== this.#snapshot && slotOfHash(producer.hash) >= this.#unwritten;
  }

  #forget(producer: Producer): void {
    const bucket = this.#detach(producer);
    if (this.#isWanted(producer)) bucket.graves.push(producer.frozen ?? producer);
    producer.gone = true;
    this.#size -= 1;
    const first = this.#byHash.get(producer.hash | 0) ?? null;
    if (first === producer) {
      if (producer.sibling === null) this.#byHash.delete(producer.hash | 0);
      else this.#byHash.set(producer.hash | 0, producer.sibling);
      return;
    }
    let before = first;
    while (before !== null && before.sibling !== producer) before = before.sibling;
    assert(before !== null, 'a producer is not on the list of its hash');
    before.sibling = producer.sibling;
  }

  #append(producer: Producer): void {
    const bucket = this.#bucketOf(producer);
    this.#insertBehind(bucket, producer, bucket.newest);
  }

  #bucketOf(producer: Producer): Bucket {
    const number = slotOfHash(producer.hash);
    let bucket = this.#buckets[number] ?? null;
    if (bucket === null) {
      bucket = { oldest: null, newest: null, graves: [] };
      this.#buckets[number] = bucket;
    }
    return bucket;
  }

  #insertBehind(bucket: Bucket, producer: Producer, older: Producer | null): void {
    const newer = older === null ? bucket.oldest : older.newer;
    producer.older = older;
    producer.newer = newer;
    if (older === null) bucket.oldest = producer;
    else older.newer = producer;
    if (newer === null) bucket.newest = producer;
    else newer.older = producer;
  }

  #detach(producer: Producer): Bucket {
    const bucket = this.#bucketOf(producer);
    if (producer.older === null) bucket.oldest = producer.newer;
    else producer.older.newer = producer.newer;
    if (producer.newer === null) bucket.newest = producer.older;
    else producer.newer.older = producer.older;
    return bucket;
  }
}

function isDue(producer: Producer, now: number): boolean {
  return now - producer.lastPublish >= PRODUCER_KEEP_MS;
}

function nameIs(name: Uint8Array, bytes: Uint8Array, start: number, end: number): boolean {
  if (name.length !== end - start) return false;
  for (let i = 0; i < name.length; i++) {
    if (name[i] !== bytes[start + i]) return false;
  }
  return true;
}

/** Byte order. A loop, because a call into native code costs more than names of this length. */
function byName(a: FrozenProducer, b: FrozenProducer): number {
  const length = Math.min(a.name.length, b.name.length);
  for (let i = 0; i < length; i++) {
    const difference = (a.name[i] as number) - (b.name[i] as number);
    if (difference !== 0) return difference;
  }
  return a.name.length - b.name.length;
}

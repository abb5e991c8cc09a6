import type { ReadResult, StoredItem, SubjectRef } from '../../storage/store.ts';

/** Bounds what the index of many small batches costs: about 150 bytes each, beside the bytes that are kept. */
const BATCHES_MAX = 16_384;

interface Kept {
  readonly name: string;
  readonly base: number;
  /** Exclusive. */
  readonly to: number;
  /** Where it is in the memory. */
  readonly offset: number;
  readonly length: number;
  /** The one that came after it. */
  newer: Kept | null;
}

/**
 * Batches of a database that were written or looked up last, in one ring of memory: what came first gives way. Only what has its verdict
 * and was checked comes in, and such a batch never changes. Whether a message of it is trimmed or has expired is for the reader to judge, as it
 * is of one from the database.
 *
 * Memory that is never reached is never made resident.
 */
export class RecentBatches {
  #bytes = Buffer.alloc(0);
  /** Bytes of memory wanted; taken into account before the next batch is added. */
  #capacity: number;
  /** Where the next batch goes. */
  #next = 0;
  #oldest: Kept | null = null;
  #newest: Kept | null = null;
  #size = 0;
  /** By the bytes of the subject, in base order. */
  readonly #subjects = new Map<string, Kept[]>();

  /** `capacity` in bytes. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#size;
  }

  /** From the next batch on it has another size. What it holds is then forgotten. */
  resize(capacity: number): void {
    this.#capacity = capacity;
  }

  /** Copies the batch, unless it is here or takes more than half of the memory. What `read` returned before is not valid any more. */
  add(subject: SubjectRef, base: number, count: number, bytes: Uint8Array): void {
    if (this.#capacity !== this.#bytes.length) this.#become(this.#capacity);
    const { length } = bytes;
    const name = nameOf(subject);
    const kept = this.#subjects.get(name);
    if (length > this.#capacity / 2 || (kept !== undefined && coveringIndex(kept, base) >= 0)) return;
    const offset = this.#room(length);
    this.#bytes.set(bytes, offset);
    this.#next = offset + length;
    const entry: Kept = { name, base, to: base + count, offset, length, newer: null };
    if (this.#newest === null) this.#oldest = entry;
    else this.#newest.newer = entry;
    this.#newest = entry;
    this.#size += 1;
    // Read again: to make room may have taken the last of the subject.
    const list = this.#subjects.get(name);
    if (list === undefined) this.#subjects.set(name, [entry]);
    else list.splice(lastAtOrBelow(list, base) + 1, 0, entry);
  }

  /**
   * As the store's: the batch with id `from` and what follows it without a gap, as far as it is here; null if it is not. The bytes are valid until
   * the next `add`.
   */
  read(subject: SubjectRef, from: number, until: number, maxBytes: number): ReadResult | null {
    const kept = this.#subjects.get(nameOf(subject));
    if (kept === undefined) return null;
    const items: StoredItem[] = [];
    let bytes = 0;
    let next = from;
    for (let at = coveringIndex(kept, from); at >= 0; at = kept[at + 1]?.base === next ? at + 1 : -1) {
      const { base, to, offset, length } = kept[at] as Kept;
      items.push({ kind: 'data', from: base, to, base, bytes: this.#bytes.subarray(offset, offset + length) });
      bytes += length;
      next = to;
      if (next > until || bytes >= maxBytes) break;
    }
    return items.length === 0 ? null : { items, next: Math.min(next, until + 1) };
  }

  /** Id behind the last one of the subject that is here; -1: none is. */
  endOf(subject: SubjectRef): number {
    return this.#subjects.get(nameOf(subject))?.at(-1)?.to ?? -1;
  }

  /** Where `length` bytes are free, once what lies there was forgotten. */
  #room(length: number): number {
    while (this.#size >= BATCHES_MAX) this.#forgetOldest();
    const at = this.#next;
    if (at + length <= this.#bytes.length) {
      while (this.#overlapsOldest(at, at + length)) this.#forgetOldest();
      return at;
    }
    // What lies between here and the end is the oldest.
    while (this.#oldest !== null && this.#oldest.offset >= at) this.#forgetOldest();
    while (this.#overlapsOldest(0, length)) this.#forgetOldest();
    return 0;
  }

  #overlapsOldest(start: number, end: number): boolean {
    const oldest = this.#oldest;
    return oldest !== null && oldest.offset < end && start < oldest.offset + oldest.length;
  }

  #forgetOldest(): void {
    const oldest = this.#oldest as Kept;
    this.#oldest = oldest.newer;
    if (this.#oldest === null) this.#newest = null;
    this.#size -= 1;
    const kept = this.#subjects.get(oldest.name) as Kept[];
    if (kept.length === 1) this.#subjects.delete(oldest.name);
    else kept.splice(coveringIndex(kept, oldest.base), 1);
  }

  #become(capacity: number): void {
    this.#bytes = Buffer.allocUnsafeSlow(capacity);
    this.#next = 0;
    this.#oldest = null;
    this.#newest = null;
    this.#size = 0;
    this.#subjects.clear();
  }
}

function nameOf({ bytes }: SubjectRef): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}

/** Index of the last batch whose base is at or below `id`; -1: there is none. */
function lastAtOrBelow(kept: readonly Kept[], id: number): number {
  let low = 0;
  let high = kept.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((kept[middle] as Kept).base <= id) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Index of the batch that has `id`, or -1. */
function coveringIndex(kept: readonly Kept[], id: number): number {
  const at = lastAtOrBelow(kept, id);
  return at >= 0 && id < (kept[at] as Kept).to ? at : -1;
}

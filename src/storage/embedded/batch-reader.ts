import { isPlanted } from '../../base/planted.ts';
import { BatchKind } from '../../batch/batch-format.ts';
import { BatchView } from '../../batch/batch-view.ts';
import { DiskError } from '../disk.ts';
import type { ReadMemory, ReadResult, StoredItem, SubjectRef } from '../store.ts';
import { ReadArena } from './read-arena.ts';
import type { SegmentFiles } from './segment-files.ts';
import { checkOf, type EntryCursor, EntryKind, newEntry } from './slot-index.ts';
import type { TailCache } from './tail-cache.ts';

/** A read from disk of at most this much is done at once: it costs less than the way through the thread pool. */
const SYNC_RANGE_BYTES_MAX = 64 * 1024;
/** The same for a single batch, which is what a Fetch wants. */
const SYNC_BATCH_BYTES_MAX = 256 * 1024;
/** One read from disk covers at most this much, so that a reader far behind costs bounded memory. */
const RANGE_BYTES_MAX = 1024 * 1024;
/** Batches of one subject in one segment are read together if no more than this lies between them. */
const GAP_BYTES_MAX = 16 * 1024;
/** Share of store.cache_bytes for batches read one by one, beside the tail of the lane; at least what two largest reads need. */
const ARENA_SHARE = 8;
const ARENA_BYTES_MIN = 2 * SYNC_BATCH_BYTES_MAX;

/** An arena key is exact in 53 bits: segment modulo 2^23, position / 8 below 2^30. A hit is compared, so that a collision costs a read only. */
const KEY_SEGMENTS = 2 ** 23;
const KEY_POSITIONS = 2 ** 30;

/** For callers that keep what they get. */
const FRESH: ReadMemory = { take: (length) => Buffer.allocUnsafeSlow(length) };

/** Ids [from, to) of a subject whose stored batch cannot be read. */
export interface BatchDamage {
  readonly subject: SubjectRef;
  readonly from: number;
  readonly to: number;
  readonly segment: number;
  readonly position: number;
  /** What is wrong, in a word or two. */
  readonly what: string;
}

/** One batch that an answer will contain. */
interface Wanted {
  readonly base: number;
  readonly count: number;
  readonly kind: number;
  readonly segment: number;
  readonly position: number;
  readonly length: number;
  readonly check: number;
  bytes: Buffer | null;
  /** In memory since it was written, or since it was checked. */
  isVerified: boolean;
}

export interface ReaderOptions {
  readonly files: SegmentFiles;
  readonly tail: TailCache;
  readonly cacheBytes: number;
  readonly onDamage: (damage: BatchDamage) => void;
  /** After each read of the disk: how long it took, and the bytes that were wanted of it. */
  readonly onRead?: (microseconds: number, bytes: number) => void;
  /** Monotonic ms. */
  readonly clock?: () => number;
}

/** Reads batches where the index says they are, and believes none of them before it has checked all of it. */
export class BatchReader {
  readonly #files: SegmentFiles;
  readonly #tail: TailCache;
  readonly #onDamage: (damage: BatchDamage) => void;
  readonly #onRead: (microseconds: number, bytes: number) => void;
  readonly #clock: () => number;
  readonly #arena: ReadArena;
  readonly #view = new BatchView();
  readonly #entry = newEntry();
  /** For each read that is on its way: the segments that were dropped since it began. */
  readonly #onTheirWay = new Set<Set<number>>();
  #damaged = 0;

  constructor(options: ReaderOptions) {
    this.#files = options.files;
    this.#tail = options.tail;
    this.#onDamage = options.onDamage;
    this.#onRead = options.onRead ?? (() => undefined);
    this.#clock = options.clock ?? (() => performance.now());
    this.#arena = new ReadArena(Math.max(ARENA_BYTES_MIN, Math.floor(options.cacheBytes / ARENA_SHARE)));
  }

  /** Damaged batches met so far. */
  get damaged(): number {
    return this.#damaged;
  }

  /** See MessageStore.read. `entries`: the subject's. */
  read(
    subject: SubjectRef,
    entries: EntryCursor,
    from: number,
    until: number,
    maxBytes: number,
    memory: ReadMemory | null = null,
  ): ReadResult | Promise<ReadResult> {
    const wanted: Wanted[] = [];
    let bytes = 0;
    let next = until + 1;
    for (let i = entries.holding(from); i < entries.length && entries.base(i) <= until; i++) {
      if (wanted.length > 0 && bytes >= maxBytes) {
        next = entries.base(i);
        break;
      }
      const item = this.#want(entries, i);
      wanted.push(item);
      bytes += item.length;
    }
    return this.#serve(subject, wanted, next, memory);
  }

  /** See MessageStore.readBack. `entries`: the subject's. */
  readBack(
    subject: SubjectRef,
    entries: EntryCursor,
    from: number,
    until: number,
    maxBytes: number,
    memory: ReadMemory | null = null,
  ): ReadResult | Promise<ReadResult> {
    const wanted: Wanted[] = [];
    let bytes = 0;
    let next = from - 1;
    for (let i = entries.lowerBound(until + 1) - 1; i >= 0 && entries.end(i) > from; i--) {
      if (wanted.length > 0 && bytes >= maxBytes) {
        next = entries.end(i) - 1;
        break;
      }
      const item = this.#want(entries, i);
      wanted.push(item);
      bytes += item.length;
    }
    // Upwards for the disk: neighbours are read together, and lie there in the order of their ids.
    wanted.reverse();
    const answer = this.#serve(subject, wanted, next, memory);
    return answer instanceof Promise ? answer.then(turned) : turned(answer);
  }

  #serve(
    subject: SubjectRef,
    wanted: Wanted[],
    next: number,
    memory: ReadMemory | null,
  ): ReadResult | Promise<ReadResult> {
    let fromDisk = 0;
    for (const item of wanted) if (needsRead(item)) fromDisk += item.length;
    const single = wanted.length === 1 ? wanted[0] : undefined;
    if (fromDisk > (single === undefined ? SYNC_RANGE_BYTES_MAX : SYNC_BATCH_BYTES_MAX)) {
      return this.#readLater(subject, wanted, next, memory ?? FRESH, fromDisk);
    }
    // Found in the arena only when nothing else is read into it for this answer.
    if (single !== undefined && needsRead(single)) this.#findRead(subject, single);
    if (fromDisk > 0) this.#readAllNow(wanted, memory);
    return this.#answer(subject, wanted, next);
  }

  /** Forgets what was cached of segments that will be deleted. */
  dropSegments(segments: ReadonlySet<number>): void {
    this.#arena.clear();
    for (const segment of segments) {
      this.#files.drop(segment);
      for (const dropped of this.#onTheirWay) dropped.add(segment);
    }
  }

  #want(entries: EntryCursor, i: number): Wanted {
    const entry = this.#entry;
    entries.copyTo(i, entry);
    const { base, count, kind, segment, offset: position, length, check } = entry;
    const at = kind === EntryKind.DATA ? this.#tail.find(segment, position) : -1;
    const bytes = at >= 0 ? this.#tail.bytes.subarray(at, at + length) : null;
    const isVerified = bytes !== null;
    return { base, count, kind, segment, position, length, check, bytes, isVerified };
  }

  /** A batch that was read and checked lately. */
  #findRead(subject: SubjectRef, item: Wanted): void {
    const bytes = this.#arena.get(keyOf(item), item.length);
    if (bytes === null || this.#headerFault(subject, item, bytes) !== null) return;
    item.bytes = bytes;
    item.isVerified = true;
  }

  #readAllNow(wanted: readonly Wanted[], memory: ReadMemory | null): void {
    const startedAt = this.#clock();
    let bytes = 0;
    for (const item of wanted) {
      if (!needsRead(item)) continue;
      this.#readNow(item, memory);
      bytes += item.length;
    }
    if (bytes > 0) this.#onRead((this.#clock() - startedAt) * 1000, bytes);
  }

  #readNow(item: Wanted, memory: ReadMemory | null): void {
    const bytes = memory === null ? this.#claim(item.length) : memory.take(item.length);
    try {
      const read = this.#files.readSync(item.segment, bytes, item.position);
      if (read === item.length) item.bytes = bytes;
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
    }
  }

  #claim(length: number): Buffer {
    const at = this.#arena.claim(length);
    return this.#arena.bytes.subarray(at, at + length);
  }

  async #readLater(
    subject: SubjectRef,
    wanted: Wanted[],
    next: number,
    memory: ReadMemory,
    bytes: number,
  ): Promise<ReadResult> {
    const startedAt = this.#clock();
    // The ring's memory will be written over before the answer is used: what is served from it is copied while it is there.
    for (const item of wanted) {
      if (item.bytes !== null) item.bytes = copyTo(memory, item.bytes);
    }
    const dropped = new Set<number>();
    this.#onTheirWay.add(dropped);
    try {
      for (let i = 0; i < wanted.length; ) {
        const end = rangeEnd(wanted, i);
        const first = wanted[i] as Wanted;
        if (needsRead(first) && !dropped.has(first.segment)) await this.#readRange(wanted.slice(i, end), memory);
        i = end;
      }
    } finally {
      this.#onTheirWay.delete(dropped);
    }
    this.#onRead((this.#clock() - startedAt) * 1000, bytes);
    // What was let go of meanwhile is gone, and not damaged: the log has trimmed it before, or all of it has expired.
    const there = wanted.filter((item) => !needsRead(item) || !dropped.has(item.segment));
    return this.#answer(subject, there, next);
  }

  /** Reads batches that lie close to each other with one read. */
  async #readRange(items: readonly Wanted[], memory: ReadMemory): Promise<void> {
    const first = items[0] as Wanted;
    const last = items[items.length - 1] as Wanted;
    const bytes = memory.take(last.position + last.length - first.position);
    try {
      const read = await this.#files.read(first.segment, bytes, first.position);
      for (const item of items) {
        const start = item.position - first.position;
        if (start + item.length <= read) item.bytes = bytes.subarray(start, start + item.length);
      }
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
    }
  }

  #answer(subject: SubjectRef, wanted: readonly Wanted[], next: number): ReadResult {
    const items: StoredItem[] = [];
    for (const item of wanted) items.push(this.#judge(subject, item));
    return { items, next };
  }

  #judge(subject: SubjectRef, item: Wanted): StoredItem {
    const { base, count } = item;
    const to = base + count;
    if (item.kind === EntryKind.VOID) return { kind: 'void', from: base, to };
    const { bytes } = item;
    if (bytes !== null && item.isVerified) return { kind: 'data', from: base, to, base, bytes };
    const fault = this.#fault(subject, item, bytes);
    if (fault === null && bytes !== null) {
      if (bytes.buffer === this.#arena.bytes.buffer) this.#arena.put(keyOf(item), bytes.byteOffset, item.length);
      return { kind: 'data', from: base, to, base, bytes };
    }
    this.#damaged += 1;
    this.#onDamage({
      subject,
      from: base,
      to,
      segment: item.segment,
      position: item.position,
      what: fault ?? 'unreadable',
    });
    return { kind: 'damaged', from: base, to };
  }

  /** A batch is what the index says it is, with good checksums, or it is damaged: old or foreign bytes may be whole in themselves (traps S6). */
  #fault(subject: SubjectRef, item: Wanted, bytes: Buffer | null): string | null {
    if (item.kind === EntryKind.DAMAGED) return 'found damaged by a scan';
    if (bytes === null) return 'unreadable';
    const fault = this.#headerFault(subject, item, bytes);
    if (fault !== null) return fault;
    return this.#view.verifyBody() || isPlanted('S5-batch-unchecked') ? null : 'body-checksum';
  }

  #headerFault(subject: SubjectRef, item: Wanted, bytes: Buffer): string | null {
    const view = this.#view;
    const fault = view.wrap(bytes, 0);
    if (fault !== null) return fault;
    const isIt =
      view.kind === BatchKind.DATA &&
      checkOf(view.headerCrc) === item.check &&
      view.base === item.base &&
      view.count === item.count &&
      view.totalLength === item.length &&
      view.subjectIs(subject.bytes);
    return isIt ? null : 'another batch';
  }
}

function turned({ items, next }: ReadResult): ReadResult {
  return { items: items.toReversed(), next };
}

function copyTo(memory: ReadMemory, bytes: Buffer): Buffer {
  const copy = memory.take(bytes.length);
  copy.set(bytes);
  return copy;
}

function needsRead(item: Wanted): boolean {
  return item.kind === EntryKind.DATA && item.bytes === null;
}

/** End of the run of batches from `start` on that one read brings. */
function rangeEnd(wanted: readonly Wanted[], start: number): number {
  const first = wanted[start] as Wanted;
  let end = start + 1;
  if (!needsRead(first)) return end;
  let reached = first.position + first.length;
  for (; end < wanted.length; end++) {
    const item = wanted[end] as Wanted;
    const isNear = item.position >= reached && item.position - reached <= GAP_BYTES_MAX;
    if (!needsRead(item) || item.segment !== first.segment || !isNear) break;
    if (item.position + item.length - first.position > RANGE_BYTES_MAX) break;
    reached = item.position + item.length;
  }
  return end;
}

function keyOf(item: Wanted): number {
  return (item.segment % KEY_SEGMENTS) * KEY_POSITIONS + item.position / 8;
}

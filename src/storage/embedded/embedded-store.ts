import { join } from 'node:path';
import { assert } from '../../base/assert.ts';
import { BrokerError } from '../../base/errors.ts';
import { SLOT_COUNT, slotOfHash } from '../../base/subject.ts';
import { BatchOffset } from '../../batch/batch-format.ts';
import { type Disk, NodeDisk } from '../disk.ts';
import {
  type MessageStore,
  type ReadMemory,
  type ReadResult,
  type SealedBatch,
  type Stored,
  StoreFailure,
  type StoreStats,
  type SubjectRef,
  type SubjectStats,
} from '../store.ts';
import { type BatchDamage, BatchReader } from './batch-reader.ts';
import { FreeSpace } from './free-space.ts';
import { groupBytes } from './group-encoder.ts';
import { LaneWriter } from './lane-writer.ts';
import { SegmentFiles } from './segment-files.ts';
import { laneName, laneOf, segmentId, segmentName } from './segment-format.ts';
import { loadSidecar, type SegmentSummary } from './sidecar.ts';
import { encodeScanned, type LaneFiles, listLane, listLanes, readSidecar, scanFile } from './sidecar-files.ts';
import { checkOf, EntryKind, newEntry, type SlotColumns } from './slot-index.ts';
import { SubjectIndex } from './subject-index.ts';
import { TailCache } from './tail-cache.ts';

const OPEN_FILES_MAX = 64;

export interface EmbeddedOptions {
  /** Folder of the lanes (`DATA/segments`). */
  readonly directory: string;
  /** The lane that this store writes; nobody else may. */
  readonly lane: number;
  /** True for the slots whose batches this store serves. */
  readonly ownsSlot: (slot: number) => boolean;
  /** True for the lanes whose segments this store counts and offers to retention: its own always, and others that nobody writes. */
  readonly countsLane?: (lane: number) => boolean;
  /** segment.bytes */
  readonly segmentBytes: number;
  /** store.low_space_bytes */
  readonly lowSpaceBytes: number;
  /** This store's share of store.cache_bytes. */
  readonly cacheBytes: number;
  /** Called once, with what `append` rejects with from then on: the process has to end within a second. */
  readonly onFatal: (error: unknown) => void;
  readonly onDamage?: (damage: BatchDamage) => void;
  readonly onNotice?: (message: string, error: unknown) => void;
  /** After each durable write: its duration, and what it wrote. */
  readonly onWritten?: (microseconds: number, bytes: number) => void;
  /** After each read of the disk: how long it took, and the bytes that were wanted of it. */
  readonly onRead?: (microseconds: number, bytes: number) => void;
  readonly disk?: Disk;
  /** Epoch ms; for a date in segment headers only. */
  readonly now?: () => number;
  /** Monotonic ms. */
  readonly clock?: () => number;
}

interface QueuedGroup {
  readonly group: readonly SealedBatch[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

const nothing = (): void => undefined;

/**
 * The node's own store: append-only segments, one lane of them for each shard thread, and an index in memory. Opened after `sealLanes`, which
 * has cut torn tails and made everything durable that is found here.
 */
export class EmbeddedStore implements MessageStore {
  readonly #options: EmbeddedOptions;
  readonly #index = new SubjectIndex();
  readonly #writer: LaneWriter;
  readonly #reader: BatchReader;
  readonly #files: SegmentFiles;
  readonly #space: FreeSpace;
  readonly #cache: TailCache;
  readonly #clock: () => number;
  /** Sealed segments of the lanes that are counted here. */
  readonly #segments = new Map<number, SegmentSummary>();
  #sealedBytes = 0;
  readonly #queue: QueuedGroup[] = [];
  #isDraining = false;
  #drained: Promise<void> = Promise.resolve();
  #isClosed = false;
  /** Why nothing can be written any more. */
  #failure: unknown = null;
  readonly #entry = newEntry();

  constructor(options: EmbeddedOptions) {
    this.#options = options;
    const disk = options.disk ?? new NodeDisk();
    const lanePath = join(options.directory, laneName(options.lane));
    this.#clock = options.clock ?? (() => performance.now());
    this.#files = new SegmentFiles(disk, options.directory, OPEN_FILES_MAX);
    disk.mkdir(options.directory);
    disk.mkdir(lanePath);
    let highest = 0;
    // A shard that is to be given its slots later has nothing to look for in the lanes of others.
    const ownsAny = Array.from({ length: SLOT_COUNT }, (_, slot) => slot).some((slot) => options.ownsSlot(slot));
    for (const lane of listLanes(disk, options.directory)) {
      const files = listLane(disk, options.directory, lane);
      if (lane === options.lane) highest = files.highest;
      if (ownsAny || this.#counts(lane)) this.#load(disk, files);
    }
    const cache = new TailCache(options.lane, options.cacheBytes);
    this.#cache = cache;
    const onDamage = options.onDamage ?? nothing;
    this.#reader = new BatchReader({
      files: this.#files,
      tail: cache,
      cacheBytes: options.cacheBytes,
      onDamage,
      onRead: options.onRead ?? nothing,
      clock: this.#clock,
    });
    this.#space = new FreeSpace(disk, options.directory, options.lowSpaceBytes, this.#clock);
    this.#writer = new LaneWriter({
      disk,
      path: lanePath,
      lane: options.lane,
      nextNumber: highest + 1,
      segmentBytes: options.segmentBytes,
      cache,
      now: options.now ?? Date.now,
      onSealed: (summary) => this.#count(summary),
      onNotice: options.onNotice ?? nothing,
      onFatal: (error) => this.#fail(error),
    });
  }

  append(group: readonly SealedBatch[]): Promise<void> {
    if (this.#isClosed) return Promise.reject(new BrokerError('SHUTTING_DOWN'));
    return new Promise((resolve, reject) => {
      this.#queue.push({ group, resolve, reject });
      if (!this.#isDraining) this.#drained = this.#drain();
    });
  }

  read(
    subject: SubjectRef,
    from: number,
    until: number,
    maxBytes: number,
    memory?: ReadMemory,
  ): ReadResult | Promise<ReadResult> {
    return this.#reader.read(subject, this.#entriesOf(subject), from, until, maxBytes, memory);
  }

  readBack(
    subject: SubjectRef,
    from: number,
    until: number,
    maxBytes: number,
    memory?: ReadMemory,
  ): ReadResult | Promise<ReadResult> {
    return this.#reader.readBack(subject, this.#entriesOf(subject), from, until, maxBytes, memory);
  }

  findTime(subject: SubjectRef, ms: number): number | null {
    const entries = this.#entriesOf(subject);
    const at = entries.atOrAfter(ms);
    return at < entries.length ? entries.base(at) : null;
  }

  lastId(subject: SubjectRef): number {
    const entries = this.#entriesOf(subject);
    return entries.length === 0 ? 0 : entries.end(entries.length - 1) - 1;
  }

  /** A batch that is there but damaged is `data`: it may have been acknowledged, so it must not become void. */
  lookup(subject: SubjectRef, base: number): Stored {
    const entries = this.#entriesOf(subject);
    const at = entries.lowerBound(base);
    if (at >= entries.length || entries.base(at) !== base) return 'absent';
    return entries.kind(at) === EntryKind.VOID ? 'void' : 'data';
  }

  trim(subject: SubjectRef, first: number): void {
    this.#index.trim(subject, first);
  }

  subjectStats(subject: SubjectRef): SubjectStats {
    const entries = this.#entriesOf(subject);
    let bytes = 0;
    for (let i = 0; i < entries.length; i++) bytes += entries.bytes(i);
    return { batches: entries.length, bytes };
  }

  stats(): StoreStats {
    return {
      bytes: this.#sealedBytes + this.#writer.openBytes,
      segments: this.#segments.size + (this.#writer.openSegment < 0 ? 0 : 1),
      batches: this.#index.batches,
      subjects: this.#index.subjects,
      damaged: this.#reader.damaged,
      indexBytes: this.indexBytes(),
    };
  }

  /** Memory of the index, and of the notes for the sidecar of the segment that grows, in bytes. */
  indexBytes(): number {
    return this.#index.byteLength() + this.#writer.notesBytes;
  }

  /** The newest id of every subject that has batches here, and its `publishedAt` (epoch ms); `name` is valid during the call. */
  heads(visit: (name: Uint8Array, hash: number, lastId: number, publishedAt: number) => void): void {
    this.#index.forEach((name, hash, entries) => {
      const last = entries.length - 1;
      visit(name, hash, entries.end(last) - 1, entries.publishedAt(last));
    });
  }

  /** Messages are refused because of the low-space mark. */
  get isFull(): boolean {
    return this.#space.isShortOf(0);
  }

  /** Bytes of the segment that is being written. */
  get openBytes(): number {
    return this.#writer.openBytes;
  }

  /** Sealed segments of the counted lanes: what retention chooses from. The one being written is never among them. */
  sealedSegments(): SegmentSummary[] {
    return [...this.#segments.values()];
  }

  /**
   * For each subject with batches in `segments`: the first id behind them. The log has to trim these subjects before the segments go, so that
   * their missing ids are not taken for lost.
   */
  trimsFor(segments: ReadonlySet<number>, visit: (name: Uint8Array, hash: number, first: number) => void): void {
    this.#index.forEach((name, hash, entries) => {
      for (let i = entries.length - 1; i >= 0; i--) {
        if (!segments.has(entries.segment(i))) continue;
        visit(name, hash, entries.end(i));
        return;
      }
    });
  }

  /** Lets go of segments: nothing of them is found or open here afterwards. When every store has, they may be deleted (`deleteSegments`). */
  releaseSegments(segments: ReadonlySet<number>): void {
    assert(!segments.has(this.#writer.openSegment), 'the segment being written cannot be dropped');
    this.#index.dropSegments(segments);
    this.#reader.dropSegments(segments);
    for (const segment of segments) {
      const summary = this.#segments.get(segment);
      if (summary === undefined) continue;
      this.#segments.delete(segment);
      this.#sealedBytes -= summary.length;
    }
  }

  /**
   * Forgets the index of a slot and hands over its memory, for a slot that moves to another shard; null if it is empty. Nothing of the slot may be
   * on its way to the store.
   */
  exportSlot(slot: number): SlotColumns | null {
    return this.#index.takeSlot(slot);
  }

  /** Serves a slot from now on, which `ownsSlot` accepts. */
  importSlot(slot: number, columns: SlotColumns | null): void {
    assert(this.#options.ownsSlot(slot), () => `slot ${slot} is imported by a store that does not own it`);
    if (columns !== null) this.#index.giveSlot(slot, columns);
  }

  /** Counts sealed segments of a lane that nobody writes any more, and offers them to retention. Some may be counted already. */
  adoptSegments(segments: readonly SegmentSummary[]): void {
    for (const summary of segments) {
      if (this.#segments.has(summary.segment)) continue;
      this.#segments.set(summary.segment, summary);
      this.#sealedBytes += summary.length;
    }
  }

  /** The segments of a lane are counted by the store that writes it from now on. */
  disownLane(lane: number): void {
    for (const [segment, summary] of this.#segments) {
      if (laneOf(segment) !== lane) continue;
      this.#segments.delete(segment);
      this.#sealedBytes -= summary.length;
    }
  }

  /** This store's share of store.cache_bytes has changed. */
  resizeCache(bytes: number): void {
    this.#cache.resize(bytes);
  }

  /** Finishes what was queued, seals the segment, and closes every file. */
  async close(): Promise<void> {
    if (this.#isClosed) return this.#drained;
    this.#isClosed = true;
    await this.#drained;
    if (this.#failure === null) await this.#writer.seal();
    this.#files.close();
  }

  #entriesOf(subject: SubjectRef): ReturnType<SubjectIndex['find']> {
    return this.#index.find(subject);
  }

  async #drain(): Promise<void> {
    this.#isDraining = true;
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      try {
        await this.#write(next.group);
        next.resolve();
      } catch (error) {
        if (!(error instanceof BrokerError)) this.#fail(error);
        next.reject(error);
      }
    }
    this.#isDraining = false;
  }

  async #write(group: readonly SealedBatch[]): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    const fresh = this.#withoutKnown(group);
    if (fresh.length === 0) return;
    const bytes = groupBytes(fresh);
    // Marks are let through: they are small, and without them ids that were refused would stay open.
    if (fresh.some(({ kind }) => kind === 'data') && this.#space.isShortOf(bytes)) throw new BrokerError('STORE_FULL');
    const started = this.#clock();
    const { segment, offsets } = await this.#writer.write(fresh);
    // An index that could not be made durable ends the process: nothing is acknowledged behind that, durable or not (traps S2).
    if (this.#failure !== null) throw this.#failure;
    this.#space.used(bytes);
    for (let i = 0; i < fresh.length; i++) this.#insert(fresh[i] as SealedBatch, segment, offsets[i] as number);
    this.#options.onWritten?.((this.#clock() - started) * 1000, bytes);
  }

  /** What the store has already is not written again. Groups are judged one after another, so nothing is on its way meanwhile. */
  #withoutKnown(group: readonly SealedBatch[]): readonly SealedBatch[] {
    const isFresh = (batch: SealedBatch): boolean => {
      assert(this.#options.ownsSlot(slotOfHash(batch.subject.hash)), 'a batch of a slot that this store does not own');
      const found = this.lookup(batch.subject, batch.base);
      return found === 'absent' || (found === 'data' && batch.kind === 'void');
    };
    return group.every(isFresh) ? group : group.filter(isFresh);
  }

  #insert(batch: SealedBatch, segment: number, offset: number): void {
    const entry = this.#entry;
    entry.base = batch.base;
    entry.publishedAt = batch.publishedAt;
    entry.count = batch.count;
    entry.segment = segment;
    entry.kind = batch.kind === 'void' ? EntryKind.VOID : EntryKind.DATA;
    entry.offset = offset;
    entry.length = batch.bytes.length;
    entry.check = checkOf(batch.bytes.readUInt32LE(BatchOffset.HEADER_CRC));
    const { bytes, hash } = batch.subject;
    const place = this.#index.rowFor(bytes, 0, bytes.length, hash);
    this.#index.putAt(place, entry);
    this.#writer.note(place.slot.table, place.row, entry, batch.expiresMax);
  }

  #fail(error: unknown): void {
    if (this.#failure !== null) return;
    this.#failure = error ?? new StoreFailure('the store failed');
    this.#options.onFatal(this.#failure);
  }

  #load(disk: Disk, files: LaneFiles): void {
    for (const number of files.numbers) {
      const id = segmentId(files.lane, number);
      const size = disk.size(join(files.path, segmentName(number)));
      const found = readSidecar(disk, files.path, id, size);
      // Another lane's segment that is being written, or one whose sidecar did not fit on the disk.
      const isUsable = found !== null && typeof found !== 'string';
      const mayBeTorn = number === files.numbers.at(-1) && found !== 'cut';
      const sidecar = isUsable
        ? found
        : encodeScanned(files.lane, number, scanFile(disk, files, number, size, mayBeTorn));
      loadSidecar(sidecar.bytes, this.#index, this.#options.ownsSlot);
      this.#count(sidecar.summary);
    }
  }

  #count(summary: SegmentSummary): void {
    if (this.#counts(laneOf(summary.segment))) this.adoptSegments([summary]);
  }

  #counts(lane: number): boolean {
    return lane === this.#options.lane || (this.#options.countsLane?.(lane) ?? false);
  }
}

/** Opens the store; its own files and index are read before this returns. DiskError or StartError if they cannot be. */
export function openEmbeddedStore(options: EmbeddedOptions): EmbeddedStore {
  return new EmbeddedStore(options);
}

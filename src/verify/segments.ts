import { join } from 'node:path';
import { crc32 } from '../base/checksum.ts';
import { SLOT_COUNT, slotOfHash } from '../base/subject.ts';
import { nameOf, shownName } from '../base/subject-space.ts';
import { DiskError, type DiskFile, NodeDisk } from '../storage/disk.ts';
import { laneName, segmentId, segmentName, sidecarName } from '../storage/embedded/segment-format.ts';
import type { Damage, ScanResult } from '../storage/embedded/segment-scan.ts';
import { forEachSubject, readEntry } from '../storage/embedded/sidecar.ts';
import {
  encodeScanned,
  type LaneFiles,
  listLane,
  listLanes,
  readSidecar,
  scanFile,
} from '../storage/embedded/sidecar-files.ts';
import { ENTRY_BYTES, EntryKind, type IndexEntry, newEntry } from '../storage/embedded/slot-index.ts';
import { SubjectIndex } from '../storage/embedded/subject-index.ts';
import type { SubjectRef } from '../storage/store.ts';
import type { IdRange, IdWalk } from './id-walk.ts';
import type { Pace } from './pace.ts';
import type { Tally } from './tally.ts';

/** The index of so many batches is in memory at a time (32 bytes each, and the names of their subjects). */
const BATCHES_AT_ONCE = 1_000_000;
/** Keys that are there twice with different content; more are not told. */
const TWICE_MAX = 10_000;

interface Segment {
  readonly files: LaneFiles;
  readonly number: number;
}

/**
 * The segments of the embedded store, read from the disk and not from what shards have in memory: first every byte of every file, which
 * shows what is damaged and whether its index says what is in it; then what the files say of the subjects of some slots at a time.
 *
 * A node that runs writes the last segment of each lane meanwhile, seals it, and deletes others. What a file has beyond the size that it had when it was
 * looked at is not read, an end that is torn is being written, and a file that is gone was given up.
 */
export class Segments {
  readonly #disk: MeteredDisk;
  readonly #directory: string;
  readonly #tally: Tally;
  readonly #batchesAtOnce: number;
  /** What is read then is counted; what is read again, to make an index of it, is not. */
  #isScanning = false;
  /** Their index is made from their content. */
  readonly #unindexed = new Set<number>();
  #batches = 0;
  #index = new SubjectIndex();
  /** [from, to) */
  #slots: IdRange = { from: 0, to: 0 };
  #twice = new Map<string, IdRange[]>();
  readonly #entry = newEntry();
  readonly #other = newEntry();
  readonly #words = new Uint32Array(ENTRY_BYTES / 4);

  constructor(directory: string, tally: Tally, pace: Pace, batchesAtOnce = BATCHES_AT_ONCE) {
    this.#batchesAtOnce = batchesAtOnce;
    this.#directory = directory;
    this.#tally = tally;
    this.#disk = new MeteredDisk((bytes) => {
      if (this.#isScanning) tally.read(bytes);
      pace.waitSync(bytes, () => tally.maybeTell());
    });
  }

  /** Reads every byte. */
  scan(): void {
    const segments = this.#list();
    this.#isScanning = true;
    for (const [i, segment] of segments.entries()) {
      this.#tally.step = `reading segment ${i + 1} of ${segments.length}`;
      this.#check(segment);
    }
    this.#isScanning = false;
  }

  /** Makes what the files say of the subjects of `slot` available, and of as many slots behind it as fit. True if it was not before. */
  ensure(slot: number): boolean {
    if (slot >= this.#slots.from && slot < this.#slots.to) return false;
    const share = Math.ceil(this.#batches / this.#batchesAtOnce);
    this.#slots = { from: slot, to: Math.min(SLOT_COUNT, slot + Math.ceil(SLOT_COUNT / Math.max(1, share))) };
    this.#index = new SubjectIndex();
    this.#twice = new Map();
    for (const segment of this.#list()) this.#load(segment);
    return true;
  }

  /** The end of the slots that are available. */
  get slotsEnd(): number {
    return this.#slots.to;
  }

  /** Holds the ids of a subject of an available slot against what the files have. */
  walk(subject: SubjectRef, first: number, settled: number, walk: IdWalk): void {
    const entries = this.#index.find(subject);
    for (let i = entries.holding(first); i < entries.length && entries.base(i) <= settled; i++) {
      const kind = entries.kind(i);
      const name = kind === EntryKind.VOID ? 'void' : kind === EntryKind.DAMAGED ? 'damaged' : 'data';
      walk.meet(name, entries.base(i), entries.end(i));
    }
    for (const range of this.#twice.get(keyOf(subject.bytes)) ?? []) walk.twice.push(range);
  }

  /** Of every subject of the available slots the last id. The name is valid during the call. */
  newest(visit: (name: Uint8Array, lastId: number) => void): void {
    this.#index.forEach((name, _hash, entries) => void visit(name, entries.end(entries.length - 1) - 1));
  }

  /** What the files have of a subject of an available slot behind `head`. */
  beyond(subject: SubjectRef, head: number): IdRange[] {
    const entries = this.#index.find(subject);
    const found: IdRange[] = [];
    for (let i = entries.holding(head + 1); i < entries.length; i++) {
      found.push({ from: entries.base(i), to: entries.end(i) });
    }
    return found;
  }

  #list(): Segment[] {
    return listLanes(this.#disk, this.#directory).flatMap((lane) => {
      const files = listLane(this.#disk, this.#directory, lane);
      return files.numbers.map((number) => ({ files, number }));
    });
  }

  #check(segment: Segment): void {
    const { files, number } = segment;
    const size = this.#sizeOf(segment);
    if (size < 0) return;
    const id = segmentId(files.lane, number);
    const sidecar = readSidecar(this.#disk, files.path, id, size);
    const scanned = this.#scanned(segment, size, sidecar);
    if (scanned === null) return;
    const { damages } = scanned;
    const content = encodeScanned(files.lane, number, scanned);
    this.#batches += content.summary.batches;
    // Given up while it was read.
    if (this.#sizeOf(segment) < 0) return;
    // What has ids is met where those of its subject are.
    for (const damage of damages) if (damage.ids === undefined) this.#tellFile(segment, segmentName(number), damage);
    const fault = this.#sidecarFault(segment, size, sidecar, content.bytes, damages.length > 0);
    if (fault !== null) this.#tellFile(segment, sidecarName(number), fault);
    const isUsable = sidecar !== null && typeof sidecar !== 'string';
    if (damages.length > 0 || fault !== null || !isUsable) this.#unindexed.add(id);
  }

  /** Null: it is gone, or could not be read, which was told. */
  #scanned(segment: Segment, size: number, sidecar: ReturnType<typeof readSidecar>): ScanResult | null {
    const { files, number } = segment;
    // As a start takes it: what is shorter than its index says is not torn at its end.
    const mayBeTorn = number === files.numbers.at(-1) && sidecar !== 'cut';
    try {
      return scanFile(this.#disk, files, number, size, mayBeTorn);
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      if (this.#sizeOf(segment) >= 0) this.#tellFile(segment, segmentName(number), error.message);
      return null;
    }
  }

  /** Why the index file of a segment is not what the segment holds, or null. */
  #sidecarFault(
    segment: Segment,
    size: number,
    sidecar: ReturnType<typeof readSidecar>,
    content: Buffer,
    isDamaged: boolean,
  ): string | null {
    if (sidecar === null) return null;
    if (sidecar === 'damaged') return 'the index fails its checksums; the next start makes it again';
    if (sidecar === 'stale' || sidecar === 'cut') {
      // It was sealed meanwhile, at another size than the one that was looked at.
      return this.#sizeOf(segment) === size && !isDamaged
        ? `the index is of another segment than this of ${size} B`
        : null;
    }
    // What it says of a damaged segment was written when that was whole.
    if (isDamaged) return null;
    const differing = differingSubject(sidecar.bytes, content);
    if (differing === null) return null;
    return `the index and the content differ, as of subject ${shownName(nameOf(Buffer.from(differing, 'latin1')))}`;
  }

  #load(segment: Segment): void {
    const { files, number } = segment;
    const size = this.#sizeOf(segment);
    if (size < 0) return;
    const id = segmentId(files.lane, number);
    const sidecar = readSidecar(this.#disk, files.path, id, size);
    if (!this.#unindexed.has(id) && sidecar !== null && typeof sidecar !== 'string') {
      this.#put(sidecar.bytes);
      return;
    }
    const scanned = this.#scanned(segment, size, sidecar);
    if (scanned !== null) this.#put(encodeScanned(files.lane, number, scanned).bytes);
  }

  #put(bytes: Buffer): void {
    const { from, to } = this.#slots;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const entry = this.#entry;
    forEachSubject(bytes, (hash, nameStart, nameEnd, start, entries) => {
      const slot = slotOfHash(hash);
      if (slot < from || slot >= to) return;
      const place = this.#index.rowFor(bytes, nameStart, nameEnd, hash);
      for (let i = 0; i < entries; i++) {
        readEntry(view, start + i * ENTRY_BYTES, this.#words, entry);
        if (!this.#index.putAt(place, entry)) this.#maybeTwice(bytes.subarray(nameStart, nameEnd), hash, entry);
      }
    });
  }

  /** The key is there already. A mark in the place of data is right; other data is not. */
  #maybeTwice(name: Uint8Array, hash: number, entry: IndexEntry): void {
    const entries = this.#index.find({ bytes: name, hash });
    const there = this.#other;
    entries.copyTo(entries.lowerBound(entry.base), there);
    if (entry.kind !== EntryKind.DATA || there.kind !== EntryKind.DATA || there.check === entry.check) return;
    const key = keyOf(name);
    const ranges = this.#twice.get(key) ?? [];
    if (ranges.length + this.#twice.size >= TWICE_MAX) return;
    ranges.push({ from: entry.base, to: entry.base + Math.min(entry.count, there.count) });
    this.#twice.set(key, ranges);
  }

  #sizeOf({ files, number }: Segment): number {
    return this.#disk.size(join(files.path, segmentName(number)));
  }

  #tellFile({ files }: Segment, name: string, fault: Damage | string): void {
    const what = typeof fault === 'string' ? fault : `${fault.what} at ${fault.position}, ${fault.length} B`;
    const detail = `${laneName(files.lane)}/${name}: ${what}`;
    this.#tally.add({ tenant: '', subject: '', firstId: 0, lastId: 0, kind: 'damaged', detail });
  }
}

function keyOf(name: Uint8Array): string {
  return Buffer.from(name.buffer, name.byteOffset, name.length).toString('latin1');
}

/** The first subject of which two sidecars do not have the same batches, or null. */
function differingSubject(left: Buffer, right: Buffer): string | null {
  const rest = entriesOf(left);
  let differing: string | null = null;
  for (const [name, crc] of entriesOf(right)) {
    if (rest.get(name) !== crc) differing ??= name;
    rest.delete(name);
  }
  return differing ?? [...rest.keys()][0] ?? null;
}

/** By subject, a checksum over its entries, in whatever number of places they are: one that was away meanwhile has several (docs/record-format.md). */
function entriesOf(bytes: Buffer): Map<string, number> {
  const found = new Map<string, number>();
  forEachSubject(bytes, (_hash, nameStart, nameEnd, start, entries) => {
    const name = bytes.toString('latin1', nameStart, nameEnd);
    found.set(name, crc32(bytes.subarray(start, start + entries * ENTRY_BYTES), found.get(name)));
  });
  return found;
}

/** Tells of every byte that is read to check it, which is the scan of a segment and nothing else. */
class MeteredDisk extends NodeDisk {
  readonly #onRead: (bytes: number) => void;

  constructor(onRead: (bytes: number) => void) {
    super();
    this.#onRead = onRead;
  }

  override open(path: string, access: 'read' | 'write', site?: string): DiskFile {
    const file = super.open(path, access, site);
    if (site !== 'segment-scan') return file;
    const read = file.preadSync.bind(file);
    return Object.assign(file, {
      preadSync: (target: Uint8Array, start: number, end: number, position: number): number => {
        const done = read(target, start, end, position);
        this.#onRead(done);
        return done;
      },
    });
  }
}

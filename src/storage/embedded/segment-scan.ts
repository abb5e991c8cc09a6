import { crc32 } from '../../base/checksum.ts';
import { BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES_MAX, BatchKind } from '../../batch/batch-format.ts';
import { BatchView } from '../../batch/batch-view.ts';
import type { DiskFile } from '../disk.ts';
import { ScanWindow } from './scan-window.ts';
import {
  type DirectoryEntry,
  decodeGroupHeader,
  decodeSegmentHeader,
  firstBatchOffset,
  GROUP_HEADER_BYTES,
  type GroupHeader,
  isGroupHeader,
  readDirectoryEntry,
  SECTOR_BYTES,
  SEGMENT_HEADER_BYTES,
  SEGMENT_VERSION,
  segmentId,
} from './segment-format.ts';
import { SidecarBuilder } from './sidecar.ts';
import { checkOf, EntryKind, type IndexEntry } from './slot-index.ts';

/** Something in a segment that is not as it was written. Positions are bytes in the file. */
export interface Damage {
  readonly what:
    | 'segment-header'
    | 'group-header'
    | 'foreign'
    | 'directory'
    | 'batch'
    | 'padding'
    | 'chain'
    | 'unreadable'
    | 'cut';
  readonly position: number;
  readonly length: number;
  /** The ids that it cost, where they are known: [from, to) of a subject. */
  readonly ids?: { readonly subject: string; readonly from: number; readonly to: number };
}

export interface ScanResult {
  /** -1 if neither the segment header nor a group tells it. */
  readonly nonce: number;
  /** Bytes to keep: the file's size, or less if its tail is torn. */
  readonly length: number;
  /** CRC of the last group's header; of the segment header if there is no group. */
  readonly chain: number;
  readonly groups: number;
  readonly damages: readonly Damage[];
  readonly entries: SidecarBuilder;
  /** Written by a newer program: nothing was read and nothing may be changed. */
  readonly isForeign: boolean;
}

export interface ScanOptions {
  readonly file: DiskFile;
  readonly size: number;
  readonly lane: number;
  readonly number: number;
  /** Only the newest segment of a lane can have a torn tail: the next one is made after everything before is durable. */
  readonly isLast: boolean;
}

/** A batch of the group being judged. */
interface FoundBatch {
  readonly name: Buffer;
  readonly hash: number;
  readonly entry: IndexEntry;
  readonly expiresMax: number;
}

/** More damage than this is counted by its first finds; the log names them and the count says `and more`. */
const DAMAGES_MAX = 10_000;

/**
 * Reads a whole segment in bounded memory and judges every byte of it. A tail is *torn*, to be cut, only if it is the last group of the
 * last segment and runs past the end of the file, or one of its sectors holds zeros that were not written (etcd's rule, wal/decoder.go of
 * v3.5, `isTornEntry`; sharper here, because a group says how many of its sectors are zero by right). Everything else that does not fit is
 * damage: what can still be read is kept, and what is lost is named.
 */
export function scanSegment(options: ScanOptions): ScanResult {
  return new SegmentScanner(options).run();
}

class SegmentScanner {
  readonly #options: ScanOptions;
  readonly #window: ScanWindow;
  readonly #damages: Damage[] = [];
  /** Those that are not named too. */
  #damageCount = 0;
  readonly #entries = new SidecarBuilder();
  readonly #view = new BatchView();
  readonly #segment: number;
  #nonce = -1;
  /** CRC that the next group must name, -1 if the bytes before it are lost. */
  #chain = -1;
  #groups = 0;
  /** The group before, which a break of the chain puts in doubt. Its batches are in the builder only once the next group vouches for it. */
  #pending: { readonly position: number; readonly length: number; readonly found: FoundBatch[] } | null = null;

  constructor(options: ScanOptions) {
    this.#options = options;
    this.#window = new ScanWindow(options.file, options.size);
    this.#segment = segmentId(options.lane, options.number);
  }

  run(): ScanResult {
    const { size, isLast } = this.#options;
    const start = this.#readSegmentHeader();
    if (start === 'foreign') return this.#result(size, true);
    if (start === 'torn') return this.#result(0, false);
    let position = SEGMENT_HEADER_BYTES;
    while (position < size) {
      const next = this.#readGroup(position);
      if (next < 0) {
        this.#keepPending();
        return this.#result(isLast ? position : size, false);
      }
      position = next;
    }
    this.#keepPending();
    return this.#result(size, false);
  }

  #result(length: number, isForeign: boolean): ScanResult {
    return {
      nonce: this.#nonce,
      length,
      chain: Math.max(0, this.#chain),
      groups: this.#groups,
      damages: this.#damages,
      entries: this.#entries,
      isForeign,
    };
  }

  #readSegmentHeader(): 'good' | 'foreign' | 'torn' {
    const { size, isLast, lane, number } = this.#options;
    const sector = this.#window.copy(0, Math.min(size, SEGMENT_HEADER_BYTES));
    const header = decodeSegmentHeader(sector);
    if (header !== null && header.version !== SEGMENT_VERSION) return 'foreign';
    if (header !== null && header.lane === lane && header.number === number) {
      this.#nonce = header.nonce;
      this.#chain = header.crc;
      return 'good';
    }
    const isEmpty = size < SEGMENT_HEADER_BYTES || sector.every((byte) => byte === 0);
    if (isEmpty && isLast && this.#findGroup(SEGMENT_HEADER_BYTES) < 0) return 'torn';
    this.#damage({ what: 'segment-header', position: 0, length: SEGMENT_HEADER_BYTES });
    return 'good';
  }

  /** Judges what is at `position`, a multiple of a sector. Returns where to go on, or -1 if everything from here on is torn. */
  #readGroup(position: number): number {
    const { size, isLast } = this.#options;
    const header = this.#groupHeader(position);
    if (header === null) return this.#readLostGroup(position);
    if (this.#nonce < 0) this.#nonce = header.nonce;
    const end = position + header.length;
    if (end > size && isLast) return -1;
    const breaks = this.#chain >= 0 && header.previous !== this.#chain;
    const damagesBefore = this.#damageCount;
    const found = this.#readBatches(position, Math.min(end, size), header);
    const isBad = this.#damageCount > damagesBefore;
    if (isBad && isLast && end === size && this.#zeroSectors(position, end) > header.zeroSectors) {
      this.#damages.length = Math.min(this.#damages.length, damagesBefore);
      this.#damageCount = damagesBefore;
      return -1;
    }
    if (breaks) this.#doubtPending(position);
    else this.#keepPending();
    if (end > size) this.#damage({ what: 'cut', position, length: size - position });
    this.#pending = { position, length: header.length, found };
    this.#chain = header.crc;
    this.#groups += 1;
    return Math.min(end, size);
  }

  /** No group header can be read at `position`: a torn tail, or damage up to the next group. */
  #readLostGroup(position: number): number {
    const { size, isLast } = this.#options;
    this.#keepPending();
    const next = this.#findGroup(position + SECTOR_BYTES);
    if (next < 0 && isLast) {
      if (position + SECTOR_BYTES > size || this.#window.isZero(position, position + SECTOR_BYTES)) return -1;
    }
    const end = next < 0 ? size : next;
    const isForeign =
      position + GROUP_HEADER_BYTES <= size &&
      isGroupHeader(this.#window.bytes, this.#window.at(position, GROUP_HEADER_BYTES));
    this.#damage({ what: isForeign ? 'foreign' : 'group-header', position, length: end - position });
    const found = this.#walkBatches(position + GROUP_HEADER_BYTES, end);
    // A group that belongs elsewhere: its batches are whole, and not what was written here.
    if (isForeign) for (const { entry } of found) entry.kind = EntryKind.DAMAGED;
    this.#pending = { position, length: end - position, found };
    this.#keepPending();
    this.#chain = -1;
    return end;
  }

  #groupHeader(position: number): (GroupHeader & { crc: number }) | null {
    if (position + GROUP_HEADER_BYTES > this.#options.size) return null;
    const at = this.#window.at(position, GROUP_HEADER_BYTES);
    return decodeGroupHeader(this.#window.bytes, at, position, this.#nonce);
  }

  /** Position of the next sector from `from` on where a group of this segment starts, or -1. */
  #findGroup(from: number): number {
    for (let position = from; position + GROUP_HEADER_BYTES <= this.#options.size; position += SECTOR_BYTES) {
      if (this.#groupHeader(position) !== null) return position;
    }
    return -1;
  }

  #readBatches(position: number, end: number, header: GroupHeader): FoundBatch[] {
    const directoryStart = position + GROUP_HEADER_BYTES;
    const directoryEnd = directoryStart + header.directoryLength;
    const first = position + firstBatchOffset(header.directoryLength);
    // The file was cut off before the first batch.
    if (first > end) return [];
    const directory = this.#window.copy(directoryStart, header.directoryLength);
    if (crc32(directory) !== header.directoryCrc) {
      this.#damage({ what: 'directory', position: directoryStart, length: header.directoryLength });
      return this.#walkBatches(first, end);
    }
    if (!this.#window.isZero(directoryEnd, first))
      this.#damage({ what: 'padding', position: directoryEnd, length: first - directoryEnd });
    return this.#readListed(directory, directoryStart, first, end, header.batches);
  }

  /** The batches that a directory with the right checksum lists. */
  #readListed(directory: Buffer, directoryStart: number, first: number, end: number, batches: number): FoundBatch[] {
    const found: FoundBatch[] = [];
    const view = new DataView(directory.buffer, directory.byteOffset, directory.length);
    const listed: DirectoryEntry = {
      base: 0,
      publishedAt: 0,
      count: 0,
      length: 0,
      headerCrc: 0,
      expiresMax: 0,
      hash: 0,
      kind: 0,
      subjectStart: 0,
      subjectEnd: 0,
    };
    let at = 0;
    let position = first;
    for (let i = 0; i < batches; i++) {
      at = readDirectoryEntry(directory, view, at, listed);
      if (at < 0) {
        this.#damage({ what: 'directory', position: directoryStart, length: directory.length });
        return [...found, ...this.#walkBatches(position, end)];
      }
      const name = directory.subarray(listed.subjectStart, listed.subjectEnd);
      const isGood = position + listed.length <= end && this.#batchIsGood(position, listed.length, listed.headerCrc);
      found.push(this.#listedBatch(name, listed, position, isGood));
      position += listed.length;
    }
    if (position < end && !this.#window.isZero(position, end))
      this.#damage({ what: 'padding', position, length: end - position });
    return found;
  }

  #listedBatch(name: Buffer, listed: DirectoryEntry, position: number, isGood: boolean): FoundBatch {
    const { base, count, publishedAt, length, expiresMax, hash } = listed;
    const isVoid = listed.kind === BatchKind.VOID;
    if (!isGood) {
      const ids = { subject: name.toString(), from: base, to: base + count };
      this.#damage({ what: 'batch', position, length, ids });
    }
    // The directory itself vouches for a void mark: there is nothing else in it to lose.
    const kind = isVoid ? EntryKind.VOID : isGood ? EntryKind.DATA : EntryKind.DAMAGED;
    const check = checkOf(listed.headerCrc);
    const entry = { base, publishedAt, count, segment: this.#segment, kind, offset: position, length, check };
    return { name, hash, entry, expiresMax };
  }

  /** `headerCrc`: what the directory says, or -1. */
  #batchIsGood(position: number, length: number, headerCrc: number): boolean {
    const view = this.#view;
    if (!this.#wrap(position) || view.totalLength !== length) return false;
    if (headerCrc >= 0 && view.headerCrc !== headerCrc) return false;
    const records = position + (view.recordsStart - view.start);
    const recordsEnd = position + (view.recordsEnd - view.start);
    const bodyCrc = view.bodyCrc;
    return this.#window.crc(records, recordsEnd) === bodyCrc && this.#window.isZero(recordsEnd, position + length);
  }

  /** Puts the view on the header at `position`; false if it is not good. Its records may lie outside of the window. */
  #wrap(position: number): boolean {
    const available = Math.min(BATCH_PREFIX_BYTES_MAX, this.#options.size - position);
    if (available < BATCH_HEADER_BYTES) return false;
    return this.#view.wrapPrefix(this.#window.bytes, this.#window.at(position, available)) === null;
  }

  /**
   * Without a directory: batches follow one another from `from` on, each telling where the next one starts. Ends at the first that is not
   * good in its header, because bytes behind it may be a client's and pretend to be a batch.
   */
  #walkBatches(from: number, end: number): FoundBatch[] {
    const found: FoundBatch[] = [];
    let position = this.#firstBatch(from, end);
    while (position >= 0 && position + BATCH_HEADER_BYTES <= end) {
      const length = this.#lengthAt(position, end);
      if (length < 0) break;
      found.push(this.#walkedBatch(position, length));
      position += length;
    }
    if (position < 0 || (position < end && !this.#window.isZero(position, end))) {
      const lost = position < 0 ? from : position;
      this.#damage({ what: 'unreadable', position: lost, length: end - lost });
    }
    return found;
  }

  /** The first batch behind a directory that cannot be read; subjects, which it holds, cannot look like a batch (no control characters). */
  #firstBatch(from: number, end: number): number {
    for (let position = Math.ceil(from / 8) * 8; position + BATCH_HEADER_BYTES <= end; position += 8) {
      if (this.#lengthAt(position, end) >= 0) return position;
    }
    return -1;
  }

  /** Length of the batch at `position` if its header is good, else -1. */
  #lengthAt(position: number, end: number): number {
    return this.#wrap(position) && position + this.#view.totalLength <= end ? this.#view.totalLength : -1;
  }

  #walkedBatch(position: number, length: number): FoundBatch {
    const { base, count, publishedAt, expiresMax, hash } = this.#view;
    const check = checkOf(this.#view.headerCrc);
    const name = Buffer.from(this.#view.subject());
    const isVoid = this.#view.kind === BatchKind.VOID;
    const isGood = this.#batchIsGood(position, length, -1);
    if (!isGood) {
      const ids = { subject: name.toString(), from: base, to: base + count };
      this.#damage({ what: 'batch', position, length, ids });
    }
    const kind = isVoid ? EntryKind.VOID : isGood ? EntryKind.DATA : EntryKind.DAMAGED;
    const entry = { base, publishedAt, count, segment: this.#segment, kind, offset: position, length, check };
    return { name, hash, entry, expiresMax };
  }

  #zeroSectors(start: number, end: number): number {
    let count = 0;
    for (let position = start; position < end; position += SECTOR_BYTES) {
      if (this.#window.isZero(position, Math.min(end, position + SECTOR_BYTES))) count += 1;
    }
    return count;
  }

  #keepPending(): void {
    if (this.#pending === null) return;
    for (const { name, hash, entry, expiresMax } of this.#pending.found) {
      this.#entries.add(name, 0, name.length, hash, entry, expiresMax);
    }
    this.#pending = null;
  }

  /** The group at `position` was written behind another group than the one that is there: old bytes came back (traps S6). */
  #doubtPending(position: number): void {
    const pending = this.#pending;
    if (pending === null) {
      this.#damage({ what: 'chain', position, length: 0 });
      return;
    }
    this.#pending = null;
    if (pending.found.length === 0) this.#damage({ what: 'chain', position: pending.position, length: pending.length });
    for (const { name, hash, entry, expiresMax } of pending.found) {
      const ids = { subject: name.toString(), from: entry.base, to: entry.base + entry.count };
      this.#damage({ what: 'chain', position: pending.position, length: pending.length, ids });
      entry.kind = EntryKind.DAMAGED;
      this.#entries.add(name, 0, name.length, hash, entry, expiresMax);
    }
  }

  #damage(damage: Damage): void {
    this.#damageCount += 1;
    if (this.#damages.length < DAMAGES_MAX) this.#damages.push(damage);
  }
}

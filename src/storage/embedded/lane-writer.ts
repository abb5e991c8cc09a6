import { randomInt } from 'node:crypto';
import { join } from 'node:path';
import { assert } from '../../base/assert.ts';
import { BrokerError } from '../../base/errors.ts';
import type { SubjectTable } from '../../base/subject-table.ts';
import { type Disk, DiskError, type DiskFile, DiskFull } from '../disk.ts';
import { type SealedBatch, StoreFailure } from '../store.ts';
import { encodeGroup, groupBytes } from './group-encoder.ts';
import { encodeSegmentHeader, SEGMENT_HEADER_BYTES, segmentId, segmentName } from './segment-format.ts';
import { type SegmentSummary, SidecarBuilder } from './sidecar.ts';
import { writeSidecar } from './sidecar-files.ts';
import type { IndexEntry } from './slot-index.ts';
import type { TailCache } from './tail-cache.ts';

/** Up to this size the write itself (a copy into the page cache, about 30 us) is not worth the way through the thread pool. */
const SYNC_WRITE_BYTES_MAX = 64 * 1024;
/** Bits of a nonce; randomInt takes a range below 2^48. */
const NONCE_MAX = 2 ** 48 - 1;

/** The segment being written. */
interface OpenSegment {
  readonly id: number;
  readonly number: number;
  readonly file: DiskFile;
  readonly nonce: number;
  /** Where the next group goes; everything before is durable. */
  position: number;
  chain: number;
  readonly entries: SidecarBuilder;
}

/** A group that is durable. */
export interface WrittenGroup {
  readonly segment: number;
  /** Where batch i starts in the segment. Valid until the next write. */
  readonly offsets: readonly number[];
}

export interface LaneOptions {
  readonly disk: Disk;
  /** Folder of the lane; it exists. */
  readonly path: string;
  readonly lane: number;
  /** Number of the next segment. */
  readonly nextNumber: number;
  /** A segment is closed at about this size. */
  readonly segmentBytes: number;
  readonly cache: TailCache;
  /** Epoch ms. */
  readonly now: () => number;
  readonly onSealed: (summary: SegmentSummary) => void;
  /** Something that an operator should know and that needs no action here. */
  readonly onNotice: (message: string, error: unknown) => void;
  readonly onFatal: (error: unknown) => void;
}

/**
 * Writes one lane, one group at a time: a write and a fdatasync each. A group is visible to nobody before both are done, and nothing is
 * written during a fdatasync, so that it covers all that it is taken for (traps S3).
 */
export class LaneWriter {
  readonly #options: LaneOptions;
  #nextNumber: number;
  #open: OpenSegment | null = null;
  #isWriting = false;
  /** Offsets of the group being written, reused. */
  readonly #offsets: number[] = [];
  /** Sidecars being written, one after another. */
  #sealing: Promise<void> = Promise.resolve();

  constructor(options: LaneOptions) {
    this.#options = options;
    this.#nextNumber = options.nextNumber;
  }

  /** The segment that grows, or -1. */
  get openSegment(): number {
    return this.#open?.id ?? -1;
  }

  /** Bytes in the segment that grows. */
  get openBytes(): number {
    return this.#open?.position ?? 0;
  }

  /** Memory of what is noted for the sidecar of the segment that grows, in bytes. */
  get notesBytes(): number {
    return this.#open?.entries.byteLength() ?? 0;
  }

  /** Makes the group durable. Rejects as MessageStore.append says. The caller waits before it writes the next. */
  async write(batches: readonly SealedBatch[]): Promise<WrittenGroup> {
    assert(!this.#isWriting, 'a lane has one write on its way');
    this.#isWriting = true;
    try {
      const length = groupBytes(batches);
      const segment = await this.#segmentFor(length);
      await this.#writeGroup(segment, batches, length);
      return { segment: segment.id, offsets: this.#offsets };
    } finally {
      this.#isWriting = false;
    }
  }

  /** Notes a batch of the group written last, whose subject is in a row of the index, in the segment's sidecar-to-be. */
  note(table: SubjectTable, row: number, entry: IndexEntry, expiresMax: number): void {
    assert(this.#open !== null && this.#open.id === entry.segment, 'a batch is noted in a segment that was sealed');
    this.#open.entries.addRow(table, row, entry, expiresMax);
  }

  /** Seals the segment that grows. The lane can be written on, in a new segment. */
  async seal(): Promise<void> {
    if (this.#open !== null) this.#seal(this.#open);
    await this.#sealing;
  }

  async #segmentFor(length: number): Promise<OpenSegment> {
    const open = this.#open;
    if (open !== null) {
      if (open.position === SEGMENT_HEADER_BYTES || open.position + length <= this.#options.segmentBytes) return open;
      this.#seal(open);
    }
    const created = await this.#create();
    this.#open = created;
    return created;
  }

  async #writeGroup(segment: OpenSegment, batches: readonly SealedBatch[], length: number): Promise<void> {
    const { cache } = this.#options;
    const staged = cache.stage(length);
    const target = staged < 0 ? Buffer.allocUnsafeSlow(length) : cache.bytes;
    const start = Math.max(0, staged);
    const { position, nonce, chain: previous } = segment;
    const chain = encodeGroup(target, start, length, batches, { position, nonce, previous }, this.#offsets);
    try {
      await this.#writeDurably(segment, target, start, length);
    } catch (error) {
      cache.abort();
      throw error;
    }
    if (staged >= 0) cache.commit(segment.id, position);
    for (let i = 0; i < this.#offsets.length; i++) this.#offsets[i] = position + (this.#offsets[i] as number);
    segment.position = position + length;
    segment.chain = chain;
  }

  async #writeDurably(segment: OpenSegment, target: Buffer, start: number, length: number): Promise<void> {
    const { file, position } = segment;
    try {
      if (length <= SYNC_WRITE_BYTES_MAX) file.writeFullySync(target, start, start + length, position);
      else await file.writevFully([target.subarray(start, start + length)], position);
    } catch (error) {
      await cutBack(file, position, error);
      throw refusal(error);
    }
    await file.fdatasync();
  }

  /**
   * Name and header are durable before the first group is written (traps S4). Were the header left to that group's sync, a cut could keep the
   * group and lose the header, which would look like damage.
   */
  async #create(): Promise<OpenSegment> {
    const { disk, path, lane, now } = this.#options;
    const number = this.#nextNumber;
    const filePath = join(path, segmentName(number));
    const header = Buffer.alloc(SEGMENT_HEADER_BYTES);
    const nonce = randomInt(NONCE_MAX);
    const chain = encodeSegmentHeader(header, { lane, number, nonce, createdAt: now() });
    let file: DiskFile;
    try {
      file = disk.createExclusive(filePath, 'segment');
    } catch (error) {
      throw refusal(error);
    }
    this.#nextNumber = number + 1;
    try {
      file.writeFullySync(header, 0, header.length, 0);
      await file.fdatasync();
      disk.syncDirectory(path);
    } catch (error) {
      file.close();
      // A full disk is tried again and again, for days: its number is another's, or there would be none left.
      if (this.#tryRemoveUnborn(filePath)) this.#nextNumber = number;
      throw refusal(error);
    }
    return {
      id: segmentId(lane, number),
      number,
      file,
      nonce,
      position: SEGMENT_HEADER_BYTES,
      chain,
      entries: new SidecarBuilder(),
    };
  }

  /** A segment that never held a group. If it stays, the next start removes it. */
  #tryRemoveUnborn(path: string): boolean {
    try {
      this.#options.disk.unlink(path);
      return true;
    } catch (error) {
      this.#options.onNotice(`cannot remove the empty segment ${path}`, error);
      return false;
    }
  }

  #seal(segment: OpenSegment): void {
    this.#open = null;
    segment.file.close();
    const { disk, path, onSealed, onNotice, onFatal } = this.#options;
    const summary = segment.entries.summary({
      segment: segment.id,
      nonce: segment.nonce,
      length: segment.position,
      chain: segment.chain,
      damaged: 0,
    });
    if (summary.batches === 0) {
      this.#tryRemoveUnborn(segment.file.path);
      return;
    }
    const bytes = segment.entries.encode(summary);
    this.#sealing = this.#sealing.then(async () => {
      try {
        await writeSidecar(disk, path, segment.number, bytes);
      } catch (error) {
        if (error instanceof DiskError && error.fatal) {
          onFatal(error);
          return;
        }
        onNotice('a sidecar could not be written; its segment will be scanned at the next start', error);
      }
      onSealed(summary);
    });
  }
}

/** Takes the bytes of a failed write away again: afterwards nothing of the group will ever be found. */
async function cutBack(file: DiskFile, position: number, reason: unknown): Promise<void> {
  if (reason instanceof DiskError && reason.fatal) throw reason;
  try {
    file.truncate(position);
    await file.fdatasync();
  } catch (cause) {
    if (cause instanceof DiskError && cause.fatal) throw cause;
    throw new StoreFailure(`cannot take back a failed write to ${file.path}`, { cause });
  }
}

/** What the caller of `append` is told of an error that left nothing behind. */
function refusal(error: unknown): unknown {
  if (!(error instanceof DiskError) || error.fatal) return error;
  const reason = error instanceof DiskFull ? 'STORE_FULL' : 'STORE_UNAVAILABLE';
  return new BrokerError(reason, error.message, { cause: error });
}

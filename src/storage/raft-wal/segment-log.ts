import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { failpoint } from '../../base/failpoint.ts';
import { type Disk, type DiskFile, DiskFull } from '../disk.ts';
import type { EndMark } from './end-mark.ts';
import { SEGMENT_TEMPORARY_NAME, segmentName } from './format.ts';
import { RecordBuilder } from './record.ts';
import type { SegmentFile } from './recovery.ts';

interface OpenSegment {
  readonly file: DiskFile;
  readonly epoch: number;
  /** Position behind the last record. */
  end: number;
  /** Size of the file: zeros from `end` to here. */
  allocated: number;
  /** Everything before this position is durable. */
  synced: number;
  syncsUnderWay: number;
  /** Replaced by a newer segment: closed once no sync is under way. */
  isRetired: boolean;
}

export interface SegmentLogOptions {
  readonly segmentBytes: number;
  readonly preallocateBytes: number;
  readonly instance: Uint8Array;
}

/** Where a log that exists goes on. */
export interface SegmentLogEnd {
  readonly segments: readonly SegmentFile[];
  readonly epoch: number;
  readonly end: number;
  readonly fileBytes: number;
  readonly last: number;
}

/**
 * The chain of records in its files: where the next one goes, when a file is full, how far it is durable. Knows nothing of what the
 * records mean. `restate` fills a new segment with the records that make the older ones dispensable.
 */
export class SegmentLog {
  readonly #disk: Disk;
  readonly #dir: string;
  readonly #options: SegmentLogOptions;
  readonly #restate: (write: (builder: RecordBuilder) => void) => void;
  readonly #headBuilder = new RecordBuilder();
  /** Oldest first; the last one is open. */
  readonly #segments: SegmentFile[];
  #open: OpenSegment;
  /** Checksum of the last record, the seed of the next. */
  #last: number;
  /** First failure that is not a full disk: what the file holds is not known, so nothing may follow. */
  #broken: unknown = null;

  constructor(
    disk: Disk,
    dir: string,
    options: SegmentLogOptions,
    restate: (write: (builder: RecordBuilder) => void) => void,
    end: SegmentLogEnd | null,
  ) {
    this.#disk = disk;
    this.#dir = dir;
    this.#options = options;
    this.#restate = restate;
    if (end === null) {
      this.#last = 0;
      const made = this.#create({ firstIndex: 1, sequence: 1 });
      this.#open = made.open;
      this.#segments = [made.segment];
    } else {
      this.#last = end.last;
      this.#segments = [...end.segments];
      const file = disk.open(join(dir, (this.#segments.at(-1) as SegmentFile).name), 'write', 'wal');
      const { epoch, fileBytes } = end;
      this.#open = {
        file,
        epoch,
        end: end.end,
        allocated: fileBytes,
        synced: end.end,
        syncsUnderWay: 0,
        isRetired: false,
      };
    }
  }

  get segmentCount(): number {
    return this.#segments.length;
  }

  /** True if a record of this length has to begin a new segment. */
  isFull(length: number): boolean {
    return this.#open.end + length > this.#options.segmentBytes;
  }

  /** True if everything that was written is durable. */
  get isSynced(): boolean {
    return this.#open.synced === this.#open.end;
  }

  /** Where the log ends; null unless all of it is durable. */
  get end(): EndMark | null {
    if (this.#broken !== null || !this.isSynced) return null;
    const { sequence } = this.#segments.at(-1) as SegmentFile;
    return { sequence, position: this.#open.end, last: this.#last };
  }

  /**
   * Writes the record in the builder with one write. After DiskFull the log is as it was and the same record, or another, may be written
   * later; after any other error the log takes nothing more.
   */
  write(builder: RecordBuilder): void {
    this.#assertWhole();
    const open = this.#open;
    const crc = builder.seal({ epoch: open.epoch, previous: this.#last, position: open.end, synced: open.synced });
    const end = open.end + builder.length;
    try {
      open.file.writeFullySync(builder.bytes, 0, builder.length, open.end);
    } catch (error) {
      this.#takeBack(error);
    }
    this.#last = crc;
    open.end = end;
    if (end > open.allocated) this.#preallocate(open);
  }

  sync(): void {
    this.#assertWhole();
    const open = this.#open;
    if (open.synced === open.end) return;
    try {
      open.file.fdatasyncSync();
    } catch (error) {
      throw this.#break(error);
    }
    open.synced = open.end;
  }

  /** Only what was written before the call is durable when it resolves (traps S3). */
  async syncAsync(): Promise<void> {
    this.#assertWhole();
    const open = this.#open;
    const end = open.end;
    if (open.synced === end) return;
    open.syncsUnderWay += 1;
    try {
      await open.file.fdatasync();
      open.synced = Math.max(open.synced, end);
    } catch (error) {
      throw this.#break(error);
    } finally {
      open.syncsUnderWay -= 1;
      if (open.isRetired && open.syncsUnderWay === 0) open.file.close();
    }
  }

  /**
   * Begins a segment. All that came before is synced first, because the new segment is chained to it; the new one gets its name only when
   * its head is durable, and is used only when the name is (traps S4).
   */
  roll(firstIndex: number): void {
    this.sync();
    const sequence = (this.#segments.at(-1) as SegmentFile).sequence + 1;
    const made = this.#create({ firstIndex, sequence });
    const before = this.#open;
    before.isRetired = true;
    if (before.syncsUnderWay === 0) before.file.close();
    this.#open = made.open;
    this.#segments.push(made.segment);
  }

  /** Deletes the oldest segments while they hold nothing beyond `index`. Returns how many. */
  dropThrough(index: number): number {
    let dropped = 0;
    while (this.#segments.length > 1 && (this.#segments[1] as SegmentFile).firstIndex <= index + 1) {
      this.#disk.unlink(join(this.#dir, (this.#segments[0] as SegmentFile).name));
      this.#segments.shift();
      dropped += 1;
    }
    return dropped;
  }

  close(): void {
    this.#open.isRetired = true;
    if (this.#open.syncsUnderWay === 0) this.#open.file.close();
  }

  #create(place: { readonly firstIndex: number; readonly sequence: number }): {
    readonly open: OpenSegment;
    readonly segment: SegmentFile;
  } {
    const epoch = randomBytes(4).readUInt32LE();
    const temporary = join(this.#dir, SEGMENT_TEMPORARY_NAME);
    const segment = { name: segmentName(place.firstIndex, place.sequence), ...place };
    const final = join(this.#dir, segment.name);
    let last = this.#last;
    let end = 0;
    const file = this.#disk.createOrEmpty(temporary, 'wal-roll');
    try {
      const write = (builder: RecordBuilder): void => {
        last = builder.seal({ epoch, previous: last, position: end, synced: 0 });
        file.writeFullySync(builder.bytes, 0, builder.length, end);
        end += builder.length;
      };
      this.#headBuilder.putSegment(place.sequence, place.firstIndex, this.#options.instance);
      write(this.#headBuilder);
      this.#restate(write);
      file.fdatasyncSync();
      failpoint('wal-roll.named');
      this.#disk.rename(temporary, final);
      failpoint('wal-roll.ready');
    } catch (error) {
      file.close();
      if (error instanceof DiskFull) throw error;
      throw this.#break(error);
    }
    file.close();
    const named = this.#disk.open(final, 'write', 'wal');
    const open = { file: named, epoch, end, allocated: end, synced: end, syncsUnderWay: 0, isRetired: false };
    this.#last = last;
    this.#preallocate(open);
    return { open, segment };
  }

  /** Zeros up to the next step. An optimisation: a disk too full for it is no error. */
  #preallocate(open: OpenSegment): void {
    open.allocated = open.end;
    const step = this.#options.preallocateBytes;
    if (step === 0) return;
    const to = Math.min(Math.ceil((open.end + 1) / step) * step, Math.max(open.end, this.#options.segmentBytes));
    try {
      open.file.preallocate(open.end, to);
      open.allocated = to;
    } catch (error) {
      if (!(error instanceof DiskFull)) throw this.#break(error);
      this.#cutTo(open, open.end);
    }
  }

  /** After a failed write: DiskFull leaves the file as it was before, anything else breaks the log. */
  #takeBack(error: unknown): never {
    if (!(error instanceof DiskFull)) throw this.#break(error);
    this.#cutTo(this.#open, this.#open.end);
    throw error;
  }

  #cutTo(open: OpenSegment, length: number): void {
    try {
      open.file.truncate(length);
      open.allocated = length;
    } catch (error) {
      throw this.#break(error);
    }
  }

  #break(error: unknown): unknown {
    this.#broken ??= error;
    return error;
  }

  #assertWhole(): void {
    if (this.#broken !== null) throw this.#broken;
  }
}

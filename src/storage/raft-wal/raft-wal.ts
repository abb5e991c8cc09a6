import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { assert } from '../../base/assert.ts';
import { failpoint } from '../../base/failpoint.ts';
import { type Disk, type DiskFile, DiskFull } from '../disk.ts';
import { END_NAME, writeEndMark } from './end-mark.ts';
import { INDEX_MAX, SEGMENT_INSTANCE_BYTES } from './format.ts';
import { type ParsedPointer, RecordBuilder } from './record.ts';
import { emptyReport, quarantine, recover } from './recovery.ts';
import { Reserve } from './reserve.ts';
import { SegmentLog } from './segment-log.ts';
import { SNAPSHOT_TEMPORARY_NAME, SnapshotFileWriter, SnapshotReader, snapshotName } from './snapshot-file.ts';
import {
  PREALLOCATE_BYTES_DEFAULT,
  RESERVE_BYTES_DEFAULT,
  SEGMENT_BYTES_DEFAULT,
  type SnapshotHead,
  type SnapshotWriter,
  type StoredSnapshot,
  type WalEntry,
  type WalHardState,
  type WalOptions,
  type WalReport,
  type WalState,
} from './types.ts';

/** Two, so that one damaged file does not end the node. */
const SNAPSHOTS_KEPT = 2;
const NO_HARD_STATE: WalHardState = { term: 0, vote: '', commit: 0 };

/**
 * The Raft log on disk. The order that makes it safe is the caller's, and visible: `append`, then `sync`, then speak (traps R3, R4). One thread, one
 * instance per directory (the data directory's lock sees to it).
 *
 * Errors: DiskFull leaves everything as it was before the call: free space (`releaseReserve`) and call again. Any other DiskError,
 * SyncFailed above all, means that the process must end; the log refuses everything from then on with the same error.
 */
export class RaftWal {
  readonly #disk: Disk;
  readonly #dir: string;
  readonly #log: SegmentLog;
  readonly #reserve: Reserve;
  readonly #builder = new RecordBuilder();
  #hardState: WalHardState = NO_HARD_STATE;
  #lastIndex = 0;
  /** Oldest first. */
  #snapshots: ParsedPointer[] = [];
  #writer: Writer | null = null;
  #hasEndMark: boolean;

  private constructor(disk: Disk, dir: string, options: WalOptions, recovered: ReturnType<typeof recover>) {
    this.#disk = disk;
    this.#dir = dir;
    this.#hasEndMark = recovered?.hasEndMark ?? false;
    if (recovered !== null) {
      this.#hardState = recovered.replay.hardState;
      this.#lastIndex = recovered.replay.lastIndex;
      this.#snapshots = [...recovered.kept];
    }
    const end = recovered && {
      segments: recovered.segments,
      epoch: recovered.newest.epoch,
      end: recovered.newest.end,
      fileBytes: recovered.newest.torn === null ? recovered.newest.fileBytes : recovered.newest.end,
      last: recovered.newest.last,
    };
    const log = {
      segmentBytes: options.segmentBytes ?? SEGMENT_BYTES_DEFAULT,
      preallocateBytes: options.preallocateBytes ?? PREALLOCATE_BYTES_DEFAULT,
      instance: instanceBytes(options),
    };
    this.#log = new SegmentLog(disk, dir, log, (write) => this.#restate(write), end);
    this.#reserve = new Reserve(disk, dir, options.reserveBytes ?? RESERVE_BYTES_DEFAULT);
    this.#reserve.restore();
  }

  /**
   * Opens the log in `dir` (made if need be; its parent must exist) and recovers it. Throws StartError (RAFT_LOG_DAMAGED with the place,
   * RAFT_LOG_VERSION), before it has changed anything, and DiskError.
   */
  static open(
    disk: Disk,
    dir: string,
    options: WalOptions = {},
  ): { readonly wal: RaftWal; readonly state: WalState; readonly report: WalReport } {
    disk.mkdir(dir);
    const recovered = recover(disk, dir, instanceBytes(options));
    const wal = new RaftWal(disk, dir, options, recovered);
    const report = recovered?.report ?? emptyReport();
    const state = {
      hardState: wal.#hardState,
      entries: recovered?.replay.entries ?? [],
      snapshot: recovered?.snapshot ?? null,
    };
    return { wal, state, report };
  }

  /** Of the last entry, or of the snapshot when none follows it. */
  get lastIndex(): number {
    return this.#lastIndex;
  }

  get segmentCount(): number {
    return this.#log.segmentCount;
  }

  /** True if all that was appended is durable. */
  get isSynced(): boolean {
    return this.#log.isSynced;
  }

  /**
   * Writes entries and hard state as one record: after a crash both are there or neither is. Not durable before `sync`. The entries are
   * without gaps; the first may overwrite a suffix that is not committed. The data is copied out before it returns.
   */
  append(entries: readonly WalEntry[], hardState: WalHardState | null): void {
    if (entries.length === 0 && hardState === null) return;
    const last = this.#checkEntries(entries);
    if (hardState !== null) this.#checkHardState(hardState, last);
    this.#goOn();
    this.#builder.putAppend(entries, hardState);
    if (this.#log.isFull(this.#builder.length)) this.#log.roll(this.#lastIndex + 1);
    this.#log.write(this.#builder);
    this.#builder.trim();
    this.#lastIndex = last;
    if (hardState !== null) this.#hardState = hardState;
  }

  /** Everything appended is durable when it returns. Blocks. Throws SyncFailed. */
  sync(): void {
    this.#log.sync();
  }

  /** Everything appended before the call is durable when it resolves. Rejects with SyncFailed. */
  syncAsync(): Promise<void> {
    return this.#log.syncAsync();
  }

  /**
   * Begins a snapshot at `head.index`. Chunks are written in slices of the caller's choice, between appends. One at a time. A cut-off one
   * leaves a temporary file, which the next one empties.
   */
  beginSnapshot(head: SnapshotHead): SnapshotWriter {
    assert(this.#writer === null, 'a snapshot is under way');
    const newest = this.#snapshots.at(-1)?.index ?? 0;
    assert(head.index > newest, () => `snapshot ${head.index} is not newer than ${newest}`);
    this.#writer = new Writer(this.#disk, this.#dir, head, {
      publish: (snapshot, crc, origin, pointed) => this.#publish(snapshot, crc, origin, pointed),
      ended: () => {
        this.#writer = null;
      },
    });
    return this.#writer;
  }

  /** The newest snapshot, to restore from or to send; null if there is none. Throws SnapshotDamaged while it is read. */
  readSnapshot(): SnapshotReader | null {
    const newest = this.#snapshots.at(-1);
    return newest === undefined ? null : new SnapshotReader(this.#disk, this.#snapshotPath(newest));
  }

  get holdsReserve(): boolean {
    return this.#reserve.held;
  }

  /** See reserve.ts. False if there was nothing to give. */
  releaseReserve(): boolean {
    return this.#reserve.release();
  }

  /** See reserve.ts. True if the reserve is held now. */
  restoreReserve(): boolean {
    return this.#reserve.restore();
  }

  /** Behind the last sync, before `close`: says where the log ends (end-mark.ts), until it is written to again. Throws DiskError. */
  markEnd(): void {
    const { end } = this.#log;
    if (end === null || this.#hasEndMark) return;
    try {
      writeEndMark(this.#disk, this.#dir, end);
      this.#hasEndMark = true;
    } catch (error) {
      // The next start knows no more of the end than behind a crash.
      if (!(error instanceof DiskFull)) throw error;
    }
  }

  /** Does not sync. */
  close(): void {
    this.#writer?.abort();
    this.#log.close();
  }

  /** Before the first write: the log does not end where it was closed any more. */
  #goOn(): void {
    if (!this.#hasEndMark) return;
    this.#disk.unlink(join(this.#dir, END_NAME));
    this.#hasEndMark = false;
  }

  /** Returns the last index after the append. */
  #checkEntries(entries: readonly WalEntry[]): number {
    if (entries.length === 0) return this.#lastIndex;
    const first = (entries[0] as WalEntry).index;
    const last = first + entries.length - 1;
    assert(first <= this.#lastIndex + 1, () => `entry ${first} leaves a gap behind ${this.#lastIndex}`);
    assert(first > this.#hardState.commit, () => `entry ${first} would overwrite what is committed`);
    assert(first > (this.#snapshots.at(-1)?.index ?? 0), () => `entry ${first} is behind the snapshot`);
    assert(last <= INDEX_MAX, () => `entry ${last} is beyond 2^53-2`);
    for (let i = 0; i < entries.length; i++) {
      assert((entries[i] as WalEntry).index === first + i, 'the entries of an append have a gap');
    }
    return last;
  }

  #checkHardState(next: WalHardState, last: number): void {
    assert(next.commit <= last, () => `commit ${next.commit} is beyond the last entry ${last}`);
    assert(next.term >= this.#hardState.term, 'the term fell');
    assert(next.commit >= this.#hardState.commit, 'the commit index fell');
  }

  /** What a new segment begins with, so that older ones are dispensable. */
  #restate(write: (builder: RecordBuilder) => void): void {
    const builder = new RecordBuilder();
    for (const pointer of this.#snapshots) {
      // It has replaced the entries before it where it was first written; here it must not replace the ones since.
      builder.putPointer({ ...pointer, installed: false });
      write(builder);
    }
    if (this.#hardState !== NO_HARD_STATE) {
      builder.putAppend([], this.#hardState);
      write(builder);
    }
  }

  /**
   * The file is durable under its name: points at it, then lets go of what it replaces. `pointed` is called when the pointer is written: a DiskFull before
   * that leaves the log as it was.
   */
  #publish(snapshot: StoredSnapshot, crc: number, origin: 'local' | 'installed', pointed: () => void): void {
    const { index, term, bytes } = snapshot;
    const installed = origin === 'installed';
    assert(installed || index <= this.#lastIndex, 'a snapshot of what is not in the log');
    const pointer = { index, term, bytes, crc, installed };
    this.#goOn();
    const builder = new RecordBuilder();
    builder.putPointer(pointer);
    if (this.#log.isFull(builder.length)) this.#log.roll(this.#lastIndex + 1);
    this.#log.write(builder);
    pointed();
    if (installed) this.#lastIndex = index;
    const before = this.#snapshots;
    // The log before an installed snapshot is void, so no older snapshot could stand in for it.
    this.#snapshots = [...(installed ? [] : before.slice(1 - SNAPSHOTS_KEPT)), pointer];
    this.#log.sync();
    failpoint('snap.pointed');
    for (const old of before) {
      if (!this.#snapshots.includes(old)) this.#disk.unlink(this.#snapshotPath(old));
    }
    // Back to the oldest snapshot that is kept, or it could not stand in for a damaged newer one.
    this.#log.dropThrough((this.#snapshots[0] as ParsedPointer).index);
  }

  #snapshotPath(pointer: ParsedPointer): string {
    return join(this.#dir, snapshotName(pointer.index, pointer.term));
  }
}

interface WriterEvents {
  publish(snapshot: StoredSnapshot, crc: number, origin: 'local' | 'installed', pointed: () => void): void;
  ended(): void;
}

/** One snapshot on its way: temporary file, durable, named, pointed at. `finish` goes on where a full disk stopped it. */
class Writer implements SnapshotWriter {
  readonly #disk: Disk;
  readonly #dir: string;
  readonly #head: SnapshotHead;
  readonly #events: WriterEvents;
  readonly #file: DiskFile;
  readonly #content: SnapshotFileWriter;
  #stage: 'writing' | 'complete' | 'named' | 'ended' = 'writing';
  /** The log may name the file already. */
  #mayBePointedAt = false;
  #syncsUnderWay = 0;

  constructor(disk: Disk, dir: string, head: SnapshotHead, events: WriterEvents) {
    this.#disk = disk;
    this.#dir = dir;
    this.#head = head;
    this.#events = events;
    this.#file = disk.createOrEmpty(this.#temporary, 'snap');
    try {
      this.#content = new SnapshotFileWriter(this.#file, head, randomBytes(4).readUInt32LE());
    } catch (error) {
      this.#file.close();
      throw error;
    }
  }

  get index(): number {
    return this.#head.index;
  }

  get term(): number {
    return this.#head.term;
  }

  get bytesWritten(): number {
    return this.#content.bytesWritten;
  }

  write(chunk: Uint8Array): void {
    assert(this.#stage === 'writing', 'the snapshot is complete');
    this.#content.write(chunk);
  }

  flush(): Promise<void> {
    assert(this.#stage === 'writing', 'the snapshot is complete');
    return this.#sync();
  }

  async finish(origin: 'local' | 'installed'): Promise<StoredSnapshot> {
    assert(this.#stage !== 'ended', 'the snapshot has ended');
    if (this.#stage === 'writing') {
      this.#content.writeTrailer();
      this.#stage = 'complete';
    }
    if (this.#stage === 'complete') {
      await this.#sync();
      this.#name();
    }
    const snapshot = { ...this.#head, path: this.#path, bytes: this.#content.bytesWritten };
    let isPointedAt = false;
    try {
      this.#mayBePointedAt = true;
      this.#events.publish(snapshot, this.#content.crc, origin, () => {
        isPointedAt = true;
      });
    } catch (error) {
      // Of a full disk the log is as it was before. To let go of what was replaced may need space too.
      if (error instanceof DiskFull && !isPointedAt) this.#mayBePointedAt = false;
      throw error;
    }
    this.#end();
    return snapshot;
  }

  abort(): void {
    if (this.#stage === 'ended') return;
    const path = this.#stage === 'named' ? this.#path : this.#temporary;
    this.#end();
    if (!this.#mayBePointedAt) this.#disk.unlink(path);
  }

  #end(): void {
    this.#stage = 'ended';
    if (this.#syncsUnderWay === 0) this.#file.close();
    this.#events.ended();
  }

  async #sync(): Promise<void> {
    this.#syncsUnderWay += 1;
    try {
      await this.#file.fdatasync();
    } finally {
      this.#syncsUnderWay -= 1;
      if (this.#stage === 'ended' && this.#syncsUnderWay === 0) this.#file.close();
    }
    assert(this.#stage !== 'ended', 'the snapshot was aborted while it was made durable');
  }

  #name(): void {
    const name = snapshotName(this.#head.index, this.#head.term);
    // Nothing points at it: a crash came between its name and its pointer.
    if (this.#disk.size(this.#path) >= 0) quarantine(this.#disk, this.#dir, name);
    failpoint('snap.durable');
    this.#disk.rename(this.#temporary, this.#path);
    failpoint('snap.named');
    this.#stage = 'named';
  }

  get #temporary(): string {
    return join(this.#dir, SNAPSHOT_TEMPORARY_NAME);
  }

  get #path(): string {
    return join(this.#dir, snapshotName(this.#head.index, this.#head.term));
  }
}

function instanceBytes(options: WalOptions): Uint8Array {
  if (options.instanceId === undefined) return new Uint8Array(SEGMENT_INSTANCE_BYTES);
  const bytes = Buffer.from(options.instanceId, 'hex');
  assert(bytes.length === SEGMENT_INSTANCE_BYTES, 'an instance id is 32 hex digits');
  return bytes;
}

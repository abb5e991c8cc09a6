import { join } from 'node:path';
import { isPlanted } from '../../base/planted.ts';
import type { Disk } from '../disk.ts';
import { DiskError } from '../disk.ts';
import { END_NAME, type EndMark, readEndMark } from './end-mark.ts';
import * as format from './format.ts';
import type { ParsedPointer } from './record.ts';
import { Replay } from './replay.ts';
import { type SegmentScan, scanSegment } from './segment-scan.ts';
import { isSnapshotName, SnapshotDamaged, SnapshotReader, snapshotName } from './snapshot-file.ts';
import type { StoredSnapshot, WalReport } from './types.ts';
import { WalDamaged } from './wal-error.ts';

const QUARANTINE_NAME = 'quarantine';

export interface SegmentFile {
  readonly name: string;
  readonly firstIndex: number;
  readonly sequence: number;
}

export interface Recovered {
  readonly replay: Replay;
  readonly snapshot: StoredSnapshot | null;
  /** Usable snapshots that are pointed at, oldest first, at most 2; the last is `snapshot`. */
  readonly kept: ParsedPointer[];
  /** Oldest first; never empty. */
  readonly segments: SegmentFile[];
  readonly newest: SegmentScan;
  readonly report: WalReport;
  /** The mark of a good end is there: it goes before anything is written. */
  readonly hasEndMark: boolean;
}

/** A snapshot file, read to its end. */
interface Verified {
  readonly snapshot: StoredSnapshot;
  readonly crc: number;
}

/**
 * Reads the log and decides what it says. Everything is judged before anything on the disk is changed; then torn bytes are cut, damaged
 * snapshots that can be done without are put in quarantine, and what is kept is made durable before it is used (traps R24, S9).
 * Null if there is no log yet.
 */
export function recover(disk: Disk, dir: string, instance: Uint8Array): Recovered | null {
  const names = disk.list(dir);
  const segments = segmentsOf(dir, names);
  const report = emptyReport();
  report.ignored = names.filter((name) => !isOurs(name));
  if (segments.length === 0) {
    const orphan = names.find((name) => isSnapshotName(name) || name === END_NAME);
    if (orphan !== undefined) throw new WalDamaged(join(dir, orphan), -1, 'it is there, and the log is not');
    return null;
  }
  const mark = isPlanted('R24-end-unmarked') ? null : readEndMark(disk, dir);
  const files = new SnapshotFiles(disk, dir);
  const newestWhole = files.newestWhole(names);
  const replay = new Replay((segments[0] as SegmentFile).firstIndex, newestWhole?.snapshot.index ?? 0);
  const newest = scanAll(disk, dir, segments, { replay, report, instance });
  const end = mark === null || mark === 'damaged' ? mark : checkEnd(dir, segments.at(-1) as SegmentFile, newest, mark);
  const choice = chooseSnapshot(dir, replay, files);
  replay.dropTo(choice.snapshot?.index ?? 0);
  checkReach(dir, replay, choice.snapshot);
  report.entries = replay.entries.length;

  const pointed = new Set(replay.pointers.map((pointer) => snapshotName(pointer.index, pointer.term)));
  report.ignored.push(...names.filter((name) => isSnapshotName(name) && !pointed.has(name)));
  for (const name of choice.damaged) {
    report.damagedSnapshots.push(name);
    if (names.includes(name)) report.quarantined.push(quarantine(disk, dir, name));
  }
  if (end === 'damaged') report.quarantined.push(quarantine(disk, dir, END_NAME));
  settleNewest(disk, dir, segments, newest, report);
  return {
    replay,
    snapshot: choice.snapshot,
    kept: choice.kept,
    segments,
    newest,
    report,
    hasEndMark: end === 'right',
  };
}

/** Moves a file out of the way, under a name that is free. Returns where to. */
export function quarantine(disk: Disk, dir: string, name: string): string {
  const folder = join(dir, QUARANTINE_NAME);
  disk.mkdir(folder);
  let target = join(folder, name);
  for (let attempt = 1; disk.size(target) >= 0; attempt++) target = join(folder, `${name}.${attempt}`);
  disk.rename(join(dir, name), target);
  return target;
}

export function emptyReport(): WalReport {
  return {
    segments: 0,
    records: 0,
    entries: 0,
    bytes: 0,
    cut: null,
    damagedSnapshots: [],
    quarantined: [],
    ignored: [],
  };
}

function isOurs(name: string): boolean {
  return (
    format.parseSegmentName(name) !== null ||
    isSnapshotName(name) ||
    name === QUARANTINE_NAME ||
    name === END_NAME ||
    name === 'reserve'
  );
}

function segmentsOf(dir: string, names: readonly string[]): SegmentFile[] {
  const segments: SegmentFile[] = [];
  for (const name of names) {
    const parts = format.parseSegmentName(name);
    if (parts !== null) segments.push({ name, ...parts });
  }
  segments.sort((a, b) => a.sequence - b.sequence);
  for (let i = 1; i < segments.length; i++) {
    const before = segments[i - 1] as SegmentFile;
    const segment = segments[i] as SegmentFile;
    if (segment.sequence !== before.sequence + 1) {
      throw new WalDamaged(join(dir, segment.name), -1, `segment ${before.sequence + 1} is missing before it`);
    }
  }
  return segments;
}

function scanAll(
  disk: Disk,
  dir: string,
  segments: readonly SegmentFile[],
  into: { readonly replay: Replay; readonly report: WalReport; readonly instance: Uint8Array },
): SegmentScan {
  let scan: SegmentScan | null = null;
  for (const segment of segments) {
    const path = join(dir, segment.name);
    const isNewest = segment === segments.at(-1);
    const file = disk.open(path, 'read', 'wal');
    try {
      scan = scanSegment(file, { isNewest, previous: scan?.last ?? null }, (type, payload) =>
        into.replay.record(type, payload),
      );
    } catch (cause) {
      // A sector that cannot be read is damage too: what it held may be on other nodes.
      if (!(cause instanceof DiskError) || cause.code !== 'EIO') throw cause;
      throw new WalDamaged(path, -1, cause.message, { cause });
    } finally {
      file.close();
    }
    checkHeader(path, segment, scan, into.instance);
    into.report.segments += 1;
    into.report.records += scan.records;
    into.report.bytes += scan.end;
  }
  return scan as SegmentScan;
}

function checkHeader(path: string, segment: SegmentFile, scan: SegmentScan, instance: Uint8Array): void {
  const { header } = scan;
  if (header.sequence !== segment.sequence || header.firstIndex !== segment.firstIndex) {
    throw new WalDamaged(path, 0, `it was written as ${format.segmentName(header.firstIndex, header.sequence)}`);
  }
  if (!isNull(instance) && !isNull(header.instance) && Buffer.compare(header.instance, instance) !== 0) {
    throw new WalDamaged(path, 0, 'it was written by another instance of this node');
  }
}

/**
 * The log was closed in good order, so nothing of its end can be torn, and it does not end earlier. Where it goes on behind the mark it is whole,
 * and the mark is old.
 */
function checkEnd(dir: string, segment: SegmentFile, newest: SegmentScan, mark: EndMark): 'right' | 'damaged' {
  const isSame = segment.sequence === mark.sequence && newest.end === mark.position && newest.last === mark.last;
  const isBehind =
    segment.sequence > mark.sequence || (segment.sequence === mark.sequence && newest.end > mark.position);
  if (isBehind) return 'damaged';
  if (isSame && newest.torn === null) return 'right';
  const where = segment.sequence === mark.sequence ? `at byte ${mark.position}` : `in segment ${mark.sequence}`;
  const torn = newest.torn === null ? '' : ` (${newest.torn})`;
  throw new WalDamaged(
    join(dir, segment.name),
    newest.end,
    `the log ends here${torn}, and it was closed in good order ${where}`,
  );
}

function isNull(instance: Uint8Array): boolean {
  return instance.every((byte) => byte === 0);
}

interface Choice {
  readonly snapshot: StoredSnapshot | null;
  readonly kept: ParsedPointer[];
  /** Names of pointed-at snapshots that cannot be used, missing ones included. */
  readonly damaged: string[];
}

/** The newest snapshot that is pointed at and whole. An older one is kept only if the log has not moved past it. */
function chooseSnapshot(dir: string, replay: Replay, files: SnapshotFiles): Choice {
  const pointers = [...replay.pointers].sort((a, b) => b.index - a.index);
  const damaged: string[] = [];
  let chosen: Verified | null = null;
  const kept: ParsedPointer[] = [];
  for (const pointer of pointers) {
    const name = snapshotName(pointer.index, pointer.term);
    if (chosen !== null) {
      // Not read to its end here: that is done if it is ever needed.
      if (kept.length < 2 && files.exists(name)) kept.unshift(pointer);
      continue;
    }
    const verified = files.verify(join(dir, name));
    if (verified !== null && verified.crc === pointer.crc && verified.snapshot.bytes === pointer.bytes) {
      chosen = verified;
      kept.unshift(pointer);
    } else damaged.push(name);
  }
  return { snapshot: chosen?.snapshot ?? null, kept, damaged };
}

/** The log must begin right behind the snapshot: an older snapshot serves only while the log still reaches back to it. */
function checkReach(dir: string, replay: Replay, snapshot: StoredSnapshot | null): void {
  const reached = snapshot?.index ?? 0;
  if (replay.base > reached) {
    const have = snapshot === null ? 'no usable snapshot' : `the newest usable snapshot is ${snapshot.index}`;
    throw new WalDamaged(dir, -1, `the log begins at entry ${replay.base + 1} and there is ${have}`);
  }
  if (replay.lastIndex < reached || replay.hardState.commit > Math.max(replay.lastIndex, reached)) {
    throw new WalDamaged(dir, -1, `the log ends at ${replay.lastIndex}, before its snapshot ${reached} or its commit`);
  }
}

/** Cuts the torn tail, and makes durable what a crash may have left in the page cache only. */
function settleNewest(
  disk: Disk,
  dir: string,
  segments: readonly SegmentFile[],
  newest: SegmentScan,
  report: WalReport,
): void {
  const path = join(dir, (segments.at(-1) as SegmentFile).name);
  const file = disk.open(path, 'write', 'wal');
  try {
    if (newest.torn !== null) {
      file.truncate(newest.end);
      report.cut = { path, position: newest.end, reason: newest.torn };
    }
    file.fdatasyncSync();
  } finally {
    file.close();
  }
  disk.syncDirectory(dir);
}

/** Reads snapshot files to their end, each at most once. */
class SnapshotFiles {
  readonly #disk: Disk;
  readonly #dir: string;
  readonly #known = new Map<string, Verified | null>();

  constructor(disk: Disk, dir: string) {
    this.#disk = disk;
    this.#dir = dir;
  }

  newestWhole(names: readonly string[]): Verified | null {
    for (const name of names.filter(isSnapshotName).reverse()) {
      const verified = this.verify(join(this.#dir, name));
      if (verified !== null) return verified;
    }
    return null;
  }

  exists(name: string): boolean {
    return this.#disk.size(join(this.#dir, name)) >= 0;
  }

  /** Null if it is not there or not whole. */
  verify(path: string): Verified | null {
    let known = this.#known.get(path);
    if (known === undefined) {
      known = verifySnapshot(this.#disk, path);
      this.#known.set(path, known);
    }
    return known;
  }
}

function verifySnapshot(disk: Disk, path: string): Verified | null {
  let reader: SnapshotReader | null = null;
  try {
    reader = new SnapshotReader(disk, path);
    while (reader.nextChunk() !== null);
    return { snapshot: { ...reader.head, path, bytes: reader.fileBytes }, crc: reader.crc };
  } catch (error) {
    if (error instanceof SnapshotDamaged) return null;
    // An unreadable sector is damage too: what it held may be in the older snapshot.
    if (error instanceof DiskError && (error.code === 'ENOENT' || error.code === 'EIO')) return null;
    throw error;
  } finally {
    reader?.close();
  }
}

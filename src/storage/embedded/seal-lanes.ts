import { join } from 'node:path';
import { isPlanted } from '../../base/planted.ts';
import type { Disk } from '../disk.ts';
import { segmentId, segmentName, sidecarName } from './segment-format.ts';
import type { Damage } from './segment-scan.ts';
import {
  encodeScanned,
  isSidecarPrepared,
  type LaneFiles,
  listLane,
  listLanes,
  placeSidecar,
  readSidecar,
  scanFile,
  tryPrepareSidecarSync,
} from './sidecar-files.ts';

/** What the first phase of a start found and did. Every number is a count, sizes are bytes. */
export interface SealReport {
  lanes: number;
  segments: number;
  /** Segments without a usable sidecar, which were read from end to end. */
  scanned: number;
  /** Torn tails cut off, with the bytes that went. */
  torn: { readonly path: string; readonly bytes: number }[];
  /** What cannot be read any more. Nothing of it was deleted. */
  damages: { readonly path: string; readonly damage: Damage }[];
  /** Damaged sidecars that were put aside under these names. */
  quarantined: string[];
  /** Files that are not ours; they were left alone. */
  unknown: string[];
  /** Sidecars that could not be written because the disk is full. */
  unwritten: string[];
}

/** What people have to hear of it. */
export function sealNews({ torn, damages, quarantined }: SealReport): LogNews[] {
  return [
    ...torn.map((cut) => ({ level: 'warn' as const, message: 'cut a torn end off a segment', fields: { ...cut } })),
    ...damages.map(({ path, damage }) => ({
      level: 'error' as const,
      message: 'a segment is damaged; what is readable in it is served',
      fields: { segment: path, damage: JSON.stringify(damage) },
    })),
    ...quarantined.map((path) => ({
      level: 'warn' as const,
      message: 'the index of a segment is damaged, or of a longer segment: it was put aside and made again',
      fields: { path },
    })),
  ];
}

export interface LogNews {
  readonly level: 'warn' | 'error';
  readonly message: string;
  readonly fields: Readonly<Record<string, string | number>>;
}

/**
 * First phase of a start: afterwards everything that is in a segment is durable, no lane has a torn tail, and every segment has a sidecar.
 * One caller, before any shard opens its store; nothing else may use the lanes. Makes the directory if it is not there.
 */
export function sealLanes(disk: Disk, directory: string): SealReport {
  const report = emptyReport();
  disk.mkdir(directory);
  for (const lane of listLanes(disk, directory)) sealInto(disk, directory, lane, report);
  return report;
}

/** The same for one lane, whose shard thread has ended. */
export function sealLane(disk: Disk, directory: string, lane: number): SealReport {
  const report = emptyReport();
  sealInto(disk, directory, lane, report);
  return report;
}

function emptyReport(): SealReport {
  return {
    lanes: 0,
    segments: 0,
    scanned: 0,
    torn: [],
    damages: [],
    quarantined: [],
    unknown: [],
    unwritten: [],
  };
}

function sealInto(disk: Disk, directory: string, lane: number, report: SealReport): void {
  const files = listLane(disk, directory, lane);
  report.lanes += 1;
  report.unknown.push(...files.unknown.map((name) => join(files.path, name)));
  for (const number of files.numbers) {
    report.segments += 1;
    sealSegment(disk, files, number, report);
  }
}

function sealSegment(disk: Disk, files: LaneFiles, number: number, report: SealReport): void {
  const path = join(files.path, segmentName(number));
  const size = disk.size(path);
  const segment = segmentId(files.lane, number);
  const sidecarPath = join(files.path, sidecarName(number));
  if (disk.size(sidecarPath) < 0 && isSidecarPrepared(disk, files.path, segment, size)) {
    placeSidecar(disk, files.path, number);
  }
  const sidecar = readSidecar(disk, files.path, segment, size);
  // What the sidecar of a cut segment lists is worth keeping too.
  if (sidecar === 'damaged') report.quarantined.push(quarantine(disk, sidecarPath));
  else if (sidecar !== null && typeof sidecar !== 'string') return;
  report.scanned += 1;
  const isNewest = number === files.numbers.at(-1);
  const mayBeTorn = isNewest && (sidecar !== 'cut' || isPlanted('S9-sealed-is-torn'));
  const result = scanFile(disk, files, number, size, mayBeTorn);
  for (const damage of result.damages) report.damages.push({ path, damage });
  if (result.length < size) report.torn.push({ path, bytes: size - result.length });
  if (result.groups === 0 && result.damages.length === 0) {
    // Made for a group that never became durable: nothing of it was acknowledged, and nothing else is in it.
    disk.unlink(path);
    if (sidecar === 'stale') disk.unlink(sidecarPath);
    if (sidecar === 'cut') report.quarantined.push(quarantine(disk, sidecarPath));
    report.segments -= 1;
    return;
  }
  makeDurable(disk, path, result.length, size);
  const { bytes } = encodeScanned(files.lane, number, result);
  if (!tryPrepareSidecarSync(disk, files.path, number, bytes)) {
    report.unwritten.push(sidecarPath);
    return;
  }
  // That a segment is shorter than its sidecar says is the only sign that its end is not torn: there is always one of the two that says how long it is.
  if (sidecar === 'cut') report.quarantined.push(quarantine(disk, sidecarPath));
  placeSidecar(disk, files.path, number);
}

/** After a kill what was read may be in the page cache only; it must not be called stored before it is on the disk. */
function makeDurable(disk: Disk, path: string, length: number, size: number): void {
  const file = disk.open(path, 'write', 'segment-seal');
  try {
    if (length < size) file.truncate(length);
    file.fdatasyncSync();
  } finally {
    file.close();
  }
}

/** Puts a damaged file aside under a name that is free. It is never deleted (traps S9). */
function quarantine(disk: Disk, path: string): string {
  let name = '';
  for (let i = 1; name === '' || disk.size(name) >= 0; i++) name = `${path}.damaged-${i}`;
  disk.rename(path, name);
  return name;
}

import { join } from 'node:path';
import { type Disk, DiskFull } from '../disk.ts';
import { StartError } from '../start-error.ts';
import {
  LANES_MAX,
  laneName,
  numberOf,
  SEGMENT_NUMBER_MAX,
  segmentId,
  segmentName,
  sidecarName,
} from './segment-format.ts';
import { type ScanResult, scanSegment } from './segment-scan.ts';
import { decodeSidecarHeader, type SegmentSummary, sidecarBodyIsGood } from './sidecar.ts';

const TEMPORARY_SUFFIX = '.tmp';

/** Makes the sidecar of a segment durable beside the one that is there. False if the disk is full: the segment will then be scanned again at the next start. */
export function tryPrepareSidecarSync(disk: Disk, lanePath: string, number: number, bytes: Buffer): boolean {
  try {
    const file = disk.createOrEmpty(temporaryPath(lanePath, number), 'sidecar');
    try {
      file.writeFullySync(bytes, 0, bytes.length, 0);
      file.fdatasyncSync();
    } finally {
      file.close();
    }
    return true;
  } catch (error) {
    if (error instanceof DiskFull) return false;
    throw error;
  }
}

/** One was prepared for a segment of `size` bytes, and not placed. */
export function isSidecarPrepared(disk: Disk, lanePath: string, segment: number, size: number): boolean {
  const found = readSidecarAt(disk, temporaryPath(lanePath, numberOf(segment)), segment, size);
  return found !== null && typeof found !== 'string';
}

/** The sidecar that was prepared is that of the segment from now on. */
export function placeSidecar(disk: Disk, lanePath: string, number: number): void {
  disk.rename(temporaryPath(lanePath, number), join(lanePath, sidecarName(number)));
}

function temporaryPath(lanePath: string, number: number): string {
  return join(lanePath, sidecarName(number) + TEMPORARY_SUFFIX);
}

/** Replaces the sidecar of a segment, without stopping the thread for the write and its sync. */
export async function writeSidecar(disk: Disk, lanePath: string, number: number, bytes: Buffer): Promise<void> {
  const file = disk.createOrEmpty(temporaryPath(lanePath, number), 'sidecar');
  try {
    await file.writevFully([bytes], 0);
    await file.fdatasync();
  } finally {
    file.close();
  }
  placeSidecar(disk, lanePath, number);
}

export interface Sidecar {
  readonly summary: SegmentSummary;
  readonly bytes: Buffer;
}

/**
 * The sidecar of a segment of `size` bytes: null if there is none, `stale` if it is of another file or a shorter one, `cut` if the segment was longer
 * when it was sealed, `damaged` if it is no sidecar.
 */
export function readSidecar(
  disk: Disk,
  lanePath: string,
  segment: number,
  size: number,
): Sidecar | 'stale' | 'cut' | 'damaged' | null {
  return readSidecarAt(disk, join(lanePath, sidecarName(numberOf(segment))), segment, size);
}

function readSidecarAt(disk: Disk, path: string, segment: number, size: number): ReturnType<typeof readSidecar> {
  const length = disk.size(path);
  if (length < 0) return null;
  const bytes = Buffer.allocUnsafeSlow(length);
  const file = disk.open(path, 'read');
  try {
    if (file.preadSync(bytes, 0, length, 0) < length) return 'damaged';
  } finally {
    file.close();
  }
  const header = decodeSidecarHeader(bytes);
  if (header === null || !sidecarBodyIsGood(header, bytes)) return 'damaged';
  if (header.segment !== segment || header.length < size) return 'stale';
  return header.length === size ? { summary: header, bytes } : 'cut';
}

export interface LaneFiles {
  readonly lane: number;
  readonly path: string;
  /** Numbers of its segments, ascending. */
  readonly numbers: readonly number[];
  /** Highest number that any file of the lane carries, whatever kind of file; 0 if none does. */
  readonly highest: number;
  /** Names that are not ours. They are left alone. */
  readonly unknown: readonly string[];
}

const SEGMENT_NAME = /^(\d{8})\.seg$/;
const OTHER_NAME = /^(\d{8})\.(idx(\.tmp)?|(seg|idx)\.damaged-\d+)$/;
const LANE_NAME = /^lane-(\d{3,4})$/;

/** Lanes that are there, ascending. */
export function listLanes(disk: Disk, directory: string): number[] {
  if (disk.size(directory) < 0) return [];
  const lanes: number[] = [];
  for (const name of disk.list(directory)) {
    const lane = Number(LANE_NAME.exec(name)?.[1] ?? LANES_MAX);
    if (lane < LANES_MAX && laneName(lane) === name) lanes.push(lane);
  }
  return lanes.sort((a, b) => a - b);
}

export function listLane(disk: Disk, directory: string, lane: number): LaneFiles {
  const path = join(directory, laneName(lane));
  const numbers: number[] = [];
  const unknown: string[] = [];
  let highest = 0;
  for (const name of disk.size(path) < 0 ? [] : disk.list(path)) {
    const segment = SEGMENT_NAME.exec(name);
    const number = Number((segment ?? OTHER_NAME.exec(name))?.[1] ?? 0);
    if (number === 0 || number > SEGMENT_NUMBER_MAX) {
      unknown.push(name);
      continue;
    }
    highest = Math.max(highest, number);
    if (segment !== null) numbers.push(number);
  }
  return { lane, path, numbers: numbers.sort((a, b) => a - b), highest, unknown };
}

/** Scans one segment file. `mayBeTorn`: it is the newest of its lane, and was not sealed. StartError if a newer program wrote it. */
export function scanFile(
  disk: Disk,
  files: LaneFiles,
  number: number,
  size: number,
  mayBeTorn = number === files.numbers.at(-1),
): ScanResult {
  const path = join(files.path, segmentName(number));
  const file = disk.open(path, 'read', 'segment-scan');
  try {
    const result = scanSegment({ file, size, lane: files.lane, number, isLast: mayBeTorn });
    if (result.isForeign) {
      throw new StartError(
        'SEGMENT_VERSION',
        `${path} was written by a newer program; start that one (nothing was changed)`,
      );
    }
    return result;
  } finally {
    file.close();
  }
}

/** The sidecar of a scanned segment. */
export function encodeScanned(lane: number, number: number, result: ScanResult): Sidecar {
  const summary = result.entries.summary({
    segment: segmentId(lane, number),
    nonce: Math.max(0, result.nonce),
    length: result.length,
    chain: result.chain,
    damaged: result.damages.length,
  });
  return { summary, bytes: result.entries.encode(summary) };
}

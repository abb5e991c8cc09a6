import { assert } from '../../base/assert.ts';
import { tryReadSafeUint, writeSafeUint } from '../../base/bytes.ts';
import { crc32 } from '../../base/checksum.ts';
import { BATCH_ALIGNMENT, BatchKind } from '../../batch/batch-format.ts';

/**
 * Layout of a segment file (docs/record-format.md). Little endian.
 *
 *   segment = segment header (one sector) · group · group · …
 *   group   = group header (64 B) · directory · zeros to 8 · batch · batch · … · zeros to 512
 *
 * A group is what one write and one fdatasync made durable. It starts on a sector, so that a write that is torn by a power cut cannot touch a
 * sector of a group that was durable before. The directory repeats key, length and header CRC of every batch: it names the ids of a batch
 * that is damaged, and ties the batches to the group. Groups are chained by the CRCs of their headers, and carry their own position and the
 * random number of their segment: old bytes that a disk brings back do not fit, and no client can forge a group inside a message.
 */
export const SECTOR_BYTES = 512;
export const SEGMENT_HEADER_BYTES = SECTOR_BYTES;
export const GROUP_HEADER_BYTES = 64;
export const DIRECTORY_ENTRY_BYTES = 40;

export const SEGMENT_MAGIC = 0x31535242; // "BRS1"
export const GROUP_MAGIC = 0x31475242; // "BRG1"
export const SEGMENT_VERSION = 1;

/** Lanes are numbered 0 to 1023, segments of a lane 1 to 2^20-1; together they fit 30 bits. */
export const LANES_MAX = 1024;
export const SEGMENT_NUMBER_MAX = 0xf_ffff;
const NUMBER_SCALE = 0x10_0000;

export function segmentId(lane: number, number: number): number {
  assert(lane >= 0 && lane < LANES_MAX, () => `lane ${lane}`);
  assert(number >= 1 && number <= SEGMENT_NUMBER_MAX, () => `segment number ${number}`);
  return lane * NUMBER_SCALE + number;
}

export function laneOf(segment: number): number {
  return Math.floor(segment / NUMBER_SCALE);
}

export function numberOf(segment: number): number {
  return segment % NUMBER_SCALE;
}

export function laneName(lane: number): string {
  return `lane-${String(lane).padStart(3, '0')}`;
}

export function segmentName(number: number): string {
  return `${String(number).padStart(8, '0')}.seg`;
}

export function sidecarName(number: number): string {
  return `${String(number).padStart(8, '0')}.idx`;
}

const SegmentOffset = { MAGIC: 0, CRC: 4, VERSION: 8, LANE: 12, NUMBER: 16, NONCE: 24, CREATED_AT: 32 } as const;

export interface SegmentHeader {
  readonly lane: number;
  readonly number: number;
  /** Random, 0 to 2^53-1: tells this file from every other that had its name. */
  readonly nonce: number;
  /** Epoch ms; for people. */
  readonly createdAt: number;
}

/** Writes the first sector of a segment; returns its CRC, which starts the chain of groups. */
export function encodeSegmentHeader(target: Uint8Array, header: SegmentHeader & { readonly version?: number }): number {
  assert(target.length === SEGMENT_HEADER_BYTES, 'a segment header is one sector');
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  target.fill(0);
  view.setUint32(SegmentOffset.MAGIC, SEGMENT_MAGIC, true);
  view.setUint32(SegmentOffset.VERSION, header.version ?? SEGMENT_VERSION, true);
  view.setUint32(SegmentOffset.LANE, header.lane, true);
  view.setUint32(SegmentOffset.NUMBER, header.number, true);
  writeSafeUint(view, SegmentOffset.NONCE, header.nonce);
  writeSafeUint(view, SegmentOffset.CREATED_AT, header.createdAt);
  const crc = crc32(target.subarray(SegmentOffset.VERSION));
  view.setUint32(SegmentOffset.CRC, crc, true);
  return crc;
}

/** Null if the bytes are not a segment header. A version that is not known is a good header with `version` set. */
export function decodeSegmentHeader(sector: Uint8Array): (SegmentHeader & { version: number; crc: number }) | null {
  if (sector.length < SEGMENT_HEADER_BYTES) return null;
  const view = new DataView(sector.buffer, sector.byteOffset, SEGMENT_HEADER_BYTES);
  if (view.getUint32(SegmentOffset.MAGIC, true) !== SEGMENT_MAGIC) return null;
  const crc = view.getUint32(SegmentOffset.CRC, true);
  if (crc32(sector.subarray(SegmentOffset.VERSION, SEGMENT_HEADER_BYTES)) !== crc) return null;
  const header = {
    version: view.getUint32(SegmentOffset.VERSION, true),
    crc,
    lane: view.getUint32(SegmentOffset.LANE, true),
    number: view.getUint32(SegmentOffset.NUMBER, true),
    nonce: tryReadSafeUint(view, SegmentOffset.NONCE),
    createdAt: tryReadSafeUint(view, SegmentOffset.CREATED_AT),
  };
  // What a newer program writes there is its own affair.
  const isOurs = header.version !== SEGMENT_VERSION || (header.nonce >= 0 && header.createdAt >= 0);
  return isOurs ? header : null;
}

const GroupOffset = {
  MAGIC: 0,
  CRC: 4,
  PREVIOUS: 8,
  BATCHES: 12,
  POSITION: 16,
  NONCE: 24,
  LENGTH: 32,
  DIRECTORY_LENGTH: 40,
  DIRECTORY_CRC: 44,
  ZERO_SECTORS: 48,
} as const;

export interface GroupHeader {
  /** CRC of the previous group's header; of the segment header for the first group. */
  readonly previous: number;
  readonly batches: number;
  /** Where the group starts in its segment, in bytes. */
  readonly position: number;
  readonly nonce: number;
  /** Bytes of the whole group, a multiple of SECTOR_BYTES. */
  readonly length: number;
  readonly directoryLength: number;
  readonly directoryCrc: number;
  /** Sectors of the group that hold nothing but zeros by right: one more on the disk is a torn write. */
  readonly zeroSectors: number;
}

/** Writes a group header at `offset` of `target`; returns its CRC. */
export function encodeGroupHeader(target: Uint8Array, offset: number, header: GroupHeader): number {
  const view = new DataView(target.buffer, target.byteOffset + offset, GROUP_HEADER_BYTES);
  target.fill(0, offset, offset + GROUP_HEADER_BYTES);
  view.setUint32(GroupOffset.MAGIC, GROUP_MAGIC, true);
  view.setUint32(GroupOffset.PREVIOUS, header.previous, true);
  view.setUint32(GroupOffset.BATCHES, header.batches, true);
  writeSafeUint(view, GroupOffset.POSITION, header.position);
  writeSafeUint(view, GroupOffset.NONCE, header.nonce);
  writeSafeUint(view, GroupOffset.LENGTH, header.length);
  view.setUint32(GroupOffset.DIRECTORY_LENGTH, header.directoryLength, true);
  view.setUint32(GroupOffset.DIRECTORY_CRC, header.directoryCrc, true);
  view.setUint32(GroupOffset.ZERO_SECTORS, header.zeroSectors, true);
  const crc = crc32(target.subarray(offset + GroupOffset.PREVIOUS, offset + GROUP_HEADER_BYTES));
  view.setUint32(GroupOffset.CRC, crc, true);
  return crc;
}

/**
 * The group header at `offset` of `bytes`, or null if there is none that belongs at `position` of the segment with this `nonce` (-1: any, for
 * a segment whose own header is lost).
 */
export function decodeGroupHeader(
  bytes: Uint8Array,
  offset: number,
  position: number,
  nonce: number,
): (GroupHeader & { crc: number }) | null {
  if (offset + GROUP_HEADER_BYTES > bytes.length) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, GROUP_HEADER_BYTES);
  if (view.getUint32(GroupOffset.MAGIC, true) !== GROUP_MAGIC) return null;
  const crc = view.getUint32(GroupOffset.CRC, true);
  if (crc32(bytes.subarray(offset + GroupOffset.PREVIOUS, offset + GROUP_HEADER_BYTES)) !== crc) return null;
  const header = {
    crc,
    previous: view.getUint32(GroupOffset.PREVIOUS, true),
    batches: view.getUint32(GroupOffset.BATCHES, true),
    position: tryReadSafeUint(view, GroupOffset.POSITION),
    nonce: tryReadSafeUint(view, GroupOffset.NONCE),
    length: tryReadSafeUint(view, GroupOffset.LENGTH),
    directoryLength: view.getUint32(GroupOffset.DIRECTORY_LENGTH, true),
    directoryCrc: view.getUint32(GroupOffset.DIRECTORY_CRC, true),
    zeroSectors: view.getUint32(GroupOffset.ZERO_SECTORS, true),
  };
  if (header.position !== position || (nonce >= 0 && header.nonce !== nonce)) return null;
  const isWhole = header.length > 0 && header.length % SECTOR_BYTES === 0;
  return isWhole && GROUP_HEADER_BYTES + header.directoryLength <= header.length ? header : null;
}

/** True if a whole group header is there, of whatever segment and position. */
export function isGroupHeader(bytes: Uint8Array, offset: number): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, GROUP_HEADER_BYTES);
  if (view.getUint32(GroupOffset.MAGIC, true) !== GROUP_MAGIC) return false;
  const crc = crc32(bytes.subarray(offset + GroupOffset.PREVIOUS, offset + GROUP_HEADER_BYTES));
  return view.getUint32(GroupOffset.CRC, true) === crc;
}

const EntryOffset = {
  BASE: 0,
  PUBLISHED_AT: 8,
  COUNT: 16,
  LENGTH: 20,
  HEADER_CRC: 24,
  EXPIRES_MAX: 28,
  HASH: 32,
  KIND: 36,
  SUBJECT_LENGTH: 37,
  SUBJECT: DIRECTORY_ENTRY_BYTES,
} as const;

/** A batch as its group's directory describes it. */
export interface DirectoryEntry {
  base: number;
  publishedAt: number;
  count: number;
  /** Bytes of the batch. */
  length: number;
  headerCrc: number;
  expiresMax: number;
  hash: number;
  /** BatchKind. */
  kind: number;
  subjectStart: number;
  subjectEnd: number;
}

/** Writes one entry at `offset` of `target`; the subject is subject[0, length). Returns the offset behind it. */
export function writeDirectoryEntry(
  target: Uint8Array,
  view: DataView,
  offset: number,
  entry: Omit<DirectoryEntry, 'subjectStart' | 'subjectEnd'>,
  subject: Uint8Array,
): number {
  writeSafeUint(view, offset + EntryOffset.BASE, entry.base);
  writeSafeUint(view, offset + EntryOffset.PUBLISHED_AT, entry.publishedAt);
  view.setUint32(offset + EntryOffset.COUNT, entry.count, true);
  view.setUint32(offset + EntryOffset.LENGTH, entry.length, true);
  view.setUint32(offset + EntryOffset.HEADER_CRC, entry.headerCrc, true);
  view.setUint32(offset + EntryOffset.EXPIRES_MAX, entry.expiresMax, true);
  view.setUint32(offset + EntryOffset.HASH, entry.hash, true);
  view.setUint8(offset + EntryOffset.KIND, entry.kind);
  view.setUint8(offset + EntryOffset.SUBJECT_LENGTH, subject.length);
  view.setUint16(offset + EntryOffset.SUBJECT_LENGTH + 1, 0, true);
  target.set(subject, offset + EntryOffset.SUBJECT);
  return offset + EntryOffset.SUBJECT + subject.length;
}

/** Reads the entry at `offset` into `entry`; returns the offset behind it, or -1 if the directory ends before, or no batch is like that. */
export function readDirectoryEntry(bytes: Uint8Array, view: DataView, offset: number, entry: DirectoryEntry): number {
  if (offset + DIRECTORY_ENTRY_BYTES > bytes.length) return -1;
  entry.base = tryReadSafeUint(view, offset + EntryOffset.BASE);
  entry.publishedAt = tryReadSafeUint(view, offset + EntryOffset.PUBLISHED_AT);
  entry.count = view.getUint32(offset + EntryOffset.COUNT, true);
  entry.length = view.getUint32(offset + EntryOffset.LENGTH, true);
  entry.headerCrc = view.getUint32(offset + EntryOffset.HEADER_CRC, true);
  entry.expiresMax = view.getUint32(offset + EntryOffset.EXPIRES_MAX, true);
  entry.hash = view.getUint32(offset + EntryOffset.HASH, true);
  entry.kind = view.getUint8(offset + EntryOffset.KIND);
  entry.subjectStart = offset + EntryOffset.SUBJECT;
  entry.subjectEnd = entry.subjectStart + view.getUint8(offset + EntryOffset.SUBJECT_LENGTH);
  return entry.subjectEnd <= bytes.length && isSound(entry) ? entry.subjectEnd : -1;
}

/** As BatchView demands it of the batch itself. */
function isSound({ base, publishedAt, count, length, kind, subjectStart, subjectEnd }: DirectoryEntry): boolean {
  const areIds = base >= 1 && count >= 1 && base <= Number.MAX_SAFE_INTEGER - (count - 1);
  const isBatch = length > 0 && length % BATCH_ALIGNMENT === 0 && (kind === BatchKind.DATA || kind === BatchKind.VOID);
  return areIds && isBatch && publishedAt >= 0 && subjectEnd > subjectStart;
}

export function alignedTo(length: number, alignment: number): number {
  return Math.ceil(length / alignment) * alignment;
}

/** Where the first batch of a group starts, from the group's start. */
export function firstBatchOffset(directoryLength: number): number {
  return alignedTo(GROUP_HEADER_BYTES + directoryLength, 8);
}

export function isZero(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at++) {
    if (bytes[at] !== 0) return false;
  }
  return true;
}

/** Sectors of bytes[start, end) that hold nothing but zeros; the range is whole sectors. */
export function countZeroSectors(bytes: Uint8Array, start: number, end: number): number {
  let count = 0;
  for (let at = start; at < end; at += SECTOR_BYTES) {
    // Nearly every sector differs from zero in its first bytes.
    if (bytes[at] === 0 && isZero(bytes, at, at + SECTOR_BYTES)) count += 1;
  }
  return count;
}

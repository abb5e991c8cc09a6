import { crc32 } from '../../base/checksum.ts';
import { BatchKind, BatchOffset } from '../../batch/batch-format.ts';
import { copyBytes } from '../../batch/copy-bytes.ts';
import type { SealedBatch } from '../store.ts';
import {
  alignedTo,
  countZeroSectors,
  DIRECTORY_ENTRY_BYTES,
  encodeGroupHeader,
  firstBatchOffset,
  GROUP_HEADER_BYTES,
  SECTOR_BYTES,
  writeDirectoryEntry,
} from './segment-format.ts';

/** Bytes that a group takes in its segment. */
export function groupBytes(batches: readonly SealedBatch[]): number {
  let directory = 0;
  let content = 0;
  for (const { subject, bytes } of batches) {
    directory += DIRECTORY_ENTRY_BYTES + subject.bytes.length;
    content += bytes.length;
  }
  return alignedTo(firstBatchOffset(directory) + content, SECTOR_BYTES);
}

export interface GroupPlace {
  readonly position: number;
  readonly nonce: number;
  readonly previous: number;
}

/**
 * Writes the group into target[start, start + length), where `length` is its `groupBytes`; returns the CRC of its header. `offsets[i]` becomes
 * where batch i starts, from the start of the group.
 */
export function encodeGroup(
  target: Buffer,
  start: number,
  length: number,
  batches: readonly SealedBatch[],
  place: GroupPlace,
  offsets: number[],
): number {
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  const directoryStart = start + GROUP_HEADER_BYTES;
  let at = directoryStart;
  for (const { subject, bytes, base, count, publishedAt, expiresMax, kind } of batches) {
    at = writeDirectoryEntry(
      target,
      view,
      at,
      {
        base,
        publishedAt,
        count,
        length: bytes.length,
        headerCrc: bytes.readUInt32LE(BatchOffset.HEADER_CRC),
        expiresMax,
        hash: subject.hash,
        kind: kind === 'data' ? BatchKind.DATA : BatchKind.VOID,
      },
      subject.bytes,
    );
  }
  const directoryLength = at - directoryStart;
  const first = start + firstBatchOffset(directoryLength);
  target.fill(0, at, first);
  at = first;
  offsets.length = 0;
  for (const { bytes } of batches) {
    offsets.push(at - start);
    copyBytes(bytes, 0, bytes.length, target, at);
    at += bytes.length;
  }
  target.fill(0, at, start + length);
  return encodeGroupHeader(target, start, {
    ...place,
    batches: batches.length,
    length,
    directoryLength,
    directoryCrc: crc32(target.subarray(directoryStart, directoryStart + directoryLength)),
    // The first sector holds the magic.
    zeroSectors: countZeroSectors(target, start + SECTOR_BYTES, start + length),
  });
}

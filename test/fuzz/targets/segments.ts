/** The embedded store's files: segments and their sidecars. */
import { crc32 } from 'node:zlib';
import { BATCH_HEADER_BYTES, BATCH_MAGIC, BatchOffset } from '../../../src/batch/batch-format.ts';
import { encodeGroup, groupBytes } from '../../../src/storage/embedded/group-encoder.ts';
import {
  decodeSegmentHeader,
  encodeSegmentHeader,
  firstBatchOffset,
  GROUP_HEADER_BYTES,
  GROUP_MAGIC,
  SECTOR_BYTES,
  SEGMENT_HEADER_BYTES,
  segmentName,
  sidecarName,
} from '../../../src/storage/embedded/segment-format.ts';
import { loadSidecar, SIDECAR_HEADER_BYTES } from '../../../src/storage/embedded/sidecar.ts';
import { encodeScanned, listLane, readSidecar, scanFile } from '../../../src/storage/embedded/sidecar-files.ts';
import { SubjectIndex } from '../../../src/storage/embedded/subject-index.ts';
import { StartError } from '../../../src/storage/start-error.ts';
import type { SealedBatch } from '../../../src/storage/store.ts';
import { dataBatch, plain, subjectRef, voidBatch } from '../../unit/batch-support.ts';
import { MemoryDisk } from '../../unit/embedded-memory-disk.ts';
import { accepts, choiceOf, expect, type FuzzTarget } from '../target.ts';

const DIRECTORY = '/segments';
const LANE = `${DIRECTORY}/lane-000`;
const MIB = 1 << 20;

function written(...groups: readonly (readonly SealedBatch[])[]): Buffer {
  const header = Buffer.alloc(SEGMENT_HEADER_BYTES);
  let previous = encodeSegmentHeader(header, { lane: 0, number: 1, nonce: 77, createdAt: 5 });
  const parts = [header];
  let position = SEGMENT_HEADER_BYTES;
  for (const batches of groups) {
    const length = groupBytes(batches);
    const group = Buffer.alloc(length);
    previous = encodeGroup(group, 0, length, batches, { position, nonce: 77, previous }, []);
    parts.push(group);
    position += length;
  }
  return Buffer.concat(parts);
}

function seeds(): Buffer[] {
  const a = subjectRef('orders.eu');
  const b = subjectRef('b');
  return [
    written(
      [dataBatch(a, [plain('one')]), dataBatch(b, [plain('two', 5), plain('three')], { base: 4 })],
      [voidBatch(a, 2, 3)],
    ),
    written([dataBatch(a, [plain('x'.repeat(700))])]),
    written(),
  ];
}

/** Checksums and chain of header, groups, directories and batches, where there are some. */
function repair(bytes: Buffer): Buffer {
  if (bytes.length < SEGMENT_HEADER_BYTES) return bytes;
  bytes.writeUInt32LE(crc32(bytes.subarray(8, SEGMENT_HEADER_BYTES)), 4);
  let previous = bytes.readUInt32LE(4);
  for (let at = SEGMENT_HEADER_BYTES; at + SECTOR_BYTES <= bytes.length; at += SECTOR_BYTES) {
    if (bytes.readUInt32LE(at) !== GROUP_MAGIC) continue;
    bytes.writeUInt32LE(previous, at + 8);
    bytes.writeBigUInt64LE(BigInt(at), at + 16);
    bytes.copy(bytes, at + 24, 24, 32);
    const directoryEnd = at + GROUP_HEADER_BYTES + bytes.readUInt32LE(at + 40);
    if (directoryEnd <= bytes.length) {
      repairGroup(bytes, at, directoryEnd);
      bytes.writeUInt32LE(crc32(bytes.subarray(at + GROUP_HEADER_BYTES, directoryEnd)), at + 44);
    }
    previous = crc32(bytes.subarray(at + 8, at + GROUP_HEADER_BYTES));
    bytes.writeUInt32LE(previous, at + 4);
  }
  return bytes;
}

/** Batches behind one another; their checksums go into the entries of the directory. */
function repairGroup(bytes: Buffer, start: number, directoryEnd: number): void {
  let entry = start + GROUP_HEADER_BYTES;
  let at = start + firstBatchOffset(directoryEnd - start - GROUP_HEADER_BYTES);
  while (at + BATCH_HEADER_BYTES <= bytes.length && bytes.readUInt32LE(at) === BATCH_MAGIC) {
    const recordsStart = at + BATCH_HEADER_BYTES + bytes.readUInt8(at + BatchOffset.SUBJECT_LENGTH);
    const recordsEnd = recordsStart + bytes.readUInt32LE(at + BatchOffset.RECORDS_LENGTH);
    const length = bytes.readUInt32LE(at + BatchOffset.TOTAL_LENGTH);
    if (recordsEnd > bytes.length || length === 0) return;
    bytes.writeUInt32LE(crc32(bytes.subarray(recordsStart, recordsEnd)), at + BatchOffset.BODY_CRC);
    const crc = crc32(bytes.subarray(at + BatchOffset.VERSION, recordsStart));
    bytes.writeUInt32LE(crc, at + BatchOffset.HEADER_CRC);
    if (entry + 40 <= directoryEnd) bytes.writeUInt32LE(crc, entry + 24);
    entry += 40 + (entry + 38 < bytes.length ? bytes.readUInt8(entry + 37) : 0);
    at += length;
  }
}

function diskWith(name: string, bytes: Buffer): MemoryDisk {
  const disk = new MemoryDisk();
  disk.put(`${LANE}/${name}`, bytes);
  return disk;
}

function indexOf(bytes: Buffer): { readonly entries: number } {
  return { entries: loadSidecar(bytes, new SubjectIndex(), () => true) };
}

const segment: FuzzTarget = {
  name: 'segment',
  shortRuns: 500,
  about: 'the scan of a segment of the embedded store, and the sidecar made of it',
  memoryBytes: 4 * MIB,
  lengthMax: 6_000,
  seeds,
  repair,
  run: (bytes) => {
    let isGood = false;
    const isScanned = accepts(
      (error) => error instanceof StartError,
      () => {
        // As the newest of its lane, whose tail may be torn, or as one that others follow.
        const disk = diskWith(segmentName(1), bytes);
        if (choiceOf(bytes, 2) === 0) disk.put(`${LANE}/${segmentName(2)}`, Buffer.alloc(0));
        const files = listLane(disk, DIRECTORY, 0);
        const result = scanFile(disk, files, 1, bytes.length);
        expect(result.length >= 0 && result.length <= bytes.length, 'more is kept than there is');
        const sidecar = encodeScanned(0, 1, result);
        disk.put(`${LANE}/${sidecarName(1)}`, sidecar.bytes);
        const read = readSidecar(disk, LANE, sidecar.summary.segment, result.length);
        expect(read !== null && typeof read !== 'string', 'a sidecar of a scan is not read', () => read);
        expect(indexOf(read.bytes).entries === result.entries.batches, 'another number of entries than batches');
        isGood = result.groups > 0 && result.damages.length === 0;
        if (isGood) expect(decodeSegmentHeader(bytes) !== null, 'a segment without a header is called good');
      },
    );
    return isScanned && isGood;
  },
};

const sidecar: FuzzTarget = {
  name: 'sidecar',
  about: 'the index of a segment: what is called good is loaded',
  memoryBytes: 4 * MIB,
  seeds: () =>
    seeds().map((bytes) => {
      const disk = diskWith(segmentName(1), bytes);
      return encodeScanned(0, 1, scanFile(disk, listLane(disk, DIRECTORY, 0), 1, bytes.length)).bytes;
    }),
  repair: (bytes) => {
    if (bytes.length < SIDECAR_HEADER_BYTES) return bytes;
    bytes.writeBigUInt64LE(BigInt(bytes.length - SIDECAR_HEADER_BYTES), 64);
    bytes.writeUInt32LE(crc32(bytes.subarray(SIDECAR_HEADER_BYTES)), 72);
    bytes.writeUInt32LE(crc32(bytes.subarray(8, SIDECAR_HEADER_BYTES)), 4);
    return bytes;
  },
  run: (bytes) => {
    if (bytes.length < SIDECAR_HEADER_BYTES) return false;
    const disk = diskWith(sidecarName(1), bytes);
    const high = bytes.readUInt32LE(28);
    const size = high <= 0x1f_ffff ? Number(bytes.readBigUInt64LE(24)) : 0;
    const found = readSidecar(disk, LANE, 1, size);
    if (found === null || typeof found === 'string') return false;
    expect(indexOf(found.bytes).entries >= 0, 'less than nothing');
    return true;
  },
};

export const SEGMENT_TARGETS: readonly FuzzTarget[] = [segment, sidecar];

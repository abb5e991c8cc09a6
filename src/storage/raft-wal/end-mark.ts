/**
 * Where the log ended when it was closed in good order: a file beside the segments, there from a close until the next write. Zeros in place of
 * the newest records, or a file cut off before them, look like a log that a power cut ended there (torn.ts). With the mark they do not: its
 * record must be the last one. Without it, behind a kill or a power cut, that much cannot be told apart.
 *
 *   0 u32 CRC of bytes 4..31   4 u32 magic   8 u64 segment sequence   16 u32 position behind the last record   20 u32 CRC of its header   24 zeros
 */
import { join } from 'node:path';
import { tryReadSafeUint, writeSafeUint } from '../../base/bytes.ts';
import { crc32 } from '../../base/checksum.ts';
import type { Disk } from '../disk.ts';
import { readSmallFile, replaceFile } from '../small-file.ts';

export const END_NAME = 'end';
const BYTES = 32;
const MAGIC = 0x31444e45; // "END1"

export interface EndMark {
  readonly sequence: number;
  readonly position: number;
  /** Checksum of the last record's header. */
  readonly last: number;
}

/** Null: there is none. */
export function readEndMark(disk: Disk, dir: string): EndMark | 'damaged' | null {
  const bytes = readSmallFile(disk, join(dir, END_NAME), BYTES + 1);
  if (bytes === null) return null;
  if (bytes.length !== BYTES || bytes.readUInt32LE(0) !== crc32(bytes.subarray(4))) return 'damaged';
  const sequence = tryReadSafeUint(viewOf(bytes), 8);
  if (bytes.readUInt32LE(4) !== MAGIC || sequence < 0) return 'damaged';
  return { sequence, position: bytes.readUInt32LE(16), last: bytes.readUInt32LE(20) };
}

/** Everything up to the mark is durable already. */
export function writeEndMark(disk: Disk, dir: string, { sequence, position, last }: EndMark): void {
  const bytes = Buffer.alloc(BYTES);
  bytes.writeUInt32LE(MAGIC, 4);
  writeSafeUint(viewOf(bytes), 8, sequence);
  bytes.writeUInt32LE(position, 16);
  bytes.writeUInt32LE(last, 20);
  bytes.writeUInt32LE(crc32(bytes.subarray(4)), 0);
  replaceFile(disk, join(dir, END_NAME), bytes, 'wal-end');
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

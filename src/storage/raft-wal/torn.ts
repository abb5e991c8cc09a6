import { crc32 } from '../../base/checksum.ts';
import type { DiskFile } from '../disk.ts';
import * as format from './format.ts';
import type { Flaw } from './segment-scan.ts';

export type TornVerdict =
  | { readonly kind: 'clean' }
  | { readonly kind: 'torn'; readonly reason: string }
  | { readonly kind: 'damaged'; readonly reason: string };

/**
 * Decides what a bad record is (traps R24, S5, S6). A power cut leaves, of what was written since the last sync, any subset of the
 * sectors; the others are as before, that is zero or beyond the end of the file. So a bad record is a torn write, and nobody was ever
 * told of it, if it runs past the end of the file or a sector of it is all zero. This is the rule of etcd (server/storage/wal/decoder.go,
 * isTornEntry), with three things made stricter: the length has a checksum of its own, whole sectors are looked at (a sector is written
 * as a whole), and a later record that says "you were durable" makes it damage: then a sector was lost or an old one came back.
 *
 * What no reader of this file alone can see: the newest records, whole, replaced by the zeros that were there before them, with nothing
 * behind. The store is compared with the log for that.
 */
export function judgeTail(file: DiskFile, fileBytes: number, position: number, flaw: Flaw): TornVerdict {
  if (isZero(file, position, fileBytes)) return { kind: 'clean' };
  const reason = tornReason(file, fileBytes, position, flaw);
  if (reason === null) {
    const what = flaw === 'bad payload' ? 'payload' : 'header';
    return { kind: 'damaged', reason: `the checksum of a record's ${what} is wrong and it is not a torn write` };
  }
  const witness = findWitness(file, fileBytes, position);
  if (witness >= 0) {
    return {
      kind: 'damaged',
      reason: `${reason}, yet the record at byte ${witness} was written when this one was durable`,
    };
  }
  return { kind: 'torn', reason };
}

function tornReason(file: DiskFile, fileBytes: number, position: number, flaw: Flaw): string | null {
  switch (flaw) {
    case 'end of file':
    case 'past the end':
      return 'a record runs past the end of the file';
    case 'bad header':
      return zeroSector(file, fileBytes, position, format.HEADER_BYTES) ? 'a sector of a record header is zero' : null;
    case 'bad payload': {
      const header = Buffer.alloc(format.HEADER_BYTES);
      file.preadSync(header, 0, header.length, position);
      const bytes = format.recordBytes(header.readUInt32LE(format.LENGTH));
      return zeroSector(file, fileBytes, position, bytes) ? 'a sector of a record is zero' : null;
    }
    case 'foreign chain':
      return null;
  }
}

/** True if one of the sectors that [position, position + length) touches is zero from `position`, or its own start, to its end. */
function zeroSector(file: DiskFile, fileBytes: number, position: number, length: number): boolean {
  let from = position;
  while (from < position + length) {
    const sectorEnd = (Math.floor(from / format.SECTOR_BYTES) + 1) * format.SECTOR_BYTES;
    const to = Math.min(sectorEnd, fileBytes);
    if (isZero(file, from, to)) return true;
    from = sectorEnd;
  }
  return false;
}

const CHUNK_BYTES = 64 * 1024;

function isZero(file: DiskFile, from: number, to: number): boolean {
  const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, Math.max(1, to - from)));
  for (let at = from; at < to; at += chunk.length) {
    const read = file.preadSync(chunk, 0, Math.min(chunk.length, to - at), at);
    for (let i = 0; i < read; i++) if (chunk[i] !== 0) return false;
  }
  return true;
}

/** Position of a record behind `position` that was written when `position` was durable, or -1. Its own chain cannot be checked. */
function findWitness(file: DiskFile, fileBytes: number, position: number): number {
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  const step = CHUNK_BYTES - format.HEADER_BYTES;
  for (let from = position + format.ALIGNMENT; from < fileBytes; from += step) {
    const read = file.preadSync(chunk, 0, Math.min(CHUNK_BYTES, fileBytes - from), from);
    for (let at = 0; at + format.HEADER_BYTES <= read && at < step; at += format.ALIGNMENT) {
      if (isWitness(chunk, at, from + at, position)) return from + at;
    }
  }
  return -1;
}

function isWitness(chunk: Buffer, at: number, own: number, position: number): boolean {
  return (
    chunk.readUInt16LE(at + format.MAGIC) === format.RECORD_MAGIC &&
    chunk.readUInt32LE(at + format.POSITION) === own &&
    chunk.readUInt32LE(at + format.SYNCED) > position &&
    crc32(chunk.subarray(at + format.BODY_CRC, at + format.HEADER_BYTES)) === chunk.readUInt32LE(at + format.HEADER_CRC)
  );
}

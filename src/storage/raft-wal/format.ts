/**
 * Format of a log segment, version 1; little endian. Record types and flags are append-only: test/unit/raft-wal-format.test.ts holds
 * golden bytes of each.
 *
 *   DATA/raft/wal-<first index, 16 digits>-<sequence, 8 digits>.log
 *
 *   +----------------+--------+--------+-- - - --+------------------+
 *   | segment header | record | record |         | zeros to the end |     every record starts at a multiple of 8
 *   +----------------+--------+--------+-- - - --+------------------+
 *
 *   record    0  u32  CRC of bytes 4..31 (of the header without this field)
 *             4  u32  CRC of the payload with its padding, seeded with `previous`
 *             8  u32  length of the payload without padding
 *            12  u16  magic
 *            14  u8   type
 *            15  u8   format version
 *            16  u32  epoch: random, one per segment
 *            20  u32  previous: bytes 0..3 of the record before, across segments; 0 in the very first
 *            24  u32  position of this record in the file
 *            28  u32  synced: everything before this position was durable when the record was written
 *            32       payload, then 1 to 8 bytes of 0xff, to a multiple of 8
 *
 * Why so much of it. The header has a checksum of its own so that a flipped bit in `length` cannot pass for a record that runs past the end
 * of the file. `previous` chains the records: a record that was replaced by an older one, or by none, does not fit what follows it.
 * `synced` tells a torn tail from an old chunk that was put back: both look like a hole of zeros with records behind it, but a record that
 * says "you were durable when I was written" proves that the hole was not there (traps S6). The padding is never empty and never zero,
 * because a sector of zeros is the sign of a torn write.
 *
 *   SEGMENT   0 u64 sequence   8 u64 first index   16 16 bytes instance id (zeros: not told)
 *             Always the first record, never elsewhere. `previous` is the last record of the segment before.
 *   APPEND    0 u32 entries   4 u8 flags   5 u8 vote length   6 u16 zero   8 u64 first index (0 without entries)
 *             with HARD_STATE: u64 term, u64 commit, vote
 *             then per entry: u64 term, u32 length, u32 type, data
 *             One record is one `append`: after a crash all of it is there or none.
 *   POINTER   0 u64 index   8 u64 term   16 u64 file size   24 u32 CRC of the file's trailer   28 u32 flags
 *             The snapshot file of that name is complete and durable. INSTALLED: it replaces all entries before this record.
 */
export const FORMAT_VERSION = 1;
export const RECORD_MAGIC = 0x4c57;
export const HEADER_BYTES = 32;
export const ALIGNMENT = 8;
export const PADDING = 0xff;
/** What a disk writes as a whole. With 4096-byte sectors the rule built on it is only stricter. */
export const SECTOR_BYTES = 512;

export const HEADER_CRC = 0;
export const BODY_CRC = 4;
export const LENGTH = 8;
export const MAGIC = 12;
export const TYPE = 14;
export const VERSION = 15;
export const EPOCH = 16;
export const PREVIOUS = 20;
export const POSITION = 24;
export const SYNCED = 28;

export const TYPE_SEGMENT = 1;
export const TYPE_APPEND = 2;
export const TYPE_POINTER = 3;

export const SEGMENT_PAYLOAD_BYTES = 32;
export const SEGMENT_INSTANCE_BYTES = 16;

export const APPEND_FIXED_BYTES = 16;
export const APPEND_HARD_STATE_BYTES = 16;
export const APPEND_ENTRY_BYTES = 16;
export const FLAG_HARD_STATE = 1;

export const POINTER_PAYLOAD_BYTES = 32;
export const FLAG_INSTALLED = 1;

/** A record of more is refused when written, and damage when read. */
export const RECORD_BYTES_MAX = 256 * 1024 * 1024;
/** The last index: its successor must still be an exact number (traps R29). */
export const INDEX_MAX = Number.MAX_SAFE_INTEGER - 1;

const SEGMENT_NAME = /^wal-(\d{16})-(\d{8})\.log$/;
/** A segment is made under this name, and renamed when its header is durable: a `.log` without a valid header is damage. */
export const SEGMENT_TEMPORARY_NAME = 'wal.tmp';

export function segmentName(firstIndex: number, sequence: number): string {
  return `wal-${String(firstIndex).padStart(16, '0')}-${String(sequence).padStart(8, '0')}.log`;
}

export function parseSegmentName(name: string): { readonly firstIndex: number; readonly sequence: number } | null {
  const match = SEGMENT_NAME.exec(name);
  return match === null ? null : { firstIndex: Number(match[1]), sequence: Number(match[2]) };
}

/** Size of a record in the file. */
export function recordBytes(payloadLength: number): number {
  return HEADER_BYTES + (Math.floor(payloadLength / ALIGNMENT) + 1) * ALIGNMENT;
}

import { SUBJECT_BYTES_MAX } from '../base/subject.ts';

/**
 * Layout of a batch (docs/record-format.md). Little endian; a batch starts at a multiple of 8 bytes of its container.
 *
 *    0        4            8      9      10      12         16             20
 *   +--------+------------+------+------+-------+----------+--------------+----------------+
 *   | magic  | header CRC | ver. | kind | flags | body CRC | total length | records length |
 *   +--------+------------+------+------+-------+----------+--------------+----------------+
 *    24              32               40          44            48         52       53     56
 *   +---------------+----------------+-----------+-------------+----------+--------+------+---------+---------+---------+
 *   | base (u64)    | published_at   | count     | expires max | hash     | name   | zero | subject | records | zeros   |
 *   |               | (u64, ms)      | (u32)     | (u32, s)    | (u32)    | length |      |         |         | to 8 B  |
 *   +---------------+----------------+-----------+-------------+----------+--------+------+---------+---------+---------+
 *
 * The body CRC covers the records, which are the client's bytes. The header CRC covers everything from the version to the end of the
 * subject; it is written last, by `stampBatch`, when base and time are known. Through the body CRC in it the header vouches for everything
 * but the magic and the zeros at the end, which a reader compares.
 */
export const BATCH_MAGIC = 0x31425242; // "BRB1"
export const BATCH_VERSION = 1;

export const BatchKind = { DATA: 1, VOID: 2 } as const;

/** Some record of the batch has an expiry. */
export const FLAG_EXPIRY = 1;
export const FLAGS_KNOWN = FLAG_EXPIRY;

export const BatchOffset = {
  MAGIC: 0,
  HEADER_CRC: 4,
  VERSION: 8,
  KIND: 9,
  FLAGS: 10,
  BODY_CRC: 12,
  TOTAL_LENGTH: 16,
  RECORDS_LENGTH: 20,
  BASE: 24,
  PUBLISHED_AT: 32,
  COUNT: 40,
  EXPIRES_MAX: 44,
  HASH: 48,
  SUBJECT_LENGTH: 52,
  ZERO: 53,
  SUBJECT: 56,
} as const;

export const BATCH_HEADER_BYTES: number = BatchOffset.SUBJECT;
/** Bytes of a batch before its records, at most. */
export const BATCH_PREFIX_BYTES_MAX = BATCH_HEADER_BYTES + SUBJECT_BYTES_MAX;
export const BATCH_ALIGNMENT = 8;
/** A batch's length has to fit its u32 field, and one read into memory. */
export const BATCH_BYTES_MAX = 0x4000_0000;

/** `0x1a`: field 3, length-delimited: one record of the records section (`repeated Record records = 3`). */
export const RECORD_TAG = 0x1a;
/** `0x0a`: Record.body = 1, length-delimited. */
export const BODY_TAG = 0x0a;
/** `0x2a`: Record.headers = 5, length-delimited. */
export const HEADERS_TAG = 0x2a;
/** `0x30`: Record.expirationSeconds = 6, varint. */
export const EXPIRATION_TAG = 0x30;
/** `0x10`: MessageResponse.id = 2, varint. */
export const ID_TAG = 0x10;
/** `0x1a`: MessageResponse.subject = 3, length-delimited. */
export const SUBJECT_TAG = 0x1a;
/** `0x20`: MessageResponse.published_at = 4, varint. */
export const PUBLISHED_AT_TAG = 0x20;

export const EXPIRATION_SECONDS_MAX = 0x7fff_ffff;

export function aligned(length: number): number {
  return Math.ceil(length / BATCH_ALIGNMENT) * BATCH_ALIGNMENT;
}

/** Why bytes are not a batch. `cut` means that they end before the batch does. */
export type BatchFault =
  | 'cut'
  | 'magic'
  | 'version'
  | 'kind'
  | 'flags'
  | 'lengths'
  | 'ids'
  | 'header-checksum'
  | 'body-checksum'
  | 'padding'
  | 'records';

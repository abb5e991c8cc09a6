import { assert } from '../base/assert.ts';
import type { ByteWriter } from '../base/bytes.ts';
import { crc32 } from '../base/checksum.ts';
import type { AllotmentPool } from './allotment-pool.ts';

/**
 * A snapshot is a run of chunks. Frozen; a change of layout takes a new version, and older ones stay readable. All little endian.
 *
 *   chunk      0 u32 magic "ALS1" · 4 u16 version · 6 u16 zero · 8 u32 chunk number, from 0 · 12 u32 bytes of the body
 *              16 u32 crc32 of the header with this field zero, then the body · 20 body: a run of sections
 *
 *   META       u8 1 · u64 index · u64 log time · u32 chain · u64 floor · u32 nodes x node · u64 subjects.max · u64 producers.max
 *              · u64 unresolved allotments of a node (these three not in version 1)                       (first)
 *     node     u8 length · name · u32 incarnation low · u32 incarnation high · u64 started index · u64 last run (not in version 1)
 *   SUBJECTS   u8 2 · u16 slot · u32 first row · u32 rows x subject                                        (slots rise, empty ones are left out)
 *     subject  u8 fields (Field) · u8 SubjectFlag · u8 length · name · u64 head · [u64 first] · [u64 void from · u64 void to]
 *              · [u64 settled · u32 allotments x allotment]
 *     allotment  u8 AllotVerdict · u64 end (its base is the end before + 1) · if open or revoked: u16 node · u32 incarnation low
 *              · u32 incarnation high · u32 shard · u32 counter · u64 opened at · u32 expiry (expiryWord of commands.ts) · u32 bytes
 *   PRODUCERS  u8 3 · u16 bucket · u32 producers x producer                                                (buckets rise, by name inside)
 *     producer u8 length · name · u64 last publish · u64 last sequence · u16 sequences x sequence (falling)
 *     sequence u16 last - sequence · u64 first id · u32 subject number · u32 count · u32 crc32
 *   END        u8 4 · u32 subjects · u32 unresolved allotments · u32 producers                             (last)
 *
 * Order inside is that of the log (rows) or of names (producers), never of memory, so that equal states give equal bytes.
 */
export const SNAPSHOT_MAGIC = 0x31534c41;
export const SNAPSHOT_VERSION = 2;
const SNAPSHOT_VERSION_MIN = 1;
export const CHUNK_HEADER = 20;

export const Section = { META: 1, SUBJECTS: 2, PRODUCERS: 3, END: 4 } as const;

export const Field = { FIRST: 1, VOID_RANGE: 2, ALLOTMENTS: 4 } as const;

/** Fills in the header of a chunk whose body is written behind it. */
export function sealChunk(chunk: Uint8Array, number: number): Uint8Array {
  const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  view.setUint32(0, SNAPSHOT_MAGIC, true);
  view.setUint16(4, SNAPSHOT_VERSION, true);
  view.setUint16(6, 0, true);
  view.setUint32(8, number, true);
  view.setUint32(12, chunk.length - CHUNK_HEADER, true);
  view.setUint32(16, 0, true);
  view.setUint32(16, crc32(chunk), true);
  return chunk;
}

/** Of a chunk that `openChunk` takes. */
export function chunkVersion(chunk: Uint8Array): number {
  return new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength).getUint16(4, true);
}

/** Checks a chunk and returns its body, a view and never a Buffer: whoever keeps a part of it takes slice(), which copies no Buffer. */
export function openChunk(source: Uint8Array, number: number): Uint8Array {
  const chunk = new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  assert(chunk.length >= CHUNK_HEADER, () => `snapshot chunk ${number} is cut short`);
  const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  assert(view.getUint32(0, true) === SNAPSHOT_MAGIC, () => `snapshot chunk ${number} has no magic`);
  const version = view.getUint16(4, true);
  assert(
    version >= SNAPSHOT_VERSION_MIN && version <= SNAPSHOT_VERSION,
    () => `snapshot version ${version} is unknown`,
  );
  assert(
    view.getUint32(8, true) === number,
    () => `snapshot chunk ${view.getUint32(8, true)} came as number ${number}`,
  );
  assert(view.getUint32(12, true) === chunk.length - CHUNK_HEADER, () => `snapshot chunk ${number} has a wrong length`);
  const header = chunk.slice(0, CHUNK_HEADER);
  header.fill(0, 16);
  const body = chunk.subarray(CHUNK_HEADER);
  assert(crc32(body, crc32(header)) === view.getUint32(16, true), () => `snapshot chunk ${number} is damaged`);
  return body;
}

/** Writes the ring of a subject; returns how many of them are unresolved. */
export function writeAllotments(writer: ByteWriter, pool: AllotmentPool, tail: number): number {
  const countAt = writer.length;
  writer.uint32(0);
  let count = 0;
  let unresolved = 0;
  let holder = tail;
  do {
    holder = pool.next(holder);
    count += 1;
    writer.uint8(pool.state(holder));
    writer.safeUint(pool.end(holder));
    if (!pool.isUnresolved(holder)) continue;
    unresolved += 1;
    writer.uint16(pool.node(holder));
    writer.uint32(pool.incarnationLow(holder));
    writer.uint32(pool.incarnationHigh(holder));
    writer.uint32(pool.shard(holder));
    writer.uint32(pool.counter(holder));
    writer.safeUint(pool.openedAt(holder));
    writer.uint32(pool.expiry(holder));
    writer.uint32(pool.bytes(holder));
  } while (holder !== tail);
  writer.patchUint32(countAt, count);
  return unresolved;
}

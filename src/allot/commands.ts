import { assert } from '../base/assert.ts';
import { writeSafeUint } from '../base/bytes.ts';
import { SUBJECT_BYTES_MAX } from '../base/subject.ts';

/**
 * Commands of the state machine, packed. A payload (one Raft entry) is a series of runs; each begins with an ORIGIN_RUN, which says how many
 * bytes of commands it holds for. Logs of earlier versions have ORIGIN instead, which holds until the next one. All integers little endian and unaligned; u64 are 0 to 2^53-1. Kinds, flags and layouts are in the log:
 * append only, and a new kind is proposed only when every member knows it.
 *
 *   ORIGIN        0 u8 kind · 1 u8 node length · 2 u32 incarnation low · 6 u32 incarnation high · 10 node
 *   OPEN          0 u8 kind · 1 u8 subject length · 2 u8 flags · 3 u8 zero · 4 u32 hash · 8 u32 shard · 12 u32 counter · 16 u32 count
 *                 20 u32 bytes · 24 u32 expiry (expiryWord) · 28 subject · [u64 expected head] · [u16 parts, then the parts]
 *     part        0 u32 count · 4 u8 producer length, 0 = plain · [5 u32 crc32 · 9 u64 sequence · 17 producer]
 *   CLOSE         0 u8 kind · 1 u8 subject length · 2 u8 verdict (AllotVerdict STORED or VOID) · 3 u8 zero · 4 u32 hash · 8 u64 base · 16 subject
 *   REVOKE        as CLOSE, verdict REVOKED, and RevokeReach for the zero
 *   TRIM          as CLOSE, verdict zero, and the new first id for a base
 *   NODE_STARTED  0 u8 kind · 1 u8 StartedFlag · [2 u64 Raft index of the node's last node-started, 0 = none]
 *   REVOKE_NODE   0 u8 kind · 1 u8 node length · 2 u8 1 = of that shard only · 3 u8 zero · 4 u32 shard · 8 node
 *   RECOVERED     as CLOSE, verdict zero; base = the store's highest id; behind the subject u64 new head
 *   FLOOR         0 u8 kind · 1 u8 zero · 2 u64 floor
 *   PRODUCER      0 u8 kind · 1 u8 producer length · 2 u8 1 = may be new · 3 u8 zero · 4 u32 shard · 8 u32 counter · 12 producer
 *   ORIGIN_RUN    0 u8 kind · 1 u8 node length · 2 u32 incarnation low · 6 u32 incarnation high · 10 u64 run · 18 u32 bytes of the commands behind it · 22 node
 *   LIMITS        0 u8 kind · 1 u8 zero · 2 u64 subjects.max · 10 u64 producers.max · 18 u64 allotments of a node that may be unresolved
 */
export const Kind = {
  ORIGIN: 1,
  OPEN: 2,
  CLOSE: 3,
  REVOKE: 4,
  TRIM: 5,
  NODE_STARTED: 6,
  REVOKE_NODE: 7,
  RECOVERED: 8,
  FLOOR: 9,
  PRODUCER: 10,
  ORIGIN_RUN: 11,
  LIMITS: 12,
} as const;

/**
 * The expiry of an OPEN: 0 = none of its messages expires. Else the highest bit is set, and the others are the largest expiry of its messages in s,
 * 0 if one never expires: that, with the log time, is what a database files the batch by, so it has to be exact. Entries and
 * snapshots of earlier versions have no highest bit; they say 1 also of a batch in which some messages never expire.
 */
const EXACT_EXPIRY = 0x8000_0000;

/** `expiresMax`: largest expiry in s, 0 if any message never expires. `hasExpiry`: some message expires. */
export function expiryWord(expiresMax: number, hasExpiry: boolean): number {
  assert(expiresMax >= 0 && expiresMax < EXACT_EXPIRY, () => `an expiry of ${expiresMax} s`);
  assert(hasExpiry || expiresMax === 0, 'an expiry of messages that never expire');
  return hasExpiry ? EXACT_EXPIRY + expiresMax : 0;
}

/** Largest expiry in s, 0 if any message never expires. */
export function expiresMaxOf(expiry: number): number {
  if (expiry >= EXACT_EXPIRY) return expiry - EXACT_EXPIRY;
  // What an earlier version may have meant by 1 is rarely one second.
  return expiry === 1 ? 0 : expiry;
}

/** KEEP_OPEN: what earlier incarnations have open stays open (embedded). AFTER: it is void unless the node's last node-started is at that index. */
export const StartedFlag = { KEEP_OPEN: 1, AFTER: 2 } as const;

/**
 * ONE: that allotment only; its own process says so, which keeps the order of what stands behind it by itself. BEHIND: also what the same process has
 * open behind it in the subject, whose closes may be on their way; for whoever cannot know of them.
 */
export const RevokeReach = { ONE: 0, BEHIND: 1 } as const;

export const OpenFlag = { EXPECTED_HEAD: 1, PARTS: 2 } as const;

export const ORIGIN_HEADER = 10;
export const ORIGIN_RUN_HEADER = 22;
export const LIMITS_BYTES = 26;
export const OPEN_HEADER = 28;
export const PART_HEADER = 5;
export const PART_PRODUCER_HEADER = 17;
export const CLOSE_HEADER = 16;
export const NODE_STARTED_BYTES = 2;
export const NODE_STARTED_AFTER_BYTES = 10;
export const REVOKE_NODE_HEADER = 8;
export const FLOOR_BYTES = 10;
export const PRODUCER_COMMAND_HEADER = 12;

export const NODE_BYTES_MAX = 255;
export const PRODUCER_BYTES_MAX = 64;
export const PARTS_MAX = 0xffff;

export function originSize(nodeLength: number): number {
  return ORIGIN_HEADER + nodeLength;
}

/** Every write function writes at `at` of `view`, whose first byte is bytes[0] (a ring claim), and returns the offset behind the command. */
export function writeOrigin(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  node: Uint8Array,
  incarnationLow: number,
  incarnationHigh: number,
): number {
  assert(node.length >= 1 && node.length <= NODE_BYTES_MAX, () => `node id of ${node.length} bytes`);
  view.setUint8(at, Kind.ORIGIN);
  view.setUint8(at + 1, node.length);
  view.setUint32(at + 2, incarnationLow, true);
  view.setUint32(at + 6, incarnationHigh, true);
  return copy(bytes, at + ORIGIN_HEADER, node);
}

export function originRunSize(nodeLength: number): number {
  return ORIGIN_RUN_HEADER + nodeLength;
}

/** `run`: from 1 in every incarnation. `byteCount`: bytes of the run's commands, which must follow. Returns the offset of the first. */
export function writeOriginRun(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  node: Uint8Array,
  incarnationLow: number,
  incarnationHigh: number,
  run: number,
  byteCount: number,
): number {
  assert(node.length >= 1 && node.length <= NODE_BYTES_MAX, () => `node id of ${node.length} bytes`);
  assert(run >= 1 && byteCount >= 1 && byteCount >>> 0 === byteCount, () => `run ${run} of ${byteCount} bytes`);
  view.setUint8(at, Kind.ORIGIN_RUN);
  view.setUint8(at + 1, node.length);
  view.setUint32(at + 2, incarnationLow, true);
  view.setUint32(at + 6, incarnationHigh, true);
  writeSafeUint(view, at + 10, run);
  view.setUint32(at + 18, byteCount, true);
  return copy(bytes, at + ORIGIN_RUN_HEADER, node);
}

/** What the state machine may hold from here on: caps live in the log, or replicas would part ways. */
export function writeLimits(
  view: DataView,
  at: number,
  subjectsMax: number,
  producersMax: number,
  openPerNodeMax: number,
): number {
  view.setUint8(at, Kind.LIMITS);
  view.setUint8(at + 1, 0);
  writeSafeUint(view, at + 2, subjectsMax);
  writeSafeUint(view, at + 10, producersMax);
  writeSafeUint(view, at + 18, openPerNodeMax);
  return at + LIMITS_BYTES;
}

/** Bytes of an open without parts. */
export function openSize(subjectLength: number, hasExpectedHead: boolean): number {
  return OPEN_HEADER + subjectLength + (hasExpectedHead ? 8 : 0);
}

/** Bytes that an open with parts takes in addition to its parts. */
export function openPartsSize(subjectLength: number, hasExpectedHead: boolean): number {
  return openSize(subjectLength, hasExpectedHead) + 2;
}

/** Bytes of one part; `producerLength` 0 = a plain part. */
export function partSize(producerLength: number): number {
  return producerLength === 0 ? PART_HEADER : PART_PRODUCER_HEADER + producerLength;
}

/**
 * An open of `count` ids for a plain batch. `shard`, `counter`: the request, answered verbatim. `byteCount`: size of the batch in the
 * store. `expiry`: see expiryWord; `everExpires` is set in the subject when it is not 0. `expectedHead`: refuse unless the head is this; -1 = any.
 */
export function writeOpen(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  subject: Uint8Array,
  hash: number,
  shard: number,
  counter: number,
  count: number,
  byteCount: number,
  expiry: number,
  expectedHead: number,
): number {
  const flags = expectedHead < 0 ? 0 : OpenFlag.EXPECTED_HEAD;
  return writeOpenHeader(view, bytes, at, subject, hash, shard, counter, count, byteCount, expiry, expectedHead, flags);
}

/** The same for a batch with parts: write exactly `parts` parts behind it, whose counts add up to `count`. */
export function writeOpenParts(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  subject: Uint8Array,
  hash: number,
  shard: number,
  counter: number,
  count: number,
  byteCount: number,
  expiry: number,
  expectedHead: number,
  parts: number,
): number {
  assert(parts >= 1 && parts <= PARTS_MAX, () => `${parts} parts`);
  const flags = OpenFlag.PARTS | (expectedHead < 0 ? 0 : OpenFlag.EXPECTED_HEAD);
  const end = writeOpenHeader(
    view,
    bytes,
    at,
    subject,
    hash,
    shard,
    counter,
    count,
    byteCount,
    expiry,
    expectedHead,
    flags,
  );
  view.setUint16(end, parts, true);
  return end + 2;
}

/** A part of `count` ids. `producer` null = plain. `checksum`: crc32 of the part's content. */
export function writePart(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  count: number,
  producer: Uint8Array | null,
  sequence: number,
  checksum: number,
): number {
  assert(count >= 1 && count >>> 0 === count, () => `a part of ${count} ids`);
  view.setUint32(at, count, true);
  if (producer === null) {
    view.setUint8(at + 4, 0);
    return at + PART_HEADER;
  }
  assert(
    producer.length >= 1 && producer.length <= PRODUCER_BYTES_MAX,
    () => `producer id of ${producer.length} bytes`,
  );
  assert(sequence >= 1, () => `sequence ${sequence}`);
  view.setUint8(at + 4, producer.length);
  view.setUint32(at + 5, checksum, true);
  writeSafeUint(view, at + 9, sequence);
  return copy(bytes, at + PART_PRODUCER_HEADER, producer);
}

/** Bytes of a close, a revoke or a trim. */
export function closeSize(subjectLength: number): number {
  return CLOSE_HEADER + subjectLength;
}

/** `verdict`: AllotVerdict.STORED or AllotVerdict.VOID. */
export function writeClose(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  subject: Uint8Array,
  hash: number,
  base: number,
  verdict: number,
): number {
  return writeSubjectId(view, bytes, at, Kind.CLOSE, verdict, subject, hash, base);
}

/** `reach`: a RevokeReach. */
export function writeRevoke(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  subject: Uint8Array,
  hash: number,
  base: number,
  reach: number = RevokeReach.ONE,
): number {
  const end = writeSubjectId(view, bytes, at, Kind.REVOKE, 3, subject, hash, base);
  view.setUint8(at + 3, reach);
  return end;
}

export function writeTrim(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  subject: Uint8Array,
  hash: number,
  first: number,
): number {
  return writeSubjectId(view, bytes, at, Kind.TRIM, 0, subject, hash, first);
}

/** The origin in front of it is the process that started. */
export function writeNodeStarted(view: DataView, at: number, keepOpen: boolean): number {
  view.setUint8(at, Kind.NODE_STARTED);
  view.setUint8(at + 1, keepOpen ? StartedFlag.KEEP_OPEN : 0);
  return at + NODE_STARTED_BYTES;
}

/** The same as the first command of run 1. `after`: AllotMachine.startedIndex of the node, as its process knows it. */
export function writeNodeStartedAfter(view: DataView, at: number, keepOpen: boolean, after: number): number {
  view.setUint8(at, Kind.NODE_STARTED);
  view.setUint8(at + 1, StartedFlag.AFTER | (keepOpen ? StartedFlag.KEEP_OPEN : 0));
  writeSafeUint(view, at + 2, after);
  return at + NODE_STARTED_AFTER_BYTES;
}

export function revokeNodeSize(nodeLength: number): number {
  return REVOKE_NODE_HEADER + nodeLength;
}

/** Revokes every open allotment of a node, or of one of its shards (`shard` -1 = all). */
export function writeRevokeNode(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  node: Uint8Array,
  shard: number,
): number {
  assert(node.length >= 1 && node.length <= NODE_BYTES_MAX, () => `node id of ${node.length} bytes`);
  view.setUint8(at, Kind.REVOKE_NODE);
  view.setUint8(at + 1, node.length);
  view.setUint8(at + 2, shard < 0 ? 0 : 1);
  view.setUint8(at + 3, 0);
  view.setUint32(at + 4, Math.max(shard, 0), true);
  return copy(bytes, at + REVOKE_NODE_HEADER, node);
}

export function recoveredSize(subjectLength: number): number {
  return CLOSE_HEADER + subjectLength + 8;
}

/** `cluster recover`: ids up to `storeHighest` are what the store says, those from there to `head` are one void range. */
export function writeRecovered(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  subject: Uint8Array,
  hash: number,
  storeHighest: number,
  head: number,
): number {
  const end = writeSubjectId(view, bytes, at, Kind.RECOVERED, 0, subject, hash, storeHighest);
  writeSafeUint(view, end, head);
  return end + 8;
}

/** `cluster recover`: subjects that do not exist yet will start behind `floor`. */
export function writeFloor(view: DataView, at: number, floor: number): number {
  view.setUint8(at, Kind.FLOOR);
  view.setUint8(at + 1, 0);
  writeSafeUint(view, at + 2, floor);
  return at + FLOOR_BYTES;
}

function writeOpenHeader(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  subject: Uint8Array,
  hash: number,
  shard: number,
  counter: number,
  count: number,
  byteCount: number,
  expiry: number,
  expectedHead: number,
  flags: number,
): number {
  assert(subject.length >= 1 && subject.length <= SUBJECT_BYTES_MAX, () => `subject of ${subject.length} bytes`);
  assert(count >= 1 && count >>> 0 === count, () => `an open of ${count} ids`);
  view.setUint8(at, Kind.OPEN);
  view.setUint8(at + 1, subject.length);
  view.setUint8(at + 2, flags);
  view.setUint8(at + 3, 0);
  view.setUint32(at + 4, hash, true);
  view.setUint32(at + 8, shard, true);
  view.setUint32(at + 12, counter, true);
  view.setUint32(at + 16, count, true);
  view.setUint32(at + 20, byteCount, true);
  view.setUint32(at + 24, expiry, true);
  const end = copy(bytes, at + OPEN_HEADER, subject);
  if (expectedHead < 0) return end;
  writeSafeUint(view, end, expectedHead);
  return end + 8;
}

function writeSubjectId(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  kind: number,
  verdict: number,
  subject: Uint8Array,
  hash: number,
  id: number,
): number {
  assert(subject.length >= 1 && subject.length <= SUBJECT_BYTES_MAX, () => `subject of ${subject.length} bytes`);
  view.setUint8(at, kind);
  view.setUint8(at + 1, subject.length);
  view.setUint8(at + 2, verdict);
  view.setUint8(at + 3, 0);
  view.setUint32(at + 4, hash, true);
  writeSafeUint(view, at + 8, id);
  return copy(bytes, at + CLOSE_HEADER, subject);
}

function copy(target: Uint8Array, at: number, source: Uint8Array): number {
  for (let i = 0; i < source.length; i++) target[at + i] = source[i] as number;
  return at + source.length;
}

/** Bytes of a PRODUCER command. */
export function producerSize(producerLength: number): number {
  return PRODUCER_COMMAND_HEADER + producerLength;
}

/** Asks for the last sequence of a producer; `mayBeNew`: one that is not known becomes known with none. `shard`, `counter`: the request, answered verbatim. */
export function writeProducer(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  producer: Uint8Array,
  shard: number,
  counter: number,
  mayBeNew: boolean,
): number {
  assert(
    producer.length >= 1 && producer.length <= PRODUCER_BYTES_MAX,
    () => `producer id of ${producer.length} bytes`,
  );
  view.setUint8(at, Kind.PRODUCER);
  view.setUint8(at + 1, producer.length);
  view.setUint8(at + 2, mayBeNew ? 1 : 0);
  view.setUint8(at + 3, 0);
  view.setUint32(at + 4, shard, true);
  view.setUint32(at + 8, counter, true);
  return copy(bytes, at + PRODUCER_COMMAND_HEADER, producer);
}

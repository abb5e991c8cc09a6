import { Packr } from 'msgpackr';
import { crc32 } from '../base/checksum.ts';
import { SUBJECT_BYTES_MAX, subjectFault } from '../base/subject.ts';

/**
 * Where a consume stream stood, for clients to keep and to give back, not to read: CRC-32 of the rest (4 bytes, little endian), version, then
 * msgpack of [patterns, subjects, next ids], and behind them, if a start was a time, the time of each subject in ms (0: none).
 */
const VERSION = 1;
const HEADER_BYTES = 5;

export interface StreamPositions {
  /** The patterns that the stream was opened with. */
  readonly patterns: ReadonlySet<string>;
  /** Subject -> next id that may be delivered. */
  readonly next: ReadonlyMap<string, number>;
  /** Subject -> ms since 1970 before which nothing may be delivered; only of those that began at a time. */
  readonly times: ReadonlyMap<string, number>;
}

const packr = new Packr({ useRecords: false });

export function encodeResumeToken({ patterns, next, times }: StreamPositions): Buffer {
  const columns: unknown[] = [[...patterns], [...next.keys()], [...next.values()]];
  if (times.size > 0) columns.push(Array.from(next.keys(), (name) => times.get(name) ?? 0));
  const body = packr.pack(columns);
  const token = Buffer.allocUnsafe(HEADER_BYTES + body.length);
  token[4] = VERSION;
  body.copy(token, HEADER_BYTES);
  token.writeUInt32LE(crc32(token.subarray(4)), 0);
  return token;
}

/**
 * Null if it is not whole, not of this version, or names what cannot be: whoever makes one names subjects of its own space, as it calls them.
 * `subjectsMax` bounds what is made of it; `subjectBytesMax`: of one subject.
 */
export function decodeResumeToken(
  token: Uint8Array,
  subjectsMax: number,
  subjectBytesMax = SUBJECT_BYTES_MAX,
): StreamPositions | null {
  if (token.length <= HEADER_BYTES) return null;
  const bytes = Buffer.from(token.buffer, token.byteOffset, token.length);
  if (bytes.readUInt32LE(0) !== crc32(bytes.subarray(4)) || bytes[4] !== VERSION) return null;
  let value: unknown;
  try {
    value = packr.unpack(bytes.subarray(HEADER_BYTES));
  } catch {
    // The checksum is no secret: whoever made this made it himself.
    return null;
  }
  if (!Array.isArray(value)) return null;
  const [patterns, subjects, ids, starts] = value as unknown[];
  if (!areStrings(patterns, subjectsMax) || !areStrings(subjects, subjectsMax)) return null;
  if (!Array.isArray(ids) || ids.length !== subjects.length) return null;
  if (starts !== undefined && (!Array.isArray(starts) || starts.length !== subjects.length)) return null;
  const next = new Map<string, number>();
  const times = new Map<string, number>();
  for (let i = 0; i < ids.length; i++) {
    const id: unknown = ids[i];
    const name = Buffer.from(subjects[i] as string);
    if (typeof id !== 'number' || !Number.isSafeInteger(id) || id < 1) return null;
    if (name.length > subjectBytesMax || subjectFault(name, 0, name.length) !== null) return null;
    next.set(subjects[i] as string, id);
    const time: unknown = starts?.[i] ?? 0;
    if (typeof time !== 'number' || !Number.isSafeInteger(time) || time < 0) return null;
    if (time > 0) times.set(subjects[i] as string, time);
  }
  return { patterns: new Set(patterns), next, times };
}

function areStrings(value: unknown, lengthMax: number): value is string[] {
  if (!Array.isArray(value) || value.length > lengthMax) return false;
  return value.every((entry) => typeof entry === 'string');
}

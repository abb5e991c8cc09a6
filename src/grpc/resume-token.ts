import { Packr } from 'msgpackr';
import { crc32 } from '../base/checksum.ts';
import { subjectFault } from '../base/subject.ts';

/**
 * Where a consume stream stood, for clients to keep and to give back, not to read: CRC-32 of the rest (4 bytes, little endian), version, then
 * msgpack of [patterns, subjects, next ids].
 */
const VERSION = 1;
const HEADER_BYTES = 5;

export interface StreamPositions {
  /** The patterns that the stream was opened with. */
  readonly patterns: ReadonlySet<string>;
  /** Subject -> next id that may be delivered. */
  readonly next: ReadonlyMap<string, number>;
}

const packr = new Packr({ useRecords: false });

export function encodeResumeToken({ patterns, next }: StreamPositions): Buffer {
  const body = packr.pack([[...patterns], [...next.keys()], [...next.values()]]);
  const token = Buffer.allocUnsafe(HEADER_BYTES + body.length);
  token[4] = VERSION;
  body.copy(token, HEADER_BYTES);
  token.writeUInt32LE(crc32(token.subarray(4)), 0);
  return token;
}

/** Null if it is not whole, not of this version, or names what cannot be. `subjectsMax` bounds what is made of it. */
export function decodeResumeToken(token: Uint8Array, subjectsMax: number): StreamPositions | null {
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
  const [patterns, subjects, ids] = value as unknown[];
  if (!areStrings(patterns, subjectsMax) || !areStrings(subjects, subjectsMax)) return null;
  if (!Array.isArray(ids) || ids.length !== subjects.length) return null;
  const next = new Map<string, number>();
  for (let i = 0; i < ids.length; i++) {
    const id: unknown = ids[i];
    const name = Buffer.from(subjects[i] as string);
    if (typeof id !== 'number' || !Number.isSafeInteger(id) || id < 1) return null;
    if (subjectFault(name, 0, name.length) !== null) return null;
    next.set(subjects[i] as string, id);
  }
  return { patterns: new Set(patterns), next };
}

function areStrings(value: unknown, lengthMax: number): value is string[] {
  if (!Array.isArray(value) || value.length > lengthMax) return false;
  return value.every((entry) => typeof entry === 'string');
}

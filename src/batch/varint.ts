import { assert } from '../base/assert.ts';

/** Protobuf varints of integers from 0 to 2^53-1. */

export function varintBytes(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x20_0000) return 3;
  if (value < 0x1000_0000) return 4;
  let bytes = 5;
  for (let rest = Math.floor(value / 0x8_0000_0000); rest > 0; rest = Math.floor(rest / 0x80)) bytes += 1;
  return bytes;
}

/** Writes `value` at `offset`; returns the offset behind it. */
export function writeVarint(target: Uint8Array, offset: number, value: number): number {
  assert(value >= 0 && value <= Number.MAX_SAFE_INTEGER, 'a varint is not an integer from 0 to 2^53-1');
  let rest = value;
  let at = offset;
  while (rest > 0x7fff_ffff) {
    target[at++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  while (rest >= 0x80) {
    target[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  target[at++] = rest;
  return at;
}

/** Longest varint that protobuf allows. */
const VARINT_BYTES_MAX = 10;
/** Longest tag or length: longer ones are refused by protobuf's libraries, whatever their value. */
export const TAG_BYTES_MAX = 5;

/** Reads varints without making objects: one per reader, reused. */
export class VarintCursor {
  /** What `read` found; exact up to 2^53-1. */
  value = 0;

  /** Reads the varint at `offset`, which must end before `end`. Returns the offset behind it, or -1 (cut off, too long, beyond 2^53-1). */
  read(bytes: Uint8Array, offset: number, end: number): number {
    if (offset >= end) return -1;
    let byte = bytes[offset] as number;
    if (byte < 0x80) {
      this.value = byte;
      return offset + 1;
    }
    let value = byte & 0x7f;
    let scale = 0x80;
    const last = Math.min(end, offset + VARINT_BYTES_MAX);
    for (let at = offset + 1; at < last; at++) {
      byte = bytes[at] as number;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        this.value = value;
        return value <= Number.MAX_SAFE_INTEGER ? at + 1 : -1;
      }
      scale *= 0x80;
    }
    return -1;
  }
}

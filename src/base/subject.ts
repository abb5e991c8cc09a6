import type { Reason } from './errors.ts';

/** Longest subject in bytes of UTF-8 (so that its length fits one byte in every format). */
export const SUBJECT_BYTES_MAX = 255;

/** Number of slots; frozen, because stored snapshots are cut slot by slot. */
export const SLOT_COUNT = 1024;

/**
 * Hash of a subject's bytes: FNV-1a (32 bits, Fowler/Noll/Vo) with MurmurHash3's finalizer, which mixes the low bits
 * that choose the slot. Frozen: part of the formats (docs/record-format.md).
 */
export function subjectHash(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let i = start; i < end; i++) {
    hash = Math.imul(hash ^ (bytes[i] as number), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

export function slotOfHash(hash: number): number {
  return hash & (SLOT_COUNT - 1);
}

const DOT = 0x2e;

/**
 * Checks the rules for a subject on its raw bytes (design: UTF-8, 1-255 bytes, no control characters, no white space at
 * either end, dot-separated tokens, none empty, none exactly `*` or `>`). Returns the broken rule, or null if it is fine.
 * White space and control characters are Unicode's (White_Space property; categories Cc: U+0000-1F, U+7F-9F).
 */
export function subjectFault(bytes: Uint8Array, start: number, end: number): Reason | null {
  const length = end - start;
  if (length === 0) return 'SUBJECT_EMPTY';
  if (length > SUBJECT_BYTES_MAX) return 'SUBJECT_TOO_LONG';
  let ascii = true;
  let tokenStart = start;
  for (let i = start; i < end; i++) {
    const byte = bytes[i] as number;
    if (byte < 0x20 || byte === 0x7f) return 'SUBJECT_CONTROL_CHARACTER';
    if (byte >= 0x80) ascii = false;
    if (byte === DOT) {
      const fault = tokenFault(bytes, tokenStart, i);
      if (fault !== null) return fault;
      tokenStart = i + 1;
    }
  }
  const fault = tokenFault(bytes, tokenStart, end);
  if (fault !== null) return fault;
  if (bytes[start] === 0x20 || bytes[end - 1] === 0x20) return 'SUBJECT_WHITE_SPACE';
  return ascii ? null : unicodeFault(bytes, start, end);
}

function tokenFault(bytes: Uint8Array, start: number, end: number): Reason | null {
  if (start === end) return 'SUBJECT_EMPTY_TOKEN';
  if (end - start === 1 && (bytes[start] === 0x2a || bytes[start] === 0x3e)) return 'SUBJECT_WILDCARD_TOKEN';
  return null;
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function unicodeFault(bytes: Uint8Array, start: number, end: number): Reason | null {
  let text: string;
  try {
    text = strictUtf8.decode(bytes.subarray(start, end));
  } catch {
    return 'SUBJECT_NOT_UTF8';
  }
  if (/\p{Cc}/u.test(text)) return 'SUBJECT_CONTROL_CHARACTER';
  if (/^\p{White_Space}|\p{White_Space}$/u.test(text)) return 'SUBJECT_WHITE_SPACE';
  return null;
}

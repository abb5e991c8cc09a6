import type { Reason } from '../base/errors.ts';
import { subjectFault } from '../base/subject.ts';

/**
 * Patterns over subjects: `*` stands for one token, `>` as the last token for one or more. Everything else stands for itself, also a token that
 * merely contains one of the two, because subjects may have such tokens.
 */
const DOT = 0x2e;
const STAR = 0x2a;
const REST = 0x3e;
/** Stands for a wildcard while the rest of a pattern is checked by the rules for subjects. */
const LETTER = 0x78;

function isWildcard(bytes: Uint8Array, start: number, end: number): boolean {
  return end - start === 1 && (bytes[start] === STAR || bytes[start] === REST);
}

function tokenEnd(bytes: Uint8Array, start: number): number {
  const dot = bytes.indexOf(DOT, start);
  return dot < 0 ? bytes.length : dot;
}

/** True if some token is exactly `*` or `>`: then it is no subject, and has to be a pattern. */
export function hasWildcard(bytes: Uint8Array): boolean {
  for (let start = 0; start <= bytes.length; ) {
    const end = tokenEnd(bytes, start);
    if (isWildcard(bytes, start, end)) return true;
    start = end + 1;
  }
  return false;
}

export class Pattern {
  readonly bytes: Uint8Array;
  /** Every subject that matches begins with these bytes: what stands before the first wildcard. */
  readonly prefix: Uint8Array;

  private constructor(bytes: Uint8Array, prefixBytes: number) {
    this.bytes = bytes;
    this.prefix = bytes.subarray(0, prefixBytes);
  }

  /** Keeps `bytes`. The broken rule if it is no pattern. */
  static parse(bytes: Uint8Array): Pattern | Reason {
    // Buffer.slice would be a view.
    const plain = Uint8Array.from(bytes);
    let prefixBytes = -1;
    for (let start = 0; start <= bytes.length; ) {
      const end = tokenEnd(bytes, start);
      if (isWildcard(bytes, start, end)) {
        if (bytes[start] === REST && end !== bytes.length) return 'PATTERN_INVALID';
        if (prefixBytes < 0) prefixBytes = start;
        plain[start] = LETTER;
      }
      start = end + 1;
    }
    const fault = subjectFault(plain, 0, plain.length);
    if (fault !== null) return fault;
    return prefixBytes < 0 ? 'PATTERN_INVALID' : new Pattern(bytes, prefixBytes);
  }

  /** `subject` is valid. */
  matches(subject: Uint8Array): boolean {
    const pattern = this.bytes;
    let at = 0;
    for (let start = 0; ; ) {
      const end = tokenEnd(pattern, start);
      if (end - start === 1 && pattern[start] === REST) return true;
      const subjectEnd = tokenEnd(subject, at);
      const isAny = end - start === 1 && pattern[start] === STAR;
      if (!isAny && !areEqual(pattern, start, end, subject, at, subjectEnd)) return false;
      const isLast = end === pattern.length;
      const isSubjectLast = subjectEnd === subject.length;
      if (isLast || isSubjectLast) return isLast && isSubjectLast;
      start = end + 1;
      at = subjectEnd + 1;
    }
  }
}

function areEqual(a: Uint8Array, aStart: number, aEnd: number, b: Uint8Array, bStart: number, bEnd: number): boolean {
  if (aEnd - aStart !== bEnd - bStart) return false;
  for (let i = aStart, j = bStart; i < aEnd; i++, j++) {
    if (a[i] !== b[j]) return false;
  }
  return true;
}

import type { SubjectTable } from '../base/subject-table.ts';
import { type AllotState, rowOfSubject, subjectNumber } from './allot-state.ts';
import { expiresMaxOf } from './commands.ts';

/** An allotment above `settled`, for start-up look-ups and supervision: an own copy. */
export interface AllotmentInfo {
  readonly subject: Uint8Array;
  readonly hash: number;
  readonly base: number;
  readonly count: number;
  /** AllotVerdict. */
  readonly verdict: number;
  /** Node number, request and incarnation; meaningful while open or revoked. */
  readonly node: number;
  readonly incarnationLow: number;
  readonly incarnationHigh: number;
  readonly shard: number;
  readonly counter: number;
  /** Log time of the open: the messages' published_at, ms. A database files batch and void mark by this and `expiresMax`. */
  readonly openedAt: number;
  /** Largest expiry of its messages, s; 0 = one never expires. */
  readonly expiresMax: number;
  readonly bytes: number;
}

/** `subject` is the number that AllotMachine.head and the like take; the name is names[start, end). */
export type SubjectVisitor = (subject: number, names: Uint8Array, start: number, end: number) => void;

/** Rows that one call of listSubjects may look at beyond its limit. */
const ROWS_PER_CALL = 4096;
/** A cursor is slot * ROW_SPAN + row. */
const ROW_SPAN = 0x1_0000_0000;

export function allotmentInfo(state: AllotState, holder: number): AllotmentInfo {
  const pool = state.pool;
  const subject = pool.subject(holder);
  const names = state.slotOf(subject).names;
  const row = rowOfSubject(subject);
  const base = pool.base(holder);
  return {
    subject: names.nameAt(row).slice(),
    hash: names.hashAt(row),
    base,
    count: pool.end(holder) - base + 1,
    verdict: pool.state(holder),
    node: pool.node(holder),
    incarnationLow: pool.incarnationLow(holder),
    incarnationHigh: pool.incarnationHigh(holder),
    shard: pool.shard(holder),
    counter: pool.counter(holder),
    openedAt: pool.openedAt(holder),
    expiresMax: expiresMaxOf(pool.expiry(holder)),
    bytes: pool.bytes(holder),
  };
}

export function unresolvedOf(
  state: AllotState,
  node: number,
  verdict: number,
  visit: (allotment: AllotmentInfo) => boolean | undefined,
): void {
  if (node < 0) return;
  const pool = state.pool;
  for (let holder = state.nodes.get(node).listFirst; holder !== 0; holder = pool.nodeNext(holder)) {
    if (pool.state(holder) === verdict && visit(allotmentInfo(state, holder)) === false) return;
  }
}

export function listSubjects(
  state: AllotState,
  cursor: number,
  prefix: Uint8Array,
  limit: number,
  visit: SubjectVisitor,
): number {
  let number = Math.floor(cursor / ROW_SPAN);
  let row = cursor % ROW_SPAN;
  let found = 0;
  for (let looked = 0; number < state.slots.length; number++) {
    const slot = state.slots[number] ?? null;
    const names = slot?.names ?? null;
    for (; names !== null && row < names.size; row++) {
      if (found >= limit || looked >= limit + ROWS_PER_CALL) return number * ROW_SPAN + row;
      looked += 1;
      if (!beginsWith(names, row, prefix)) continue;
      found += 1;
      const start = names.nameStart(row);
      visit(subjectNumber(number, row), names.names, start, start + names.nameLength(row));
    }
    row = 0;
  }
  return -1;
}

function beginsWith(names: SubjectTable, row: number, prefix: Uint8Array): boolean {
  if (names.nameLength(row) < prefix.length) return false;
  const start = names.nameStart(row);
  for (let i = 0; i < prefix.length; i++) {
    if (names.names[start + i] !== prefix[i]) return false;
  }
  return true;
}

import { isInScope, type SubjectScope } from '../base/subject-space.ts';
import { type AllotState, rowOfSubject, subjectNumber } from './allot-state.ts';
import { expiresMaxOf } from './commands.ts';
import { SubjectFlag } from './slot-subjects.ts';

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

/** Where the log stands with a subject, for whoever holds the store against it: an own copy. */
export interface SubjectReport {
  readonly subject: Uint8Array;
  readonly first: number;
  readonly head: number;
  readonly settled: number;
  readonly everExpires: boolean;
  /** Log time of the oldest allotment that is neither stored nor void, epoch ms; 0: there is none. */
  readonly openSince: number;
  /** Ids [voidFrom, voidTo] are void without a mark in the store (`cluster recover`); 0: there are none. */
  readonly voidFrom: number;
  readonly voidTo: number;
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

export function reportOf(state: AllotState, subject: number): SubjectReport {
  const slot = state.slotOf(subject);
  const row = rowOfSubject(subject);
  const range = slot.voidRanges?.get(row);
  const tail = slot.tail(row);
  return {
    subject: slot.names.nameAt(row).slice(),
    first: slot.first(row),
    head: slot.head(row),
    settled: slot.settled(row),
    everExpires: (slot.flags(row) & SubjectFlag.EVER_EXPIRES) !== 0,
    // The first above `settled` is the one that holds it back.
    openSince: tail === 0 ? 0 : state.pool.openedAt(state.pool.next(tail)),
    voidFrom: range?.from ?? 0,
    voidTo: range?.to ?? 0,
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
  scope: SubjectScope,
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
      const start = names.nameStart(row);
      const end = start + names.nameLength(row);
      if (!isInScope(names.names, start, end, scope)) continue;
      found += 1;
      visit(subjectNumber(number, row), names.names, start, end);
    }
    row = 0;
  }
  return -1;
}

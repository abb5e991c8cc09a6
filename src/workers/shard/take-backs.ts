import { REASON_CODE } from '../../base/errors.ts';
import type { AllotRequests } from './allot-requests.ts';
import type { Gathering } from './gathering.ts';
import { type Group, isUnclosed, type Revocation, type VoidMark } from './group.ts';
import type { MainPort } from './main-port.ts';
import type { OpenBatch } from './open-batch.ts';
import type { StreamFailures } from './stream-failures.ts';
import type { ActiveSubject, Unresolved } from './subjects.ts';

/** Void marks of one group; bounds its memory when very many are left over. */
const MARKS_A_GROUP_MAX = 8_192;
/** Marks of other nodes' allotments that wait or are being written; the Raft thread asks again for more. */
const FOREIGN_MARKS_MAX = 8_192;
const NO_CALLS = new Uint32Array(0);
const NO_REASONS = new Uint16Array(0);
const STORE_UNAVAILABLE = REASON_CODE.STORE_UNAVAILABLE;
const { OUTCOME_UNKNOWN } = REASON_CODE;

/** What the mark of an allotment is filed by: its log time, epoch ms, and the largest expiry of its batch in s, 0 = never. */
export type MarkKey = Pick<VoidMark, 'publishedAt' | 'expiresMax'>;

/**
 * Ids that are taken back: revoked in the log, then answered, then marked void in the store. And what must not overtake them: later batches of the
 * same senders are refused or taken back too.
 */
export class TakeBacks {
  readonly #requests: AllotRequests;
  readonly #main: MainPort;
  readonly #failures: StreamFailures;
  readonly #gathering: Gathering;
  /** Those in flight, in order; the writer's list. */
  readonly #groups: readonly Group[];
  readonly #revoking: Revocation[] = [];
  readonly #marks: VoidMark[] = [];
  #marksRetryAt = 0;
  #foreignMarks = 0;
  /** Of `#revoking`: those that the log did not answer in time. */
  #abandoned = 0;

  constructor(
    requests: AllotRequests,
    main: MainPort,
    failures: StreamFailures,
    gathering: Gathering,
    groups: readonly Group[],
  ) {
    this.#requests = requests;
    this.#main = main;
    this.#failures = failures;
    this.#gathering = gathering;
    this.#groups = groups;
  }

  /** Every revoke is applied, unless nobody waits for that any more, and every mark is with a group. */
  get empty(): boolean {
    return this.#revoking.length === this.#abandoned && this.#marks.length === 0;
  }

  /** Revokes that the log has not answered, and that nobody waits for any more. */
  get abandoned(): number {
    return this.#abandoned;
  }

  /** More of them wait than the next group takes along. */
  get isCrowded(): boolean {
    return this.#revoking.length + this.#marks.length >= MARKS_A_GROUP_MAX;
  }

  /** Marks are missing in the store. */
  get hasMarks(): boolean {
    const isWriting = this.#groups.some(({ marks }) => marks.length > 0);
    return isWriting || !this.empty;
  }

  /** Marks wait that may be written now. `now` in ms of performance.now(), here and below. */
  areMarksDue(now: number): boolean {
    return this.#marks.length > 0 && now >= this.#marksRetryAt;
  }

  /** In how many ms marks are due, at least 1; Infinity if none wait. */
  marksDueIn(now: number): number {
    return this.#marks.length > 0 ? Math.max(1, this.#marksRetryAt - now) : Number.POSITIVE_INFINITY;
  }

  /** Marks for a group, if it is their time. */
  takeMarks(now: number): VoidMark[] {
    return now < this.#marksRetryAt ? [] : this.#marks.splice(0, MARKS_A_GROUP_MAX);
  }

  mark(mark: VoidMark): void {
    this.#marks.push(mark);
  }

  /** An allotment of another node that was revoked, whose owner does not mark it. Is asked for again until it is closed. */
  markForeign(subject: ActiveSubject, ids: { readonly base: number; readonly count: number }, mark: MarkKey): void {
    const { base, count } = ids;
    if (this.#foreignMarks >= FOREIGN_MARKS_MAX || subject.marking?.has(base) === true) return;
    subject.marking ??= new Set();
    subject.marking.add(base);
    this.#foreignMarks += 1;
    this.#marks.push({ ...mark, subject, allotment: subject.allotted(base, count, mark.publishedAt) });
  }

  /** A mark is stored. */
  marked({ subject, allotment }: VoidMark): void {
    if (subject.marking?.delete(allotment.base) !== true) return;
    this.#foreignMarks -= 1;
    if (subject.marking.size === 0) subject.marking = null;
  }

  /** The store did not take them: they are tried again at `retryAt`. */
  marksFailed(marks: readonly VoidMark[], retryAt: number): void {
    for (const mark of marks) this.#marks.push(mark);
    this.#marksRetryAt = retryAt;
  }

  /** Ids for which nobody waits are revoked, and then marked. */
  makeVoid(mark: VoidMark): void {
    this.#revoke({ ...mark, calls: NO_CALLS, reasons: NO_REASONS });
  }

  #revoke(entry: Omit<Revocation, 'since' | 'isAbandoned'>): void {
    this.#revoking.push({ ...entry, since: performance.now(), isAbandoned: false });
    this.#requests.revoke(entry.subject, entry.allotment.base);
  }

  /** Whoever waits for a revoke that was asked for `timeoutMs` ago is told that the log does not answer. `now` in ms of performance.now(). */
  expire(now: number, timeoutMs: number): void {
    for (const entry of this.#revoking) {
      if (entry.isAbandoned || now - entry.since < timeoutMs) continue;
      entry.isAbandoned = true;
      this.#abandoned += 1;
      this.#main.refuseEach(entry.calls, new Uint16Array(entry.calls.length).fill(OUTCOME_UNKNOWN));
      entry.calls = NO_CALLS;
    }
  }

  /** The revoke of an allotment was applied: its calls get their answer, its void mark goes to the store. False if none was asked for. */
  revoked(subject: ActiveSubject, base: number): boolean {
    const at = this.#revoking.findIndex((entry) => entry.subject === subject && entry.allotment.base === base);
    if (at < 0) return false;
    const [entry] = this.#revoking.splice(at, 1) as [Revocation];
    if (entry.isAbandoned) this.#abandoned -= 1;
    this.#main.refuseEach(entry.calls, entry.reasons);
    const { allotment, publishedAt, expiresMax } = entry;
    this.#marks.push({ subject, allotment, publishedAt, expiresMax });
    return true;
  }

  /** The ids of a batch that is not stored are given up; its calls are answered when that is applied. */
  takeBack(batch: OpenBatch, reasonCode: number): void {
    const { subject, allotment, publishedAt, expiresMax, calls, rows } = batch;
    if (allotment === null) return;
    batch.allotment = null;
    const reasons = this.#failures.reasonsOf(batch, reasonCode);
    if (batch.traces !== null) this.#main.traces?.refused(batch, reasonCode);
    this.#revoke({ subject, allotment, publishedAt, expiresMax, calls: calls.subarray(0, rows), reasons });
    this.afterRefusal(subject);
  }

  /** Somebody revoked it before it could be closed: what the store has of it becomes void, and its senders may try again. */
  giveUp(batch: OpenBatch, allotment: Unresolved): void {
    const { subject, publishedAt, expiresMax } = batch;
    this.refuseRows(batch, this.#failures.reasonsOf(batch, STORE_UNAVAILABLE));
    this.#marks.push({ subject, allotment, publishedAt, expiresMax });
    this.afterRefusal(subject);
  }

  /** The log does not say what becomes of a batch. */
  refuseAsUnknown(batch: OpenBatch): void {
    this.refuseRows(batch, this.#failures.noteUnknown(batch));
    this.afterRefusal(batch.subject);
  }

  refuseRows(batch: OpenBatch, reasons: Uint16Array): void {
    if (batch.traces !== null) this.#main.traces?.refused(batch, reasons[0] ?? OUTCOME_UNKNOWN);
    this.#main.refuseEach(batch.calls.subarray(0, batch.rows), reasons);
  }

  /**
   * Rows of the subject that would overtake one that was refused go with it: those that wait for their group, at once; those that have asked for
   * ids, when their group is to be written, or closed if it has been given to a database already.
   */
  afterRefusal(subject: ActiveSubject): void {
    if (subject.failures === null) return;
    const failures = this.#failures;
    for (const group of this.#groups) {
      if (!isUnclosed(group)) continue;
      for (const batch of group.batches) {
        if (batch.subject === subject && batch.doom < 0 && failures.hasRowBehind(batch)) batch.doom = STORE_UNAVAILABLE;
      }
    }
    for (const batch of this.#gathering.batches) {
      if (batch.subject !== subject || !failures.hasRowBehind(batch)) continue;
      const isBehind = (row: number): boolean =>
        failures.isBehind(subject, batch.calls[row] as number, batch.sequenceOf(row));
      for (let row = 0; row < batch.rows; row++) {
        if (isBehind(row)) this.#main.refuse(batch.calls[row] as number, 'PREDECESSOR_FAILED');
      }
      batch.keepOnly((row) => !isBehind(row));
    }
  }

  /** A group could not be stored: batches of the same subjects in later groups would overtake what their senders will try again. */
  doomBehind(failed: Group, reasonCode: number): void {
    // Noted before the later groups are taken back, so that these tell the order.
    // What was taken back was noted then, and may have come again by now.
    for (const batch of failed.batches) if (batch.allotment !== null) this.#failures.reasonsOf(batch, reasonCode);
    const subjects = new Set(failed.batches.map(({ subject }) => subject));
    // A database may still be writing those before it.
    for (const group of this.#groups.slice(this.#groups.indexOf(failed) + 1)) {
      if (!isUnclosed(group)) continue;
      for (const batch of group.batches) if (subjects.has(batch.subject)) batch.doom = reasonCode;
    }
    // The failed group ends when those before it do: what is gathered by now would be stored before that.
    for (const subject of subjects) this.afterRefusal(subject);
  }
}

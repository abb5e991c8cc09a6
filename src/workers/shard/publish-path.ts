import { assert } from '../../base/assert.ts';
import { REASON_NAMES, type Reason } from '../../base/errors.ts';
import { stampBatch } from '../../batch/batch-builder.ts';
import type { SealLimits } from '../../batch/seal-policy.ts';
import type { MessageStore } from '../../storage/store.ts';
import type { OpenAllotment } from '../messages.ts';
import type { AllotRequests } from './allot-requests.ts';
import { Gathering } from './gathering.ts';
import { type Group, newGroup, type PartAnswers } from './group.ts';
import { GroupWriter } from './group-writer.ts';
import type { MainPort } from './main-port.ts';
import type { OpenBatch } from './open-batch.ts';
import type { PublishCounters, PublishEvents } from './publish-ports.ts';
import { StoreRules } from './store-rules.ts';
import type { StreamFailures } from './stream-failures.ts';
import type { ActiveSubject } from './subjects.ts';
import { TakeBacks } from './take-backs.ts';

/**
 * Messages become batches, batches groups; a group gets its ids in one request, is written with one durable write, and is then acknowledged and
 * delivered, groups in order. Rules of design section 7: with the embedded store the acknowledgement goes out after the batch's own
 * fdatasync, and the close follows with the next request; with a database the close comes first, and has to be applied.
 */
export class PublishPath {
  readonly #requests: AllotRequests;
  readonly #main: MainPort;
  readonly #events: PublishEvents;
  readonly #counters: PublishCounters;
  readonly #failures: StreamFailures;
  readonly #groupsInFlightMax: number;
  readonly #gathering: Gathering;
  readonly #rules: StoreRules;
  readonly #takeBacks: TakeBacks;
  readonly #writer: GroupWriter;
  readonly #groups: Group[] = [];
  readonly #allotting = new Map<number, { batch: OpenBatch; group: Group }>();
  readonly #incrementing = new Map<number, { subject: ActiveSubject; call: number }>();
  /** Some of them are gathered and not sent yet. */
  #hasIncrements = false;

  constructor(
    store: MessageStore,
    requests: AllotRequests,
    main: MainPort,
    events: PublishEvents,
    counters: PublishCounters,
    failures: StreamFailures,
    limits: { readonly seal: SealLimits; readonly batchBytes: number; readonly databaseTimeoutMs: number | null },
  ) {
    this.#requests = requests;
    this.#main = main;
    this.#events = events;
    this.#counters = counters;
    this.#failures = failures;
    this.#groupsInFlightMax = limits.seal.groupsInFlight;
    const gathering = new Gathering(limits.seal, limits.batchBytes);
    const rules = new StoreRules(limits.databaseTimeoutMs);
    const groups = this.#groups;
    const takeBacks = new TakeBacks(requests, main, failures, gathering, groups);
    this.#gathering = gathering;
    this.#rules = rules;
    this.#takeBacks = takeBacks;
    this.#writer = new GroupWriter({
      store,
      requests,
      main,
      events,
      counters,
      gathering,
      takeBacks,
      rules,
      groups,
    });
  }

  /** Enough waits for the store: publishes stay on their ring, and when that is full they are refused. */
  get full(): boolean {
    return this.#gathering.full;
  }

  /** Why a publish is refused before it gets an id, or null. */
  get refusal(): Reason | null {
    return this.#rules.refusedLast ? this.#rules.refusal(this.#takeBacks.hasMarks) : null;
  }

  /** The same of an increment: it is answered before its mark is stored, so a store that is slow or silent would not hold its callers back. */
  get incrementRefusal(): Reason | null {
    return this.refusal ?? (this.#takeBacks.isCrowded ? 'QUEUE_FULL' : null);
  }

  /** Nothing is on its way. */
  get idle(): boolean {
    return this.#gathering.empty && this.#groups.length === 0 && this.#incrementing.size === 0 && this.#takeBacks.empty;
  }

  /** Where messages are added. */
  get gathering(): Gathering {
    return this.#gathering;
  }

  /** IncIdx: one id, answered when it is allotted, and then made void. */
  increment(subject: ActiveSubject, call: number): void {
    subject.opening += 1;
    this.#incrementing.set(this.#requests.openPlain(subject, 1, 0, 0), { subject, call });
    this.#hasIncrements = true;
  }

  /** Leftovers of an earlier process or thread that the store does not have. */
  revokeLeftOver(subject: ActiveSubject, { base, count, openedAt, expiresMax }: OpenAllotment): void {
    const allotment = subject.allotted(base, count, openedAt);
    this.#takeBacks.makeVoid({ subject, allotment, publishedAt: openedAt, expiresMax });
  }

  /** The same for one that was revoked before the end: its mark is all that is missing. */
  markLeftOver(subject: ActiveSubject, { base, count, openedAt, expiresMax }: OpenAllotment): void {
    const allotment = subject.allotted(base, count, openedAt);
    this.#takeBacks.mark({ subject, allotment, publishedAt: openedAt, expiresMax });
  }

  /** One round: sends what may be sent, finishes what is written. Returns the number of things done. */
  work(): number {
    const now = performance.now();
    let done = this.#writer.finishWritten();
    if (!this.#requests.blocked && this.#gathering.isDue(this.#groups.length, now)) {
      this.#sealGroup(now);
      done += 1;
    } else if (this.#groups.length < this.#groupsInFlightMax && this.#takeBacks.areMarksDue(now)) {
      this.#sealMarks(now);
      done += 1;
    }
    if (this.#hasIncrements) {
      this.#hasIncrements = false;
      this.#requests.send();
      done += 1;
    }
    return done;
  }

  /** When `work` should run again at the latest, in ms from now; Infinity when only events can help. */
  nextDeadline(): number {
    if (this.#groups.length >= this.#groupsInFlightMax) return Number.POSITIVE_INFINITY;
    const now = performance.now();
    return this.#gathering.empty ? this.#takeBacks.marksDueIn(now) : this.#gathering.dueIn(now);
  }

  opened(counter: number, base: number, time: number): void {
    const increment = this.#incrementing.get(counter);
    if (increment !== undefined) {
      this.#incrementing.delete(counter);
      const { subject, call } = increment;
      subject.opening -= 1;
      const allotment = subject.allotted(base, 1, time);
      this.#main.ack(call, base);
      this.#takeBacks.makeVoid({ subject, allotment, publishedAt: time, expiresMax: 0 });
      return;
    }
    const entry = this.#allotting.get(counter);
    if (entry === undefined) return;
    this.#allotting.delete(counter);
    this.#assign(entry.batch, base, time);
    this.#answered(entry.group, entry.batch);
  }

  refused(counter: number, reasonCode: number): void {
    const increment = this.#incrementing.get(counter);
    if (increment !== undefined) {
      this.#incrementing.delete(counter);
      increment.subject.opening -= 1;
      this.#main.refuse(increment.call, REASON_NAMES[reasonCode] as Reason);
      return;
    }
    const entry = this.#allotting.get(counter);
    if (entry === undefined) return;
    this.#allotting.delete(counter);
    const { batch } = entry;
    this.#takeBacks.refuseRows(batch, this.#failures.reasonsOf(batch, reasonCode));
    batch.rows = batch.messages = 0;
    this.#takeBacks.afterRefusal(batch.subject);
    this.#answered(entry.group, batch);
  }

  /** An answer part by part: part i is row i of the batch. */
  openedParts(counter: number, base: number, time: number, parts: PartAnswers): void {
    const entry = this.#allotting.get(counter);
    if (entry === undefined) return;
    this.#allotting.delete(counter);
    const { batch, group } = entry;
    assert(parts.count === batch.rows, 'the answer has another number of parts than the request');
    let kept = 0;
    for (let row = 0; row < parts.count; row++) {
      if (parts.isNew(row)) kept += 1;
      else this.#answerOldPart(batch, row, parts);
    }
    if (kept < batch.rows) {
      batch.keepOnly((row) => parts.isNew(row));
      this.#takeBacks.afterRefusal(batch.subject);
    }
    if (kept > 0) this.#assign(batch, base, time);
    this.#answered(group, batch);
  }

  /** The revoke of an allotment was applied. */
  revoked(subject: ActiveSubject, base: number): void {
    this.#takeBacks.revoked(subject, base);
  }

  /** A revoke or a close of it came too late: the allotment has its verdict already. */
  gone(subject: ActiveSubject, base: number): void {
    this.#takeBacks.revoked(subject, base);
    this.#writer.gone(subject, base);
  }

  /** The log's answer to a close(stored); only with a database. */
  closed(counter: number, isApplied: boolean): void {
    this.#writer.closed(counter, isApplied);
  }

  /** A repeated sequence was waiting for a batch that became void: it may come again. */
  repeatRefused(subject: ActiveSubject, call: number, sequence: number): void {
    const isBehind = this.#failures.isBehind(subject, call, sequence);
    const reason: Reason = isBehind ? 'PREDECESSOR_FAILED' : 'STORE_UNAVAILABLE';
    if (!isBehind) this.#failures.note(subject, call, sequence, reason);
    this.#main.refuse(call, reason);
    this.#takeBacks.afterRefusal(subject);
  }

  #answerOldPart(batch: OpenBatch, row: number, parts: PartAnswers): void {
    const { subject } = batch;
    const call = batch.calls[row] as number;
    const sequence = batch.sequenceOf(row);
    const reasonCode = parts.refusal(row);
    const id = parts.firstId(row);
    if (reasonCode >= 0) {
      const reason = REASON_NAMES[reasonCode] as Reason;
      this.#failures.note(subject, call, sequence, reason);
      this.#main.refuse(call, reason);
    } else if (parts.isStored(row) || subject.isResolved(id)) this.#main.ack(call, id);
    else subject.repeats.push({ id, call, sequence });
  }

  #assign(batch: OpenBatch, base: number, time: number): void {
    batch.base = base;
    batch.publishedAt = time;
    batch.allotment = batch.subject.allotted(base, batch.messages, time);
    stampBatch(batch.sealed, base, time);
  }

  #answered(group: Group, batch: OpenBatch): void {
    batch.subject.opening -= 1;
    group.unanswered -= 1;
    if (group.unanswered === 0) this.#writer.ready(group);
  }

  #sealGroup(now: number): void {
    const group = newGroup(this.#gathering.take(), this.#takeBacks.takeMarks(now));
    this.#groups.push(group);
    for (const batch of group.batches) {
      if (batch.earliestDeadline !== Number.POSITIVE_INFINITY) this.#dropExpired(batch, Date.now());
      if (batch.rows === 0) {
        batch.subject.opening -= 1;
        continue;
      }
      batch.sealed = batch.builder.seal();
      group.bytes += batch.sealed.length;
      group.messages += batch.messages;
      group.unanswered += 1;
      this.#events.onSealed(batch.subject, batch.messages);
      batch.counter = this.#requests.openBatch(batch);
      this.#allotting.set(batch.counter, { batch, group });
    }
    this.#counters.onGroup(group.messages, group.batches.length, group.bytes);
    if (group.unanswered === 0) this.#writer.ready(group);
    else this.#requests.send();
  }

  /** Requests whose deadline passed while they waited must cost no more: their clients have gone. */
  #dropExpired(batch: OpenBatch, now: number): void {
    if (batch.earliestDeadline > now) return;
    for (let row = 0; row < batch.rows; row++) {
      if ((batch.deadlines[row] as number) <= now) this.#main.refuse(batch.calls[row] as number, 'DEADLINE_PASSED');
    }
    batch.keepOnly((row) => (batch.deadlines[row] as number) > now);
  }

  #sealMarks(now: number): void {
    const group = newGroup([], this.#takeBacks.takeMarks(now));
    this.#groups.push(group);
    this.#writer.ready(group);
  }
}

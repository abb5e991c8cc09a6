import { assert } from '../../base/assert.ts';
import { REASON_CODE, REASON_NAMES, type Reason } from '../../base/errors.ts';
import { stampBatch } from '../../batch/batch-builder.ts';
import type { SealLimits } from '../../batch/seal-policy.ts';
import type { MessageStore } from '../../storage/store.ts';
import { noteLog } from '../tracing/shard-traces.ts';
import { type LogTimes, NO_TIMES } from '../tracing/trace-record.ts';
import { AbandonedOpens } from './abandoned-opens.ts';
import type { AllotRequests } from './allot-requests.ts';
import { Gathering } from './gathering.ts';
import { type Group, newGroup, type PartAnswers, type VoidMark } from './group.ts';
import { GroupWriter } from './group-writer.ts';
import type { MainPort } from './main-port.ts';
import type { OpenBatch } from './open-batch.ts';
import type { PublishCounters, PublishEvents } from './publish-ports.ts';
import { StoreRules } from './store-rules.ts';
import type { StreamFailures } from './stream-failures.ts';
import type { ActiveSubject } from './subjects.ts';
import { type MarkKey, TakeBacks } from './take-backs.ts';

const NO_CALL = -1;
const { NOT_READY, STORE_UNAVAILABLE } = REASON_CODE;

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
  /** `call`: NO_CALL if nobody waits for it any more. */
  readonly #incrementing = new Map<number, { readonly subject: ActiveSubject; call: number; readonly since: number }>();
  #abandonedIncrements = 0;
  readonly #abandonedOpens = new AbandonedOpens();
  /** With peers: how long the log may take for an answer, in ms; null: it is here, and always answers. */
  readonly #logTimeoutMs: number | null;
  readonly #hasRoomFor: (expiresMax: number) => boolean;
  /** Some of them are gathered and not sent yet. */
  #hasIncrements = false;

  constructor(
    store: MessageStore,
    requests: AllotRequests,
    main: MainPort,
    events: PublishEvents,
    counters: PublishCounters,
    failures: StreamFailures,
    limits: {
      readonly seal: SealLimits;
      readonly batchBytes: number;
      /** Groups that the store is given at a time. */
      readonly writesMax: number;
      readonly databaseTimeoutMs: number | null;
      /** The store knows without being tried that it has no room for anything. */
      readonly isStoreFull: () => boolean;
      /** Batches of such a life (seconds, 0 = never) may ask for ids: the store would take them. */
      readonly hasRoomFor: (expiresMax: number) => boolean;
      /** With peers: how long the log may take for an answer; null: it is here, and always answers. */
      readonly logTimeoutMs: number | null;
    },
  ) {
    this.#requests = requests;
    this.#main = main;
    this.#events = events;
    this.#counters = counters;
    this.#failures = failures;
    this.#groupsInFlightMax = limits.seal.groupsInFlight;
    this.#logTimeoutMs = limits.logTimeoutMs;
    this.#hasRoomFor = limits.hasRoomFor;
    const gathering = new Gathering(limits.seal, limits.batchBytes);
    const rules = new StoreRules(limits.databaseTimeoutMs, limits.isStoreFull);
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
      writesMax: limits.writesMax,
    });
  }

  /** Enough waits for the store: publishes stay on their ring, and when that is full they are refused. */
  get full(): boolean {
    return this.#gathering.full;
  }

  /** Why a publish is refused before it gets an id, or null. */
  get refusal(): Reason | null {
    // What it was asked before has to be answered first, and is bounded by this.
    if (this.#logTimeoutMs !== null && this.#isLogSilent) return 'NOT_READY';
    return this.#rules.refusedLast ? this.#rules.refusal(this.#takeBacks.hasMarks) : null;
  }

  /** The same of an increment: it is answered before its mark is stored, so a store that is slow or silent would not hold its callers back. */
  get incrementRefusal(): Reason | null {
    return this.refusal ?? (this.#takeBacks.isCrowded ? 'QUEUE_FULL' : null);
  }

  /** Nothing is on its way that anybody waits for. */
  get idle(): boolean {
    const isAsking = this.#incrementing.size > this.#abandonedIncrements;
    return this.#gathering.empty && this.#groups.length === 0 && !isAsking && this.#takeBacks.empty;
  }

  /** It has not answered in time what it was asked: it has no quorum, or this node does not reach it. */
  get #isLogSilent(): boolean {
    const { abandoned } = this.#takeBacks;
    return this.#abandonedOpens.size + this.#abandonedIncrements + this.#writer.abandoned + abandoned > 0;
  }

  /** Where messages are added. */
  get gathering(): Gathering {
    return this.#gathering;
  }

  /** IncIdx: one id, answered when it is allotted, and then made void. */
  increment(subject: ActiveSubject, call: number): void {
    subject.opening += 1;
    const since = performance.now();
    this.#incrementing.set(this.#requests.openPlain(subject, 1, 0, 0), { subject, call, since });
    this.#hasIncrements = true;
  }

  /** Leftovers of an earlier process or thread that the store does not have. */
  revokeLeftOver(mark: VoidMark): void {
    this.#takeBacks.makeVoid(mark);
  }

  /** The same for one that was revoked before the end: its mark is all that is missing. */
  markLeftOver(mark: VoidMark): void {
    this.#takeBacks.mark(mark);
  }

  /** With peers: an allotment of another node that was revoked, and that its owner cannot mark. */
  markForeign(subject: ActiveSubject, ids: { readonly base: number; readonly count: number }, mark: MarkKey): void {
    this.#takeBacks.markForeign(subject, ids, mark);
  }

  /**
   * About once a second: whoever waits for the log longer than a database may take is told that the outcome is not known, and what has not been sent to
   * it is refused. Ids that come later are made void. `now` in ms of performance.now().
   */
  expire(now: number): void {
    const timeoutMs = this.#logTimeoutMs;
    if (timeoutMs === null) return;
    for (const { batch, group } of this.#allotting.values()) {
      if (now - group.askedAt >= timeoutMs) this.#abandon(batch, group);
    }
    for (const entry of this.#incrementing.values()) {
      if (entry.call === NO_CALL || now - entry.since < timeoutMs) continue;
      this.#main.refuse(entry.call, 'OUTCOME_UNKNOWN');
      entry.call = NO_CALL;
      this.#abandonedIncrements += 1;
    }
    this.#writer.expire(now, timeoutMs);
    this.#takeBacks.expire(now, timeoutMs);
    if (this.#isLogSilent || (this.#requests.blocked && this.#gathering.waitsFor(timeoutMs, now)))
      this.#refuseGathered();
  }

  #abandon(batch: OpenBatch, group: Group): void {
    this.#allotting.delete(batch.counter);
    this.#abandonedOpens.add(batch, (row) => batch.messagesOf(row));
    this.#takeBacks.refuseAsUnknown(batch);
    batch.rows = batch.messages = 0;
    this.#becomeAnswered(group);
  }

  #refuseGathered(): void {
    for (const batch of this.#gathering.take()) {
      batch.subject.opening -= 1;
      this.#takeBacks.refuseRows(batch, this.#failures.reasonsOf(batch, NOT_READY));
      this.#gathering.giveBuilder(batch.builder);
    }
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
      if (call === NO_CALL) this.#abandonedIncrements -= 1;
      else this.#main.ack(call, base);
      this.#takeBacks.makeVoid({ subject, allotment, publishedAt: time, expiresMax: 0 });
      return;
    }
    const entry = this.#allotting.get(counter);
    if (entry === undefined) {
      const late = this.#abandonedOpens.opened(counter, base, time);
      if (late !== null) this.#takeBacks.makeVoid(late);
      return;
    }
    this.#allotting.delete(counter);
    this.#assign(entry.batch, base, time);
    this.#answered(entry.group, entry.batch);
  }

  /** What the Raft thread has to say of a traced open, in front of its answer. */
  logged(counter: number, log: LogTimes): void {
    noteLog(this.#allotting.get(counter)?.batch.traces ?? null, log);
  }

  refused(counter: number, reasonCode: number): void {
    const increment = this.#incrementing.get(counter);
    if (increment !== undefined) {
      this.#incrementing.delete(counter);
      increment.subject.opening -= 1;
      if (increment.call === NO_CALL) this.#abandonedIncrements -= 1;
      else this.#main.refuse(increment.call, REASON_NAMES[reasonCode] as Reason);
      return;
    }
    const entry = this.#allotting.get(counter);
    if (entry === undefined) {
      this.#abandonedOpens.refused(counter);
      return;
    }
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
    if (entry === undefined) {
      const late = this.#abandonedOpens.openedParts(counter, base, time, parts);
      if (late !== null && late !== undefined) this.#takeBacks.makeVoid(late);
      return;
    }
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

  /** The revoke of an allotment was applied: of this shard's asking, or somebody else's. */
  revoked(subject: ActiveSubject, base: number): void {
    if (!this.#takeBacks.revoked(subject, base)) this.#writer.revoked(subject, base);
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
    } else if (parts.isStored(row) || (!subject.isShared && subject.isResolved(id))) this.#main.ack(call, id);
    else if (subject.isShared && sequence > 0) {
      // Another node was sent it. Should it become void there, it comes again: nothing that follows it on its stream may be stored before (promise 5). So
      // its sender asks again until the log knows.
      this.#failures.note(subject, call, sequence, 'OUTCOME_UNKNOWN');
      this.#main.refuse(call, 'OUTCOME_UNKNOWN');
    } else {
      subject.repeats.push({ id, call, sequence, since: performance.now() });
      this.#events.onRepeat(subject);
    }
  }

  #assign(batch: OpenBatch, base: number, time: number): void {
    batch.base = base;
    batch.publishedAt = time;
    batch.allotment = batch.subject.allotted(base, batch.messages, time);
    stampBatch(batch.sealed, base, time);
  }

  #answered(group: Group, batch: OpenBatch): void {
    batch.subject.opening -= 1;
    this.#becomeAnswered(group);
  }

  #becomeAnswered(group: Group): void {
    group.unanswered -= 1;
    if (group.unanswered === 0) this.#writer.ready(group);
  }

  #sealGroup(now: number): void {
    const group = newGroup(this.#gathering.take(), this.#takeBacks.takeMarks(now));
    group.askedAt = now;
    this.#groups.push(group);
    for (const batch of group.batches) {
      if (batch.earliestDeadline !== Number.POSITIVE_INFINITY) this.#dropExpired(batch, Date.now());
      // Refused alone, and before it has ids: the group would fail with it, and neither it nor its mark could be stored.
      if (batch.rows > 0 && (batch.doom >= 0 || !this.#hasRoomFor(batch.expiresMax))) this.#refuse(batch);
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
      if (batch.traces !== null) this.#traceGroup(group, batch, now);
      this.#allotting.set(batch.counter, { batch, group });
    }
    this.#counters.onGroup(group.messages, group.batches.length, group.bytes);
    if (group.unanswered === 0) this.#writer.ready(group);
    else this.#requests.send();
  }

  #refuse(batch: OpenBatch): void {
    this.#takeBacks.refuseRows(batch, this.#failures.reasonsOf(batch, STORE_UNAVAILABLE));
    batch.rows = batch.messages = 0;
    this.#takeBacks.afterRefusal(batch.subject);
  }

  #traceGroup(group: Group, batch: OpenBatch, now: number): void {
    group.times ??= { ...NO_TIMES, sealedAt: now };
    batch.times = group.times;
    this.#requests.trace(batch.counter, batch.traces?.[0] ?? null);
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

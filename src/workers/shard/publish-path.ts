import { assert } from '../../base/assert.ts';
import { crc32 } from '../../base/checksum.ts';
import { BrokerError, REASON_CODE, REASON_NAMES, type Reason } from '../../base/errors.ts';
import { failpoint } from '../../base/failpoint.ts';
import { BatchBuilder, sealVoidMark, stampBatch } from '../../batch/batch-builder.ts';
import type { RecordsScan } from '../../batch/records-scan.ts';
import { type SealLimits, type SealState, shouldSeal } from '../../batch/seal-policy.ts';
import type { PublishScan } from '../../grpc/codec.ts';
import { type MessageStore, type SealedBatch, StoreUncertain } from '../../storage/store.ts';
import type { OpenAllotment } from '../messages.ts';
import type { AllotRequests } from './allot-requests.ts';
import { type Group, newGroup, type PartAnswers, type Revocation, type VoidMark } from './group.ts';
import type { MainPort } from './main-port.ts';
import { ANY_HEAD, OpenBatch, type ProducerPart } from './open-batch.ts';
import type { StreamFailures } from './stream-failures.ts';
import type { ActiveSubject, Unresolved } from './subjects.ts';

/** What the publish path tells the rest of the shard. */
export interface PublishEvents {
  /** A batch asks for its ids. */
  onSealed(subject: ActiveSubject, messages: number): void;
  /** Ids got their verdict in the store: `bytes` is the stored batch, or null for a void mark. */
  onResolved(subject: ActiveSubject, allotment: Unresolved, bytes: Buffer | null): void;
  /** The store finished a write; the loop should run soon. */
  onProgress(): void;
  onFatal(error: unknown): void;
}

export interface PublishCounters {
  onGroup(messages: number, batches: number, bytes: number): void;
  onWritten(microseconds: number): void;
  /** What is known of the store's health: why it takes no messages, or null when it took some. */
  storeRefuses(reason: Reason | null): void;
}

/** Waiting before void marks and new messages are tried again after the store refused some, in ms. */
const RETRY_MS = 250;
/** Before a write of unknown outcome is repeated, in ms. */
const REPEAT_MS = 50;
/** Void marks of one group; bounds its memory when very many are left over. */
const MARKS_A_GROUP_MAX = 8_192;
/** Keeps the request for one batch within a piece of the Raft client, also if every row has a producer id of 64 bytes. */
const WAITING_ROWS_MAX = 8_192;
const BUILDERS_KEPT = 256;
const NO_CALLS = new Uint32Array(0);
const NO_REASONS = new Uint16Array(0);
const STORE_UNAVAILABLE = REASON_CODE.STORE_UNAVAILABLE;

/**
 * Messages become batches, batches groups; a group gets its ids in one request, is written with one durable write, and is then acknowledged and
 * delivered, groups in order. Rules of design section 7: with the embedded store the acknowledgement goes out after the batch's own
 * fdatasync, and the close follows with the next request; with a database the close comes first, and has to be applied.
 */
export class PublishPath {
  readonly #store: MessageStore;
  readonly #requests: AllotRequests;
  readonly #main: MainPort;
  readonly #events: PublishEvents;
  readonly #counters: PublishCounters;
  readonly #failures: StreamFailures;
  readonly #seal: SealLimits;
  readonly #waitingBytesMax: number;
  /** How long a write of unknown outcome is repeated, in ms; null: the store is embedded, whose writes have an outcome. */
  readonly #timeoutMs: number | null;
  /** By counter of the open: what the log has yet to close. */
  readonly #closing = new Map<number, { batch: OpenBatch; group: Group }>();
  readonly #builders: BatchBuilder[] = [];
  #waiting: OpenBatch[] = [];
  #waitingBytes = 0;
  #waitingRows = 0;
  /** When the oldest waiting message came, ms of performance.now(). */
  #oldest = 0;
  readonly #marks: VoidMark[] = [];
  #marksRetryAt = 0;
  /** Why the store took nothing when it was last tried with messages. */
  #storeRefusal: Reason | null = null;
  /** Ms of performance.now(); until then it is not tried with new ones. */
  #storeRefusesUntil = 0;
  /** The main thread has no idle time left (seal-policy.ts). */
  isSourceBusy = false;
  readonly #groups: Group[] = [];
  readonly #allotting = new Map<number, { batch: OpenBatch; group: Group }>();
  readonly #incrementing = new Map<number, { subject: ActiveSubject; call: number }>();
  /** Some of them are gathered and not sent yet. */
  #hasIncrements = false;
  readonly #revoking: Revocation[] = [];

  constructor(
    store: MessageStore,
    requests: AllotRequests,
    main: MainPort,
    events: PublishEvents,
    counters: PublishCounters,
    failures: StreamFailures,
    limits: { readonly seal: SealLimits; readonly batchBytes: number; readonly databaseTimeoutMs: number | null },
  ) {
    this.#store = store;
    this.#requests = requests;
    this.#main = main;
    this.#events = events;
    this.#counters = counters;
    this.#failures = failures;
    this.#seal = limits.seal;
    this.#waitingBytesMax = limits.batchBytes * 2;
    this.#timeoutMs = limits.databaseTimeoutMs;
  }

  /** Enough waits for the store: publishes stay on their ring, and when that is full they are refused. */
  get full(): boolean {
    return this.#waitingBytes >= this.#waitingBytesMax || this.#waitingRows >= WAITING_ROWS_MAX;
  }

  /**
   * Why a publish is refused before it gets an id, or null. The log entry and the void mark of a refused one take space and memory too: after
   * the store took nothing, some are let through to try it again only once the marks of those before them are stored.
   */
  get refusal(): Reason | null {
    if (this.#storeRefusal === null) return null;
    const isTime = performance.now() >= this.#storeRefusesUntil;
    return isTime && !this.#hasMarks ? null : this.#storeRefusal;
  }

  get #hasMarks(): boolean {
    const isWriting = this.#groups.some(({ marks }) => marks.length > 0);
    return isWriting || this.#marks.length > 0 || this.#revoking.length > 0;
  }

  /** Nothing is on its way. */
  get idle(): boolean {
    return (
      this.#waiting.length === 0 &&
      this.#groups.length === 0 &&
      this.#incrementing.size === 0 &&
      this.#revoking.length === 0 &&
      this.#marks.length === 0
    );
  }

  /** Adds the scanned message of a unary call; `bytes` is the ring's memory, copied here. `deadline` in epoch ms. */
  add(subject: ActiveSubject, call: number, bytes: Uint8Array, scan: PublishScan, deadline: number): void {
    const batch = this.#waitingBatch(subject);
    const before = batch.builder.byteLength;
    batch.builder.appendRecord(
      bytes,
      scan.bodyStart,
      scan.bodyEnd,
      scan.headers,
      scan.headerCount,
      scan.expirationSeconds,
    );
    let part: ProducerPart | null = null;
    if (scan.sequence > 0) {
      const producer = Buffer.from(bytes.subarray(scan.producerStart, scan.producerEnd));
      part = { producer, sequence: scan.sequence, checksum: crc32(batch.builder.lastRecord()) };
    }
    batch.addCall(call, part, deadline);
    this.#added(batch, before);
  }

  /**
   * Adds a batch of a publish stream: the records section bytes[start, end), which `scan` has found good. `producer`: null if nobody remembers
   * its sequence. `expectedHead`: -1 = any.
   */
  addSection(
    subject: ActiveSubject,
    token: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    scan: RecordsScan,
    producer: Uint8Array | null,
    sequence: number,
    expectedHead: number,
  ): void {
    // What is expected holds of this batch alone.
    if (expectedHead !== ANY_HEAD) subject.waiting = null;
    const batch = this.#waitingBatch(subject);
    const before = batch.builder.byteLength;
    batch.builder.appendSection(bytes, start, end, scan);
    const part =
      producer === null
        ? null
        : { producer, sequence, checksum: crc32(Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start)) };
    batch.addSection(token, part, sequence, scan.count);
    batch.expectedHead = expectedHead;
    if (expectedHead !== ANY_HEAD) subject.waiting = null;
    this.#added(batch, before);
  }

  #waitingBatch(subject: ActiveSubject): OpenBatch {
    if (subject.waiting !== null) return subject.waiting;
    const batch = new OpenBatch(subject, this.#takeBuilder(subject));
    subject.waiting = batch;
    if (this.#waitingRows === 0) this.#oldest = performance.now();
    this.#waiting.push(batch);
    subject.opening += 1;
    return batch;
  }

  #added(batch: OpenBatch, bytesBefore: number): void {
    this.#waitingBytes += batch.builder.byteLength - bytesBefore;
    this.#waitingRows += 1;
    // A stored batch is read as a whole: it stays small enough for that.
    if (batch.builder.byteLength >= this.#seal.fullBytes) batch.subject.waiting = null;
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
    this.#revoke({
      subject,
      allotment,
      publishedAt: openedAt,
      expiresMax,
      calls: NO_CALLS,
      reasons: NO_REASONS,
    });
  }

  /** The same for one that was revoked before the end: its mark is all that is missing. */
  markLeftOver(subject: ActiveSubject, { base, count, openedAt, expiresMax }: OpenAllotment): void {
    const allotment = subject.allotted(base, count, openedAt);
    this.#marks.push({ subject, allotment, publishedAt: openedAt, expiresMax });
  }

  /** One round: sends what may be sent, finishes what is written. Returns the number of things done. */
  work(): number {
    const now = performance.now();
    let done = this.#finishWritten();
    const state: SealState = {
      groupsInFlight: this.#groups.length,
      waitingBytes: this.#waitingBytes,
      waitingMessages: this.#waitingRows,
      oldestMs: now - this.#oldest,
      isSourceBusy: this.isSourceBusy,
    };
    if (!this.#requests.blocked && shouldSeal(state, this.#seal)) {
      this.#sealGroup(now);
      done += 1;
    } else if (this.#marks.length > 0 && this.#groups.length < this.#seal.groupsInFlight && now >= this.#marksRetryAt) {
      this.#sealMarks();
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
    if (this.#groups.length >= this.#seal.groupsInFlight) return Number.POSITIVE_INFINITY;
    const now = performance.now();
    if (this.#waitingRows > 0) return Math.max(0, this.#oldest + this.#seal.lingerMs - now);
    return this.#marks.length > 0 ? Math.max(1, this.#marksRetryAt - now) : Number.POSITIVE_INFINITY;
  }

  opened(counter: number, base: number, time: number): void {
    const increment = this.#incrementing.get(counter);
    if (increment !== undefined) {
      this.#incrementing.delete(counter);
      const { subject, call } = increment;
      subject.opening -= 1;
      const allotment = subject.allotted(base, 1, time);
      this.#main.ack(call, base);
      this.#revoke({ subject, allotment, publishedAt: time, expiresMax: 0, calls: NO_CALLS, reasons: NO_REASONS });
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
    this.#refuseRows(batch, this.#failures.reasonsOf(batch, reasonCode));
    batch.rows = batch.messages = 0;
    this.#afterRefusal(batch.subject);
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
      this.#afterRefusal(batch.subject);
    }
    if (kept > 0) this.#assign(batch, base, time);
    this.#answered(group, batch);
  }

  /** The revoke of an allotment was applied: its calls get their answer, its void mark goes to the store. */
  revoked(subject: ActiveSubject, base: number): void {
    const at = this.#revoking.findIndex((entry) => entry.subject === subject && entry.allotment.base === base);
    if (at < 0) return;
    const [entry] = this.#revoking.splice(at, 1) as [Revocation];
    this.#main.refuseEach(entry.calls, entry.reasons);
    const { allotment, publishedAt, expiresMax } = entry;
    this.#marks.push({ subject, allotment, publishedAt, expiresMax });
  }

  /** The log's answer to a close(stored); only with a database. */
  closed(counter: number, isApplied: boolean): void {
    const entry = this.#closing.get(counter);
    if (entry === undefined) return;
    this.#closing.delete(counter);
    entry.batch.isRevoked = !isApplied;
    entry.group.unclosed -= 1;
    if (entry.group.unclosed === 0) entry.group.state = 'written';
  }

  /** A repeated sequence was waiting for a batch that became void: it may come again. */
  repeatRefused(subject: ActiveSubject, call: number, sequence: number): void {
    const isBehind = this.#failures.isBehind(subject, call, sequence);
    const reason: Reason = isBehind ? 'PREDECESSOR_FAILED' : 'STORE_UNAVAILABLE';
    if (!isBehind) this.#failures.note(subject, call, sequence, reason);
    this.#main.refuse(call, reason);
    this.#afterRefusal(subject);
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

  #refuseRows(batch: OpenBatch, reasons: Uint16Array): void {
    this.#main.refuseEach(batch.calls.subarray(0, batch.rows), reasons);
  }

  /**
   * Rows of the subject that would overtake one that was refused go with it: those that wait for their group, at once; those that have asked for
   * ids, when their group is written.
   */
  #afterRefusal(subject: ActiveSubject): void {
    if (subject.failures === null) return;
    const failures = this.#failures;
    for (const group of this.#groups) {
      if (group.state !== 'allotting' && group.state !== 'ready') continue;
      for (const batch of group.batches) {
        if (batch.subject === subject && batch.doom < 0 && failures.hasRowBehind(batch)) batch.doom = STORE_UNAVAILABLE;
      }
    }
    for (const batch of this.#waiting) {
      if (batch.subject !== subject || !failures.hasRowBehind(batch)) continue;
      const isBehind = (row: number): boolean =>
        failures.isBehind(subject, batch.calls[row] as number, batch.sequenceOf(row));
      for (let row = 0; row < batch.rows; row++) {
        if (isBehind(row)) this.#main.refuse(batch.calls[row] as number, 'PREDECESSOR_FAILED');
      }
      batch.keepOnly((row) => !isBehind(row));
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
    group.unanswered -= 1;
    if (group.unanswered === 0) this.#ready(group);
  }

  #sealGroup(now: number): void {
    const group = newGroup(this.#waiting, this.#takeMarks(now));
    this.#groups.push(group);
    this.#waiting = [];
    for (const batch of group.batches) {
      if (batch.subject.waiting === batch) batch.subject.waiting = null;
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
    this.#waitingBytes = 0;
    this.#waitingRows = 0;
    if (group.unanswered === 0) this.#ready(group);
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

  #sealMarks(): void {
    const group = newGroup([], this.#marks.splice(0, MARKS_A_GROUP_MAX));
    this.#groups.push(group);
    this.#ready(group);
  }

  #takeMarks(now: number): VoidMark[] {
    return now < this.#marksRetryAt ? [] : this.#marks.splice(0, MARKS_A_GROUP_MAX);
  }

  #ready(group: Group): void {
    group.state = 'ready';
    this.#writeNext();
  }

  /** Groups are written one after another: what comes behind a failed one must be known before it is stored (promise 5). */
  #writeNext(): void {
    for (const group of this.#groups) {
      if (group.state === 'closing' || group.state === 'written' || group.state === 'failed') continue;
      if (group.state === 'ready') this.#write(group);
      return;
    }
  }

  #write(group: Group): void {
    const sealed: SealedBatch[] = [];
    for (const batch of group.batches) {
      if (batch.doom >= 0) this.#takeBack(batch, batch.doom);
      if (batch.allotment === null) continue;
      const { subject, base, messages: count, publishedAt, expiresMax } = batch;
      sealed.push({ subject: subject.ref, bytes: batch.sealed, base, count, publishedAt, expiresMax, kind: 'data' });
    }
    for (const { subject, allotment, publishedAt, expiresMax } of group.marks) {
      const { base, count } = allotment;
      const bytes = sealVoidMark(subject.ref.bytes, subject.ref.hash, base, count, publishedAt);
      sealed.push({ subject: subject.ref, bytes, base, count, publishedAt, expiresMax, kind: 'void' });
    }
    if (sealed.length === 0) {
      group.state = 'written';
      this.#writeNext();
      this.#events.onProgress();
      return;
    }
    failpoint('shard.before-append');
    group.state = 'writing';
    group.writingSince = performance.now();
    this.#append(group, sealed);
  }

  #append(group: Group, sealed: readonly SealedBatch[]): void {
    this.#store.append(sealed).then(
      () => {
        if (this.#timeoutMs === null) group.state = 'written';
        else this.#close(group);
        this.#counters.onWritten((performance.now() - group.writingSince) * 1000);
        this.#writeNext();
        this.#events.onProgress();
      },
      (error: unknown) => {
        if (error instanceof StoreUncertain && this.#mayRepeat(group)) {
          // The same bytes under the same keys: if they are there by now, this says so.
          setTimeout(() => this.#append(group, sealed), REPEAT_MS);
          return;
        }
        group.state = 'failed';
        group.error =
          error instanceof StoreUncertain
            ? new BrokerError('STORE_UNAVAILABLE', 'the store did not answer in time', { cause: error })
            : error;
        this.#doom(group, group.error);
        this.#writeNext();
        this.#events.onProgress();
      },
    );
  }

  #mayRepeat(group: Group): boolean {
    assert(this.#timeoutMs !== null, 'only a database leaves the outcome of a write open');
    group.wasUncertain = true;
    return performance.now() - group.writingSince < this.#timeoutMs;
  }

  /** Durable in the database: the log is told, and what it has applied may be acknowledged and read (design section 7, rule 1). */
  #close(group: Group): void {
    for (const batch of group.batches) {
      if (batch.allotment === null) continue;
      group.unclosed += 1;
      this.#closing.set(batch.counter, { batch, group });
      this.#requests.closeStored(batch.subject, batch.base);
    }
    group.state = group.unclosed > 0 ? 'closing' : 'written';
    this.#requests.send();
  }

  #finishWritten(): number {
    let done = 0;
    for (let group = this.#groups[0]; group !== undefined; group = this.#groups[0]) {
      if (group.state === 'written') this.#finish(group);
      else if (group.state === 'failed') this.#fail(group);
      else return done;
      this.#groups.shift();
      done += 1;
    }
    return done;
  }

  #finish(group: Group): void {
    if (this.#storeRefusal !== null && performance.now() >= this.#storeRefusesUntil) this.#storeRefusal = null;
    let isAnyStored = false;
    for (const batch of group.batches) {
      const { subject, allotment } = batch;
      if (allotment === null) continue;
      if (batch.isRevoked) {
        this.#giveUp(batch, allotment);
        continue;
      }
      isAnyStored = true;
      if (batch.isUnary) this.#main.acks(batch.base, batch.calls, batch.rows);
      else this.#main.ackRows(batch);
      subject.resolved(allotment);
      if (this.#timeoutMs === null) this.#requests.closeStored(subject, batch.base);
      this.#events.onResolved(subject, allotment, batch.sealed);
    }
    // A mark that is stored says nothing: marks are taken below the low-space mark too.
    if (isAnyStored) this.#counters.storeRefuses(null);
    for (const { subject, allotment } of group.marks) {
      subject.resolved(allotment);
      this.#requests.closeVoid(subject, allotment.base);
      this.#events.onResolved(subject, allotment, null);
    }
    for (const batch of group.batches) if (!group.wasUncertain) this.#giveBuilder(batch.builder);
  }

  /** Somebody revoked it before it could be closed: what the store has of it becomes void, and its senders may try again. */
  #giveUp(batch: OpenBatch, allotment: Unresolved): void {
    const { subject, publishedAt, expiresMax } = batch;
    this.#refuseRows(batch, this.#failures.reasonsOf(batch, STORE_UNAVAILABLE));
    this.#marks.push({ subject, allotment, publishedAt, expiresMax });
    this.#afterRefusal(subject);
  }

  /** The store took nothing of the group: its ids are revoked, and its calls are answered when that is applied. */
  #fail(group: Group): void {
    const error = group.error;
    if (!(error instanceof BrokerError)) {
      this.#events.onFatal(error);
      return;
    }
    const reasonCode = REASON_CODE[error.reason];
    for (const batch of group.batches) {
      this.#takeBack(batch, reasonCode);
      if (!group.wasUncertain) this.#giveBuilder(batch.builder);
    }
    for (const mark of group.marks) this.#marks.push(mark);
    this.#marksRetryAt = performance.now() + RETRY_MS;
    // One failed write may pass; marks that could not be written 250 ms later say that it lasts. A full disk, or a database, says so at once.
    if (error.reason === 'STORE_FULL' || group.marks.length > 0 || this.#timeoutMs !== null) {
      this.#storeRefusal = error.reason;
      this.#counters.storeRefuses(error.reason);
      this.#storeRefusesUntil = this.#marksRetryAt;
    }
    this.#requests.send();
  }

  /** Batches of the same subjects in later groups would overtake what their senders will try again: they are taken back too. */
  #doom(failed: Group, error: unknown): void {
    if (!(error instanceof BrokerError)) return;
    // Noted before the later groups are taken back, so that these tell the order.
    for (const batch of failed.batches) this.#failures.reasonsOf(batch, REASON_CODE[error.reason]);
    const subjects = new Set(failed.batches.map(({ subject }) => subject));
    for (const group of this.#groups) {
      if (group === failed || group.state === 'closing' || group.state === 'written' || group.state === 'failed')
        continue;
      for (const batch of group.batches) {
        if (subjects.has(batch.subject)) batch.doom = REASON_CODE[error.reason];
      }
    }
  }

  /** The ids of a batch that is not stored are given up; its calls are answered when that is applied. */
  #takeBack(batch: OpenBatch, reasonCode: number): void {
    const { subject, allotment, publishedAt, expiresMax, calls, rows } = batch;
    if (allotment === null) return;
    batch.allotment = null;
    const reasons = this.#failures.reasonsOf(batch, reasonCode);
    this.#revoke({ subject, allotment, publishedAt, expiresMax, calls: calls.subarray(0, rows), reasons });
    this.#afterRefusal(subject);
  }

  #revoke(entry: Revocation): void {
    this.#revoking.push(entry);
    this.#requests.revoke(entry.subject, entry.allotment.base);
  }

  #takeBuilder(subject: ActiveSubject): BatchBuilder {
    const builder = this.#builders.pop() ?? new BatchBuilder();
    builder.reset(subject.ref.bytes, 0, subject.ref.bytes.length, subject.ref.hash);
    return builder;
  }

  #giveBuilder(builder: BatchBuilder): void {
    if (this.#builders.length < BUILDERS_KEPT) this.#builders.push(builder);
  }
}

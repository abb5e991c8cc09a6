/**
 * What a producer has to remember over all its streams: which batches have no result yet, in which order they may go, and which have to wait.
 * Pure: the caller sends what `next` hands out and reports what the broker says; times come in as numbers.
 *
 * A batch gets its sequence when it is sent for the first time and keeps it. After a refusal that may pass, the batches of its subject wait:
 * those on their way come back as PREDECESSOR_FAILED, then the refused one is tried alone, and only when it is stored do the others follow. So a
 * broker that refuses everything gets one try of each subject at a time, and order holds (proto/broker/v1/producer.proto).
 */
import { status } from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';
import type { Outcome } from '../base/errors.ts';
import { isPlanted } from '../base/planted.ts';
import { type ClientError, RefusedError, refusedError, TimeoutError, withOutcome } from './errors.ts';
import { Fifo } from './fifo.ts';
import { type BackoffOptions, type RetryBudget, retryDelayMs } from './retry.ts';
import { SendWindow } from './send-window.ts';

export interface SessionBatch {
  readonly subject: string;
  readonly bytes: number;
  readonly count: number;
  /** ms */
  readonly madeAt: number;
  sequence: number;
  refusals: number;
  isInFlight: boolean;
  /** A try of it, on whichever stream, may have stored it: a later one that is refused says nothing of that. */
  isUnknown: boolean;
  isResend: boolean;
  lastError: ClientError | null;
}

/** Told once of each batch. */
export interface SessionPort<B> {
  stored(batch: B, firstId: number): void;
  failed(batch: B, error: ClientError): void;
}

export interface SessionOptions {
  /** The broker knows the sequences: a batch whose outcome is unknown is sent again. */
  readonly isIdempotent: boolean;
  /** From its first message to its end, in ms. */
  readonly deliveryTimeoutMs: number;
  readonly budget: RetryBudget;
  readonly backoff: BackoffOptions;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

/** A batch that the broker refused. */
export interface Refusal {
  readonly code: number;
  readonly reason: string;
  readonly message: string;
  readonly isUnknown: boolean;
  /** 0: the same batch will be refused again. */
  readonly retryAfterMs: number;
}

/** What the broker takes in one batch. */
export interface BatchLimits {
  /** Of its records. */
  readonly bytesMax: number;
  readonly countMax: number;
}

const UNLIMITED: BatchLimits = { bytesMax: Number.POSITIVE_INFINITY, countMax: Number.POSITIVE_INFINITY };

/** The broker remembers this many sequences of a producer: a batch that may have to come again must stay among them. */
export const SEQUENCE_SPAN_MAX = 1_024;

interface Subject<B> {
  readonly name: string;
  inFlight: number;
  /** Batches of it that the broker has refused and that may come again. */
  refused: B[];
  /** Batches that were not sent yet and stand behind those. */
  held: B[];
  isBlocked: boolean;
  /** When the refused one may be tried, in ms. */
  retryAt: number;
  /** The one that is being tried. */
  probe: B | null;
  /** Batches that were sent on an earlier stream and not yet on this one. */
  resends: number;
}

export class ProducerSession<B extends SessionBatch> {
  readonly #options: SessionOptions;
  readonly #port: SessionPort<B>;
  readonly #window = new SendWindow();
  #isOpen = false;
  #inFlightMax = 1;
  #inFlight = 0;
  #nextSequence = 1;
  /** Sent at least once and without an end, in the order of their sequences. */
  readonly #sent = new Map<number, B>();
  /** Were sent, and come again. They go before all that has no sequence: that may have to wait until the lowest one has its end. */
  readonly #again = new Fifo<B>();
  /** Never sent, and stood behind one that comes again: before those that wait. Those of a subject stand together. */
  readonly #behind = new Fifo<B>();
  /** Never sent. */
  readonly #waiting = new Fifo<B>();
  readonly #subjects = new Map<string, Subject<B>>();
  readonly #blocked = new Set<Subject<B>>();
  /** Of all subjects. */
  #held = 0;
  #needsNewStream = false;
  /** A new stream is needed, but without sequences what is cut off in flight would be given up: its results are waited for, and nothing more is sent. */
  #isEnding = false;
  #limits: BatchLimits = UNLIMITED;

  constructor(options: SessionOptions, port: SessionPort<B>) {
    this.#options = options;
    this.#port = port;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Batches without an end. */
  get size(): number {
    const unsent = this.#waiting.size + this.#held;
    return this.#sent.size + unsent + this.#behind.size;
  }

  /** Lowest sequence that the next stream may have to send. */
  get firstSequence(): number {
    const [first] = this.#sent.keys();
    return first ?? this.#nextSequence;
  }

  /** A batch was given up that the broker expects to come again: only another stream frees its subject. */
  get needsNewStream(): boolean {
    return this.#needsNewStream || (this.#isEnding && this.#inFlight === 0);
  }

  add(batch: B): void {
    assert(batch.sequence === 0 && batch.count > 0, 'a new batch has messages and no sequence');
    this.#options.budget.noteCall();
    this.#waiting.push(batch);
  }

  /** The stream may be used. Everything without an end goes again, in order, but for batches beyond the limits: those fail. */
  opened(inFlightMax: number, lastSequence: number, limits: BatchLimits = UNLIMITED): void {
    assert(!this.#isOpen, 'a stream is opened once');
    this.#isOpen = true;
    this.#inFlightMax = Math.max(1, inFlightMax);
    this.#window.reset();
    if (this.#sent.size === 0) this.#nextSequence = Math.max(this.#nextSequence, lastSequence + 1);
    this.#again.drain();
    const behind = this.#behind.drain();
    for (const subject of this.#subjects.values()) for (const batch of subject.held) behind.push(batch);
    // Together: should some of a subject be set aside, none of it may be left that goes first.
    for (const group of Map.groupBy(behind, ({ subject }) => subject).values()) {
      for (const batch of group) this.#behind.push(batch);
    }
    this.#subjects.clear();
    this.#blocked.clear();
    this.#held = 0;
    this.#limits = limits;
    const lost = [...this.#sent.values()].filter((batch) => this.#isTooLarge(batch));
    for (const batch of lost) this.#sent.delete(batch.sequence);
    for (const batch of this.#sent.values()) {
      batch.isResend = true;
      this.#subjectOf(batch).resends += 1;
      this.#again.push(batch);
    }
    for (const batch of lost) this.#port.failed(batch, withOutcome(refusedError('BATCH_TOO_LARGE'), outcomeOf(batch)));
  }

  widen(bytesLimit: number, messagesLimit: number): void {
    this.#window.widen(bytesLimit, messagesLimit);
  }

  /** The next batch to send, which then counts as sent; null: nothing may be sent now. */
  next(now: number): B | null {
    if (!this.#isOpen || this.#isEnding) return null;
    if (this.#blocked.size > 0) this.#releaseDue(now);
    const batch = this.#take();
    if (batch === null) return null;
    if (batch.sequence === 0) {
      batch.sequence = this.#nextSequence;
      this.#nextSequence += 1;
      this.#sent.set(batch.sequence, batch);
    }
    const subject = this.#subjectOf(batch);
    if (batch.isResend) subject.resends -= 1;
    batch.isResend = false;
    batch.isInFlight = true;
    this.#inFlight += 1;
    subject.inFlight += 1;
    this.#window.noteSent(batch.bytes, batch.count);
    return batch;
  }

  /** False: no such batch is on its way, so the broker and this session disagree. */
  stored(sequence: number, firstId: number): boolean {
    const batch = this.#returned(sequence);
    if (batch === null) return false;
    this.#sent.delete(sequence);
    const subject = this.#subjectOf(batch);
    if (subject.probe === batch) this.#unblock(subject);
    this.#forgetIfIdle(subject);
    this.#port.stored(batch, firstId);
    return true;
  }

  /** False: as above. */
  refused(sequence: number, refusal: Refusal, now: number): boolean {
    const batch = this.#returned(sequence);
    if (batch === null) return false;
    const subject = this.#subjectOf(batch);
    if (subject.probe === batch) subject.probe = null;
    batch.isUnknown = (batch.isUnknown || refusal.isUnknown) && !isOfTheLog(refusal);
    if (refusal.reason === 'PREDECESSOR_FAILED') {
      this.#block(subject, batch, now);
      return true;
    }
    batch.refusals += 1;
    batch.lastError = withOutcome(errorOfRefusal(refusal), outcomeOf(batch));
    const mayPass = refusal.retryAfterMs > 0 || (refusal.isUnknown && this.#options.isIdempotent);
    const retryAt = now + this.#retryDelay(batch, refusal.retryAfterMs);
    if (mayPass && retryAt < batch.madeAt + this.#options.deliveryTimeoutMs) {
      this.#block(subject, batch, retryAt);
      return true;
    }
    if (refusal.retryAfterMs > 0 || refusal.isUnknown) {
      if (this.#options.isIdempotent) this.#needsNewStream = true;
      else this.#isEnding = true;
    }
    this.#sent.delete(sequence);
    this.#forgetIfIdle(subject);
    this.#port.failed(batch, batch.lastError);
    return true;
  }

  /** The stream is gone; what was on its way is in the dark. */
  broken(): void {
    this.#isOpen = false;
    this.#inFlight = 0;
    this.#needsNewStream = false;
    this.#isEnding = false;
    for (const batch of this.#sent.values()) {
      if (batch.isInFlight) batch.isUnknown = true;
      batch.isInFlight = false;
    }
    if (!this.#options.isIdempotent) this.restart(lostError());
  }

  /**
   * The sequences begin again at 1, with a producer id that the broker does not know: what may have been stored under the old one fails
   * with `error`, the rest is numbered anew.
   */
  restart(error: ClientError): void {
    assert(!this.#isOpen, 'the sequences of an open stream stay');
    const kept: B[] = [];
    const lost: B[] = [];
    for (const batch of this.#sent.values()) (batch.isUnknown ? lost : kept).push(batch);
    this.#sent.clear();
    this.#nextSequence = 1;
    this.#again.drain();
    const behind = this.#behind.drain();
    for (const batch of kept) {
      batch.sequence = 0;
      batch.isResend = false;
      this.#behind.push(batch);
    }
    for (const batch of behind) this.#behind.push(batch);
    for (const batch of lost) this.#port.failed(batch, withOutcome(error, outcomeOf(batch)));
  }

  /** Gives up what is older than the delivery timeout. */
  expire(now: number): void {
    const madeBefore = now - this.#options.deliveryTimeoutMs;
    const isOld = (batch: B): boolean => batch.madeAt <= madeBefore;
    const old: B[] = [];
    for (const batch of this.#sent.values()) if (isOld(batch)) old.push(batch);
    // A stream that is still to open knows nothing of them.
    if (old.length > 0 && this.#isOpen) this.#needsNewStream = true;
    for (const batch of old) this.#drop(batch);
    for (let first = this.#waiting.peek(); first !== undefined && isOld(first); first = this.#waiting.peek()) {
      this.#waiting.shift();
      old.push(first);
    }
    for (const batch of this.#behind.drain()) {
      if (isOld(batch)) old.push(batch);
      else this.#behind.push(batch);
    }
    for (const subject of this.#blocked) {
      const late = subject.held.filter(isOld);
      subject.held = subject.held.filter((batch) => !isOld(batch));
      this.#held -= late.length;
      old.push(...late);
    }
    for (const batch of old) this.#port.failed(batch, timeoutError(batch));
  }

  /** Everything fails with the error. */
  failAll(error: ClientError): void {
    const all = [...this.#sent.values()];
    this.#again.drain();
    all.push(...this.#behind.drain());
    for (const subject of this.#subjects.values()) all.push(...subject.held);
    all.push(...this.#waiting.drain());
    this.#sent.clear();
    this.#subjects.clear();
    this.#blocked.clear();
    this.#held = 0;
    this.#inFlight = 0;
    for (const batch of all) this.#port.failed(batch, withOutcome(error, outcomeOf(batch)));
  }

  /** When a refused batch may be tried again, in ms; Infinity if none waits for that. */
  get retryAt(): number {
    let earliest = Number.POSITIVE_INFINITY;
    if (!this.#isOpen || this.#isEnding) return earliest;
    for (const subject of this.#blocked) {
      if (isQuiet(subject)) earliest = Math.min(earliest, subject.retryAt);
    }
    return earliest;
  }

  /** Without a token of the budget the longest there is: a batch is not given up for it, but nobody is pressed. */
  #retryDelay(batch: B, retryAfterMs: number): number {
    const { backoff, budget, random } = this.#options;
    const delay = retryDelayMs(batch.refusals, retryAfterMs, random(), backoff);
    return budget.tryRetry() ? delay : delay + backoff.maxMs;
  }

  #take(): B | null {
    for (const queue of [this.#again, this.#behind, this.#waiting]) {
      const batch = this.#takeFrom(queue);
      if (batch !== null || queue.size > 0) return batch;
    }
    return null;
  }

  #takeFrom(queue: Fifo<B>): B | null {
    for (let batch = queue.peek(); batch !== undefined; batch = queue.peek()) {
      const subject = this.#subjects.get(batch.subject);
      if (batch.sequence > 0 && this.#sent.get(batch.sequence) !== batch) {
        queue.shift(); // Given up since.
      } else if (batch.sequence === 0 && this.#isTooLarge(batch)) {
        // Sent, it would be refused; beyond the broker's limit of a message it would take the stream with it.
        queue.shift();
        this.#port.failed(batch, refusedError('BATCH_TOO_LARGE'));
      } else if (subject?.isBlocked === true && subject.probe !== batch && !batch.isResend) {
        // What an earlier stream has sent comes in the order of its sequences whatever happens to its subject: the broker takes no other.
        queue.shift();
        this.#setAside(subject, batch);
      } else {
        if (!this.#maySend(batch)) return null;
        queue.shift();
        return batch;
      }
    }
    return null;
  }

  #setAside(subject: Subject<B>, batch: B): void {
    if (batch.sequence > 0) {
      subject.refused.push(batch);
      return;
    }
    subject.held.push(batch);
    this.#held += 1;
  }

  #isTooLarge(batch: B): boolean {
    return batch.bytes > this.#limits.bytesMax || batch.count > this.#limits.countMax;
  }

  #maySend(batch: B): boolean {
    if (this.#inFlight >= this.#inFlightMax) return false;
    if (batch.sequence === 0 && this.#nextSequence - this.firstSequence >= SEQUENCE_SPAN_MAX) return false;
    return this.#window.allows(batch.bytes, batch.count, this.#inFlight);
  }

  #returned(sequence: number): B | null {
    const batch = this.#sent.get(sequence);
    if (batch === undefined || !batch.isInFlight) return null;
    batch.isInFlight = false;
    this.#inFlight -= 1;
    this.#subjectOf(batch).inFlight -= 1;
    return batch;
  }

  #block(subject: Subject<B>, batch: B, retryAt: number): void {
    if (isPlanted('B5-retry-reorders')) {
      this.#again.push(batch);
      return;
    }
    subject.refused.push(batch);
    subject.retryAt = Math.max(subject.isBlocked ? subject.retryAt : 0, retryAt);
    subject.isBlocked = true;
    this.#blocked.add(subject);
  }

  /** Where nothing is on its way any more, the first refused batch is tried alone. */
  #releaseDue(now: number): void {
    for (const subject of this.#blocked) {
      if (!isQuiet(subject) || subject.retryAt > now) continue;
      subject.refused = subject.refused
        .filter((batch) => this.#sent.get(batch.sequence) === batch)
        .sort((left, right) => left.sequence - right.sequence);
      const probe = subject.refused.shift();
      if (probe === undefined) {
        this.#unblock(subject);
        this.#forgetIfIdle(subject);
        continue;
      }
      subject.probe = probe;
      this.#again.push(probe);
    }
  }

  #unblock(subject: Subject<B>): void {
    subject.probe = null;
    subject.isBlocked = false;
    this.#blocked.delete(subject);
    subject.refused.sort((left, right) => left.sequence - right.sequence);
    for (const batch of subject.refused) this.#again.push(batch);
    for (const batch of subject.held) this.#behind.push(batch);
    this.#held -= subject.held.length;
    subject.refused = [];
    subject.held = [];
  }

  #drop(batch: B): void {
    this.#sent.delete(batch.sequence);
    if (!batch.isInFlight) return;
    batch.isInFlight = false;
    batch.isUnknown = true;
    this.#inFlight -= 1;
    this.#subjectOf(batch).inFlight -= 1;
  }

  #subjectOf(batch: B): Subject<B> {
    let subject = this.#subjects.get(batch.subject);
    if (subject === undefined) {
      subject = {
        name: batch.subject,
        inFlight: 0,
        refused: [],
        held: [],
        isBlocked: false,
        retryAt: 0,
        probe: null,
        resends: 0,
      };
      this.#subjects.set(batch.subject, subject);
    }
    return subject;
  }

  #forgetIfIdle(subject: Subject<B>): void {
    if (subject.inFlight === 0 && subject.resends === 0 && !subject.isBlocked) this.#subjects.delete(subject.name);
  }
}

/** Nothing of the subject is on its way or about to be. */
function isQuiet<B>(subject: Subject<B>): boolean {
  return subject.inFlight === 0 && subject.probe === null && subject.resends === 0;
}

function errorOfRefusal(refusal: Refusal): RefusedError {
  return new RefusedError(`${refusal.message} (${refusal.reason})`, {
    code: refusal.code,
    reason: refusal.reason,
    outcome: refusal.isUnknown ? 'unknown' : 'none',
    retryAfterMs: refusal.retryAfterMs > 0 ? refusal.retryAfterMs : null,
  });
}

/** The refusal says more than the clock, if there was one. */
function timeoutError(batch: SessionBatch): ClientError {
  if (batch.lastError !== null && !batch.isUnknown) return batch.lastError;
  return new TimeoutError('no result within deliveryTimeoutMs', {
    code: status.DEADLINE_EXCEEDED,
    reason: null,
    outcome: outcomeOf(batch),
    retryAfterMs: null,
  });
}

function lostError(): ClientError {
  return new RefusedError('the stream broke, and without a producer id nobody knows what became of the batch', {
    code: status.UNAVAILABLE,
    reason: null,
    outcome: 'unknown',
    retryAfterMs: null,
  });
}

function outcomeOf({ isInFlight, isUnknown }: SessionBatch): Outcome {
  return isInFlight || isUnknown ? 'unknown' : 'none';
}

/** The log looks a sequence up before it refuses the batch for the last id: one that was stored before would have been found. */
function isOfTheLog({ reason }: Refusal): boolean {
  return reason === 'HEAD_MISMATCH';
}

import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { Caller, CallOrigin } from '../../access/caller.ts';
import { REASONS, type Reason, type ReasonRow } from '../../base/errors.ts';
import { originOf, watchCaller } from '../../grpc/callers.ts';
import { DeliveryStream } from '../../grpc/delivery-stream.ts';
import { FrameIntake } from '../../grpc/frame-intake.ts';
import type { FrameMemory } from '../../grpc/frame-memory.ts';
import { type BatchErrors, FramePart, type FrameScan, ResponseBuilder } from '../../grpc/producer-codec.ts';
import type { QuotaErrors } from '../../grpc/quota-status.ts';
import type { ReceiveBudget } from '../../grpc/receive-budget.ts';
import type { ReceivedGarbage } from '../../grpc/received-garbage.ts';
import { type ErrorStatus, makeStatus } from '../../grpc/status.ts';
import type { BaseDelay } from '../../publish/base-delay.ts';
import { SendWindow, type WindowLimits } from '../../publish/send-window.ts';
import { LEDGER_SEQUENCES, SequenceLedger } from '../../publish/sequence-ledger.ts';
import type { StreamMeter, Verdict } from '../../quota/stream-meter.ts';
import { producerInSpace } from './producer-names.ts';
import type { Quotas } from './quotas.ts';

/** Answers that the client has not taken; above it nothing more is read from it. */
const UNSENT_BYTES_MAX = 1 << 20;
/** Results of one response; beyond it they are written at once, for a frame can hold hundreds of thousands of batches that are refused as they come. */
const RESPONSE_BYTES_MAX = 256 << 10;
/** A client whose stream has been ended and who goes on is cut off after this time, in ms. */
const LAST_WORDS_MS = 1_000;
/** A client that has sent everything and takes nothing of its last results for so long would keep them, and its stream, for ever. */
const RESULTS_READ_MS = 30_000;

/** What became of a batch on its way to a shard: 'full' = try again later. */
export type Passing = 'passed' | 'full' | Reason;

/** What one stream needs of the broker. */
export interface ProducerStreamPort {
  readonly scan: FrameScan;
  readonly errors: BatchErrors;
  readonly quotas: Pick<Quotas, 'isOn' | 'openStream'>;
  readonly quotaErrors: QuotaErrors;
  readonly received: {
    readonly memory: FrameMemory;
    readonly garbage: ReceivedGarbage;
    readonly budget: ReceiveBudget;
  };
  readonly window: WindowLimits;
  readonly baseDelay: BaseDelay;
  /**
   * The shard of the batch under the scan, or why it has none; writes it there. Takes it into the ledger of the stream if it passed. `isOver`: to be
   * refused there as beyond a quota, in its order.
   */
  pass(stream: ProducerStream, frame: Buffer, isOver: boolean): Passing;
  /** So many bytes that it passed have their result. */
  settled(bytes: number): void;
  /** A batch got its result, so long after it was taken. */
  answeredAfter(ms: number): void;
  /** Answers the open: the fields of the first response. Rejects with an ErrorStatus. */
  open(stream: ProducerStream, producer: Buffer, firstSequence: number): Promise<Uint8Array>;
  /** Something is to be sent: `flush` will be called at the end of this turn. */
  touched(stream: ProducerStream): void;
  /** The next frame has to wait for room: `retry` will be called. */
  blocked(stream: ProducerStream): void;
  /** It has ended and nothing of it is on its way: its number may be given to another. */
  finished(stream: ProducerStream): void;
}

/**
 * One PublishStream call on the main thread. Frames are taken apart into batches, which go to their shards; results gather and are written once per
 * turn of the event loop. A frame that finds no room stops the reading of the stream, and so its sender.
 */
export class ProducerStream {
  readonly number: number;
  readonly caller: Caller;
  readonly from: CallOrigin | null;
  readonly out: DeliveryStream;
  /** Null until it is open. */
  ledger: SequenceLedger | null = null;
  /** As it is called inside the broker. Empty: nobody remembers the sequences. */
  producer: Buffer = Buffer.alloc(0);
  isTouched = false;
  isBlocked = false;
  readonly window: SendWindow;
  readonly #port: ProducerStreamPort;
  readonly #call: ServerDuplexStream<Buffer, Buffer>;
  readonly #intake: FrameIntake;
  readonly #response = new ResponseBuilder();
  #state: 'new' | 'opening' | 'open' | 'ended' = 'new';
  /** The client has sent its last frame. */
  #isHalfClosed = false;
  #isFinished = false;
  /** Copies of frames that found no room, in order; the first may have been taken in part. */
  readonly #waiting: Buffer[] = [];
  /** Where the first batch of waiting[0] begins that has not been taken. */
  #waitingAt = 0;
  /** A retryable result was sent, so shards may remember something of this stream. */
  #hadFailures = false;
  /** Sequences that shards have refused and remember until they come again. Of a client that keeps to the order rule they are among the last 1,024. */
  readonly #toComeAgain = new Set<number>();
  /** Null until something is metered. */
  #meter: StreamMeter | null = null;
  /** The first batch of waiting[0] waits for its turn of a quota. */
  #isHeld = false;

  constructor(number: number, call: ServerDuplexStream<Buffer, Buffer>, caller: Caller, port: ProducerStreamPort) {
    this.number = number;
    this.caller = caller;
    this.from = originOf(call);
    this.#call = call;
    this.#port = port;
    this.out = new DeliveryStream(call);
    this.window = new SendWindow(port.window, port.baseDelay);
    this.out.open();
    this.#intake = new FrameIntake(
      call,
      port.received,
      (frame) => this.#onFrame(frame),
      (reason) => this.end(reason),
    );
    call.on('end', () => this.#onHalfClose());
    call.on('cancelled', () => this.#onCancelled());
    watchCaller(call, {
      ended: (reason) => this.end(reason),
      // Whether a batch is still allowed is asked of each; a client that sends none learns it as well.
      changed: (narrowed) => {
        if (narrowed.includes('PUBLISH')) this.end('PERMISSION_DENIED', 'it may publish less than before');
        return this.#state === 'ended';
      },
    });
    this.out.onDrained(() => this.#takeWaiting());
  }

  /** The client leaves more results unread than are kept for it. */
  get #isUnread(): boolean {
    return this.out.unsentBytes > UNSENT_BYTES_MAX;
  }

  get inFlight(): number {
    return this.ledger?.inFlight ?? 0;
  }

  get ended(): boolean {
    return this.#state === 'ended';
  }

  get hadFailures(): boolean {
    return this.#hadFailures;
  }

  /** Nothing waits to be taken or to be answered. */
  get idle(): boolean {
    return this.inFlight === 0 && this.#waiting.length === 0;
  }

  /** A batch is stored: its first id. */
  stored(lowBits: number, firstId: number): void {
    const { ledger } = this;
    if (ledger === null) return;
    const sequence = ledger.sequenceOf(lowBits);
    const messages = ledger.messages(sequence);
    this.#answered(ledger, sequence, true);
    if (this.#state !== 'ended') this.#response.stored(sequence, firstId, firstId + messages - 1);
    this.#afterAnswer();
  }

  /** A batch is refused. */
  refused(lowBits: number, reason: Reason): void {
    const { ledger } = this;
    if (ledger === null) return;
    const sequence = ledger.sequenceOf(lowBits);
    this.#answered(ledger, sequence, false);
    this.#hadFailures = true;
    if (this.#state !== 'ended') this.#response.refused(sequence, this.#errorOf(reason, ledger, sequence));
    if (isRemembered(reason)) this.#toComeAgain.add(sequence);
    if (this.#toComeAgain.size > LEDGER_SEQUENCES)
      this.end('WINDOW_EXCEEDED', 'more than 1,024 refused batches have not come again');
    this.#afterAnswer();
  }

  /** A shard has died: nobody knows what became of its batches. The client has to open again and send again what has no result. */
  shardDied(shard: number): void {
    const lost = this.ledger?.inFlightOf(shard) ?? [];
    for (const sequence of lost) {
      this.#port.settled(this.ledger?.bytes(sequence) ?? 0);
      this.ledger?.settle(sequence, false);
    }
    // A shard that follows does not know what its predecessor refused, and would let later batches overtake it.
    if (lost.length > 0 || this.#hadFailures) this.end('OUTCOME_UNKNOWN');
    this.#finishIfDone();
  }

  /** Writes what has gathered. */
  flush(): void {
    this.isTouched = false;
    if (this.#response.isEmpty || this.#state === 'ended') return;
    this.#write();
    if (this.#isUnread) this.#intake.pause();
    this.#endIfDone();
  }

  #errorOf(reason: Reason, ledger: SequenceLedger, sequence: number): Uint8Array {
    const { errors, quotaErrors } = this.#port;
    if (reason !== 'QUOTA_EXCEEDED' || this.#meter === null) return errors.of(reason);
    const delayMs = this.#meter.delayMs(ledger.messages(sequence), ledger.bytes(sequence), performance.now());
    return quotaErrors.of(delayMs);
  }

  /** Quotas have changed: what the sender may have in flight is told at once. */
  retell(): void {
    if (this.#state !== 'open') return;
    this.#limitWindow();
    if (this.window.tell()) this.#write();
  }

  /** There may be room again, or it is its turn of a quota. */
  retry(): void {
    this.isBlocked = false;
    this.#takeWaiting();
  }

  /** Ends the stream with a status, behind the results that are known. */
  end(reason: Reason, details = ''): void {
    if (this.#state !== 'ended') this.#endWith(makeStatus(reason, details));
  }

  #endWith(status: ErrorStatus): void {
    if (this.#state === 'ended') return;
    if (!this.#response.isEmpty) this.#write();
    this.#close();
    this.out.end(status, LAST_WORDS_MS);
  }

  // --- frames ---

  #onFrame(frame: Buffer): void {
    if (this.#state === 'ended') return;
    if (this.#state === 'new') {
      this.#onOpen(frame);
      return;
    }
    if (this.#waiting.length === 0 && this.#state === 'open' && !this.isBlocked && !this.#isUnread) {
      if (this.#takeFrame(frame)) {
        this.#waitingAt = 0;
        this.#endIfDone();
        return;
      }
      if (!this.#isUnread) this.#block();
    }
    this.#intake.pause();
    if (!this.ended) this.#waiting.push(Buffer.from(frame));
  }

  #onOpen(frame: Buffer): void {
    const { scan } = this.#port;
    scan.reset(frame, 0);
    const part = scan.next();
    if (part !== FramePart.OPEN) {
      this.end(part === FramePart.MALFORMED ? 'MALFORMED_MESSAGE' : 'STREAM_NOT_OPENED');
      return;
    }
    const open = scan.open();
    if (typeof open === 'string') {
      this.end(open);
      return;
    }
    const rest = scan.next();
    if (rest !== FramePart.END) {
      this.end(
        rest === FramePart.MALFORMED ? 'MALFORMED_MESSAGE' : 'STREAM_NOT_OPENED',
        'batches come in later frames',
      );
      return;
    }
    this.#state = 'opening';
    this.#intake.pause();
    const { space } = this.caller;
    const isPlain = space.length === 0 || open.producer.length === 0;
    this.producer = isPlain ? open.producer : producerInSpace(space, open.producer);
    this.#port.open(this, this.producer, open.firstSequence).then(
      (opened) => this.#opened(opened, open.firstSequence),
      (status: ErrorStatus) => this.#endWith(status),
    );
  }

  #opened(response: Uint8Array, firstSequence: number): void {
    if (this.#state === 'ended') return;
    this.#state = 'open';
    this.ledger = new SequenceLedger(firstSequence);
    this.#response.append(response);
    this.#write();
    this.#takeWaiting();
    this.#endIfDone();
  }

  /** Takes the batches of waiting frames until one finds no room, or the client has too many results to read. */
  #takeWaiting(): void {
    while (this.#state === 'open' && this.#waiting.length > 0 && !this.isBlocked && !this.#isUnread) {
      if (!this.#takeFrame(this.#waiting[0] as Buffer)) {
        this.#intake.pause();
        if (!this.#isUnread) this.#block();
        return;
      }
      this.#waiting.shift();
      this.#waitingAt = 0;
    }
    this.#steerReading();
    this.#endIfDone();
  }

  #block(): void {
    if (this.#state !== 'open') return;
    this.isBlocked = true;
    if (!this.#isHeld) this.#port.blocked(this);
  }

  /** False: there was no room for a batch or for its result, so it has to be tried again. */
  #takeFrame(frame: Buffer): boolean {
    const { scan } = this.#port;
    scan.reset(frame, this.#waitingAt);
    for (let at = this.#waitingAt; this.#state === 'open'; at = scan.offset) {
      const part = scan.next();
      switch (part) {
        case FramePart.END:
          return true;
        case FramePart.BATCH:
          if (!this.#isUnread && this.#takeBatch(frame)) break;
          this.#waitingAt = at;
          return false;
        case FramePart.OPEN:
          this.end('STREAM_NOT_OPENED', 'it is open already');
          return true;
        default:
          this.end('MALFORMED_MESSAGE');
          return true;
      }
    }
    return true;
  }

  #takeBatch(frame: Buffer): boolean {
    const { scan, errors } = this.#port;
    const { sequence, count } = scan;
    const ledger = this.ledger as SequenceLedger;
    const admission = ledger.judge(sequence);
    if (admission !== 'taken') {
      const last = `sequence ${sequence} after ${ledger.last}`;
      this.end(admission === 'too-many' ? 'WINDOW_EXCEEDED' : 'SEQUENCE_OUT_OF_ORDER', last);
      return true;
    }
    const bytes = scan.sectionEnd - scan.sectionStart;
    if (!this.window.allows(bytes, count)) {
      const { bytesLimit, messagesLimit } = this.window;
      this.end('WINDOW_EXCEEDED', `the limits are ${bytesLimit} bytes and ${messagesLimit} messages in all`);
      return true;
    }
    const meter = this.#metering();
    const verdict = meter === null ? 'taken' : this.#judge(meter, frame, bytes);
    this.#isHeld = verdict === 'wait';
    if (this.#isHeld) return false;
    const passing = this.#port.pass(this, frame, verdict === 'over');
    if (passing === 'full') return false;
    if (verdict === 'over') meter?.refused();
    else meter?.passed();
    this.window.received(bytes, count);
    if (passing === 'passed') {
      if (this.#toComeAgain.size > 0) this.#toComeAgain.delete(sequence);
      return true;
    }
    ledger.refuse(sequence);
    this.window.returned(bytes, count);
    this.#response.refused(sequence, errors.of(passing));
    if (this.#response.byteLength > RESPONSE_BYTES_MAX) this.#write();
    else this.#port.touched(this);
    return true;
  }

  // --- quotas ---

  #metering(): StreamMeter | null {
    const { quotas } = this.#port;
    if (!quotas.isOn) return null;
    this.#meter ??= quotas.openStream(this.caller.tenant, () => this.retry());
    return this.#meter;
  }

  #judge(meter: StreamMeter, frame: Buffer, bytes: number): Verdict {
    const { count, subjectStart, subjectEnd } = this.#port.scan;
    const mayWait = this.window.isTold(bytes, count);
    return meter.judge(frame, subjectStart, subjectEnd, count, bytes, mayWait, performance.now());
  }

  #limitWindow(): void {
    const meter = this.#metering();
    if (meter !== null) {
      const now = performance.now();
      this.window.limitTo(meter.windowBytes(now), meter.windowMessages(now));
    } else if (this.#meter !== null) this.window.limitTo(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);
  }

  // --- answers ---

  #answered(ledger: SequenceLedger, sequence: number, isStored: boolean): void {
    const now = performance.now();
    const bytes = ledger.bytes(sequence);
    const ms = now - ledger.takenAt(sequence);
    this.window.answered(bytes, ledger.messages(sequence), ms, now);
    this.#port.settled(bytes);
    this.#port.answeredAfter(ms);
    ledger.settle(sequence, isStored);
  }

  #afterAnswer(): void {
    if (this.#state === 'ended') this.#finishIfDone();
    else this.#port.touched(this);
  }

  #write(): void {
    const { window, ledger } = this;
    this.#limitWindow();
    window.tell();
    this.out.write(this.#response.take(ledger?.acknowledged ?? 0, window.bytesTold, window.messagesTold));
  }

  #steerReading(): void {
    if (this.#state !== 'open' || this.isBlocked) return;
    if (this.#isUnread) this.#intake.pause();
    else if (this.#waiting.length === 0) this.#intake.resume();
  }

  // --- the end ---

  /** It went away, or its deadline passed: a client that has not noticed would keep its connection open while the broker stops. */
  #onCancelled(): void {
    this.#close();
    this.out.resetAfter(LAST_WORDS_MS);
  }

  #onHalfClose(): void {
    this.#isHalfClosed = true;
    if (this.#state === 'new') this.end('STREAM_NOT_OPENED');
    else this.#endIfDone();
  }

  /** The client has sent everything and has every result. */
  #endIfDone(): void {
    if (!this.#isHalfClosed || this.#state !== 'open' || !this.idle) return;
    if (!this.#response.isEmpty) this.#write();
    this.#close();
    this.#call.end();
    this.out.resetWhenStill(RESULTS_READ_MS);
  }

  #close(): void {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    this.#meter?.close();
    this.#waiting.length = 0;
    this.#finishIfDone();
  }

  #finishIfDone(): void {
    if (this.#isFinished || this.#state !== 'ended' || this.inFlight > 0) return;
    this.#isFinished = true;
    this.#port.finished(this);
  }
}

/** As StreamFailures has it: nothing behind the batch is taken until it comes again. */
function isRemembered(reason: Reason): boolean {
  const row: ReasonRow = REASONS[reason];
  return reason !== 'PREDECESSOR_FAILED' && (row.retryAfterMs !== undefined || reason === 'OUTCOME_UNKNOWN');
}

import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { Caller, CallOrigin } from '../../access/caller.ts';
import type { Reason } from '../../base/errors.ts';
import { isPlanted } from '../../base/planted.ts';
import { originOf, watchCaller } from '../../grpc/callers.ts';
import { cutFrame } from '../../grpc/consumer-codec.ts';
import { DeliveryStream, type OnSent } from '../../grpc/delivery-stream.ts';
import { frameOf } from '../../grpc/frame.ts';
import { ConsumeResponse, type Position } from '../../grpc/gen/broker/v1/consumer.ts';
import { encodeResumeToken } from '../../grpc/resume-token.ts';
import { makeStatus } from '../../grpc/status.ts';
import type { HeldBytes } from '../../grpc/unsent-budget.ts';
import { DeliveryWindow } from '../../subscribe/delivery-window.ts';
import type { Pattern } from '../../subscribe/pattern.ts';
import { StreamCredit } from '../../subscribe/stream-credit.ts';
import { Credit, Start } from '../link.ts';
import type { BatchRun } from './batch-run.ts';
import type { ConsumerReader } from './consumer-reader.ts';
import { goingOn, type StartPosition, type SubscriptionPort } from './subject-group.ts';

/** A reader of the store may always have this many bytes on their way, however many subjects share its stream. */
const SLICE_BYTES_MIN = 4_096;
/**
 * Readers of the store may fill so many times subscribe.buffer_bytes: their credits together are that much, but each may be exceeded by one run,
 * and the last runs come when the stream has been congested for a while.
 */
const STORE_BUFFERS = 2;
/** Positions of one frame, in bytes of names and numbers: clients take messages of 4 MiB. */
const POSITIONS_BYTES = 1 << 20;
const POSITION_BYTES = 40;

export type Reader = ConsumerReader<ConsumerStream>;

/** A pattern of a stream and where the subjects begin that it finds first. */
export interface StreamPattern {
  readonly pattern: Pattern;
  readonly start: StartPosition;
}

/** What one stream needs of the broker. */
export interface ConsumerStreamPort extends SubscriptionPort {
  /** What a stream may hold unsent now: subscribe.buffer_bytes, or less while all together hold too much. */
  readonly bufferBytes: number;
  /** subscribe.stall_timeout in ms. */
  readonly stallTimeoutMs: number;
  onFrame(stream: ConsumerStream, frame: Buffer): void;
  /** Asks where its subjects stand, and then lets it write its heartbeat. */
  askPositions(stream: ConsumerStream): void;
  /** What was written. */
  delivered(messages: number, bytes: number): void;
  closed(stream: ConsumerStream): void;
  /** Its caller may have more, or less, than before. */
  permissionsChanged(stream: ConsumerStream): void;
}

/**
 * One Consume call on the main thread. Its subjects are subscriptions of their shards; what the client has granted, and what HTTP/2 has not passed
 * on, is counted here. A stream that may not send is paused without telling anybody: a subject is taken off the tail of its shard when the first run
 * has come for nothing, and goes on from the store when there is credit again.
 */
export class ConsumerStream {
  readonly caller: Caller;
  readonly from: CallOrigin | null;
  readonly out: DeliveryStream;
  readonly credit = new StreamCredit();
  readonly readers = new Map<string, Reader>();
  patterns: readonly StreamPattern[] = [];
  state: 'new' | 'open' | 'ended' = 'new';
  /** The number of its first reader; 0: it has none yet. */
  id = 0;
  /** Looking for the subjects of its patterns, one search after another. */
  searching: Promise<void> = Promise.resolve();
  searches = 0;
  /** Bytes that the stream had sent at the last sweep, and when that number last grew or nothing waited (ms of performance.now()). */
  sentSeen = -1;
  movedAt = performance.now();
  readonly #call: ServerDuplexStream<Buffer, Buffer>;
  readonly #port: ConsumerStreamPort;
  /** More is unsent than a stream may hold. */
  #isCongested = false;
  readonly #onSent: OnSent = () => this.#sent();
  /** Readers that are to be told when the stream may send again. */
  readonly #owed = new Set<Reader>();
  #unstarted = 0;
  #isComplete = false;
  /** Starts that were fixed and not told yet. */
  #fresh: Reader[] = [];
  #isAnnouncing = false;
  #heartbeat: NodeJS.Timeout | null = null;

  constructor(call: ServerDuplexStream<Buffer, Buffer>, caller: Caller, port: ConsumerStreamPort) {
    this.caller = caller;
    this.from = originOf(call);
    this.#call = call;
    this.#port = port;
    this.out = new DeliveryStream(call);
    this.out.open();
    call.on('data', (frame: Buffer) => {
      if (this.state !== 'ended') port.onFrame(this, frame);
    });
    call.on('end', () => this.#onHalfClose());
    call.on('cancelled', () => this.#close());
    watchCaller(call, {
      ended: (reason) => this.end(reason),
      changed: () => {
        port.permissionsChanged(this);
        return this.ended;
      },
    });
  }

  get ended(): boolean {
    return this.state === 'ended';
  }

  get isPaused(): boolean {
    return this.#isCongested || this.credit.isSpent;
  }

  open(heartbeatMs: number): void {
    this.state = 'open';
    this.#heartbeat = setInterval(() => this.#port.askPositions(this), heartbeatMs);
    this.announce();
  }

  /** Readers that were just made. */
  join(readers: readonly Reader[]): void {
    for (const reader of readers) this.readers.set(reader.name, reader);
    if (this.id === 0) this.id = readers[0]?.id ?? 0;
    this.#unstarted += readers.length;
    const slice = this.#slice();
    for (const reader of readers) this.#port.subscribeAt(reader, reader.start, slice);
  }

  /** The shard has fixed the start of a reader, or begun it again. */
  started(reader: Reader, next: number, head: number, settled: number, isAwaiting: boolean): void {
    reader.head = head;
    reader.settled = settled;
    if (reader.window !== null) {
      reader.window.isAwaiting = isAwaiting;
      // The time that it waited for has come, and what was published before is not for it; or the subject was trimmed past where it stood.
      if (!isPlanted('B4-trim-unheeded')) reader.window.took(next);
      return;
    }
    reader.window = new DeliveryWindow(next, isAwaiting);
    this.#unstarted -= 1;
    this.#fresh.push(reader);
    this.announce();
  }

  /** Tells the client of new starts, once for all that one turn brings. */
  announce(): void {
    if (this.#isAnnouncing) return;
    this.#isAnnouncing = true;
    queueMicrotask(() => {
      this.#isAnnouncing = false;
      if (this.state === 'open') this.#announce();
    });
  }

  grant(bytes: number, messages: number): void {
    const wasPaused = this.isPaused;
    if (!this.credit.tryGrant(bytes, messages)) {
      this.end('CREDIT_INVALID', `${bytes} bytes and ${messages} messages`);
      return;
    }
    if (wasPaused) this.#maybeResume();
  }

  /** A run for the group of a reader. */
  offer(reader: Reader, run: BatchRun, held: HeldBytes): void {
    const isWritten = this.#take(reader, run, held, this.isPaused, (error) => {
      held.release();
      if (!isFailed(error)) run.pooled.release();
      this.#sent();
    });
    if (isWritten) reader.isReading = false;
  }

  /** A run for this reader alone, which has to be given back what it cost. */
  offerOwn(reader: Reader, run: BatchRun, held: HeldBytes): void {
    const { epoch } = reader;
    const cost = run.frame.length;
    // What a reader had credit for is taken although the stream is congested by now: to give it up is to read and check it twice.
    const isFull = this.out.unsentBytes > STORE_BUFFERS * this.#port.bufferBytes;
    // Also if only heartbeats have filled it: what is missed is resumed when a congested stream has drained.
    if (isFull) this.#isCongested = true;
    const isRefused = this.credit.isSpent || isFull;
    const isWritten = this.#take(reader, run, held, isRefused, (error) => {
      held.release();
      if (!isFailed(error)) run.pooled.release();
      this.#giveBack(reader, cost, epoch);
      this.#sent();
    });
    if (isWritten) reader.isReading = true;
    else this.#giveBack(reader, cost, epoch);
  }

  /** A shard has begun anew, or another one owns the subject: goes on from where the reader stands. */
  resubscribe(reader: Reader): void {
    const { window } = reader;
    reader.epoch += 1;
    reader.spentCredit = 0;
    // A PAUSE behind the start would find no cursor yet, and what the reader sent from then on would be missing.
    reader.isDetached = window?.paused === true;
    if (!reader.isDetached) this.#subscribe(reader, this.#slice());
  }

  /** Positions that changed since the heartbeat before, and a token. Left out while the client does not read. */
  heartbeat(): void {
    if (this.state === 'open' && this.out.unsentBytes <= this.#port.bufferBytes) this.#beat();
  }

  #beat(): void {
    const changed: Position[] = [];
    for (const reader of this.readers.values()) {
      const { window, head, settled } = reader;
      if (window === null) continue;
      const isTold = reader.toldNext === window.next && reader.toldHead === head && reader.toldSettled === settled;
      if (isTold) continue;
      reader.toldNext = window.next;
      reader.toldHead = head;
      reader.toldSettled = settled;
      changed.push(positionOf(reader, window));
    }
    const pieces = inPieces(changed);
    const token = this.#isComplete ? this.#token() : Buffer.alloc(0);
    pieces.forEach((positions, i) => {
      const resumeToken = i === pieces.length - 1 ? token : Buffer.alloc(0);
      this.#write({ deliveries: [], started: undefined, heartbeat: { positions, resumeToken } });
    });
  }

  /** Ends the stream with a status, behind what was sent. */
  end(reason: Reason, details = ''): void {
    if (this.state === 'ended') return;
    this.#close();
    this.out.end(makeStatus(reason, details), this.#port.stallTimeoutMs);
  }

  // --- sending ---

  /** Passes on what the stream may have of the run. True if something was written: then `onSent` will be called. */
  #take(reader: Reader, run: BatchRun, held: HeldBytes, isRefused: boolean, onSent: OnSent): boolean {
    const { window } = reader;
    if (window === null || this.state !== 'open' || window.judge(run.from, run.to) !== 'take') return false;
    if (run.messages === 0) {
      window.took(run.to);
      return false;
    }
    if (isRefused) {
      this.#miss(reader, window);
      return false;
    }
    const { credit } = this;
    if (window.next <= run.firstId && credit.covers(run.sectionBytes, run.messages)) {
      this.#pass(reader, run, held, run.frame, run.sectionBytes, run.messages, onSent);
      window.took(run.to);
      return true;
    }
    const cut = cutFrame(run.frame, window.next, credit.bytes, credit.messages);
    if (cut.frame !== null) this.#pass(reader, run, held, cut.frame, cut.bytes, cut.messages, onSent);
    window.took(cut.stoppedAt < 0 ? run.to : cut.stoppedAt);
    if (cut.stoppedAt >= 0) this.#miss(reader, window);
    return cut.frame !== null;
  }

  #pass(
    reader: Reader,
    run: BatchRun,
    held: HeldBytes,
    frame: Buffer,
    bytes: number,
    messages: number,
    onSent: OnSent,
  ): void {
    this.credit.spend(bytes, messages);
    run.pooled.hold();
    held.hold();
    if (!this.out.write(frame, onSent)) held.release();
    reader.messages += messages;
    reader.bytes += frame.length;
    this.#port.delivered(messages, frame.length);
    if (this.out.unsentBytes > this.#port.bufferBytes) this.#isCongested = true;
  }

  /** Something for the reader could not be sent: its shard must not send more of it, and begins at `window.next` when it may. */
  #miss(reader: Reader, window: DeliveryWindow): void {
    window.pause();
    reader.epoch += 1;
    reader.spentCredit = 0;
    this.#owed.add(reader);
    this.#port.credit(reader, Credit.PAUSE, window.next, 0);
  }

  #giveBack(reader: Reader, cost: number, epoch: number): void {
    if (reader.epoch !== epoch || cost === 0 || this.state !== 'open') return;
    if (this.isPaused) {
      reader.spentCredit += cost;
      this.#owed.add(reader);
    } else this.#port.credit(reader, Credit.MORE, 0, cost);
  }

  #sent(): void {
    if (!this.#isCongested || this.state !== 'open') return;
    if (this.out.unsentBytes * 2 > this.#port.bufferBytes) return;
    this.#isCongested = false;
    this.#maybeResume();
  }

  #maybeResume(): void {
    if (this.isPaused) return;
    const slice = this.#slice();
    for (const reader of this.#owed) {
      const { window } = reader;
      if (window?.paused === true) {
        window.resume();
        if (reader.isDetached) this.#subscribe(reader, slice);
        else this.#port.credit(reader, Credit.RESUME, window.next, slice);
      } else if (reader.spentCredit > 0) this.#port.credit(reader, Credit.MORE, 0, reader.spentCredit);
      reader.spentCredit = 0;
    }
    this.#owed.clear();
  }

  /** From where it stands; a start that was not fixed yet is asked for as it was. */
  #subscribe(reader: Reader, slice: number): void {
    const { window, start } = reader;
    reader.isDetached = false;
    this.#port.subscribeAt(reader, window === null ? start : goingOn(start, window.next), slice);
  }

  /** What one reader of the store may have on its way: an equal share of what the stream may hold. */
  #slice(): number {
    return Math.max(SLICE_BYTES_MIN, Math.floor(this.#port.bufferBytes / Math.max(1, this.readers.size)));
  }

  // --- positions ---

  #announce(): void {
    const becomesComplete = !this.#isComplete && this.#unstarted === 0 && this.searches === 0;
    if (becomesComplete) this.#isComplete = true;
    if (this.#fresh.length === 0 && !becomesComplete) return;
    const positions = this.#fresh.flatMap((reader) =>
      reader.window === null ? [] : [positionOf(reader, reader.window)],
    );
    this.#fresh = [];
    const pieces = inPieces(positions);
    pieces.forEach((piece, i) => {
      const complete = this.#isComplete && i === pieces.length - 1;
      this.#write({ deliveries: [], started: { positions: piece, complete }, heartbeat: undefined });
    });
    // A token at once: without one, a client of a pattern that begins `new` could only begin `new` again, past what was born meanwhile.
    if (becomesComplete) this.#beat();
  }

  #token(): Buffer {
    const next = new Map<string, number>();
    const times = new Map<string, number>();
    for (const { name, start, window } of this.readers.values()) {
      if (window === null) continue;
      next.set(name, window.next);
      if (start.kind === Start.TIME) times.set(name, start.value);
    }
    const patterns = new Set(this.patterns.map(({ pattern }) => Buffer.from(pattern.bytes).toString()));
    return encodeResumeToken({ patterns, next, times });
  }

  #write(response: ConsumeResponse): void {
    this.out.write(frameOf(ConsumeResponse.encode(response).finish()), this.#onSent);
  }

  // --- the end ---

  /** The client has enough. */
  #onHalfClose(): void {
    if (this.state === 'new') this.end('STREAM_NOT_OPENED');
    if (this.state !== 'open') return;
    this.#close();
    this.#call.end();
    // Nobody looks after it any more, and a client that reads nothing would keep what waits for it.
    this.out.resetWhenStill(this.#port.stallTimeoutMs);
  }

  #close(): void {
    if (this.state === 'ended') return;
    this.state = 'ended';
    if (this.#heartbeat !== null) clearInterval(this.#heartbeat);
    this.#owed.clear();
    this.#port.closed(this);
  }
}

function isFailed(error: Error | null | undefined): boolean {
  return error !== null && error !== undefined;
}

function positionOf({ name, head, settled }: Reader, window: DeliveryWindow): Position {
  return { subject: name, nextId: window.next, head: Math.max(0, head), settled: Math.max(0, settled) };
}

/** At least one piece. */
function inPieces(positions: readonly Position[]): Position[][] {
  const pieces: Position[][] = [[]];
  let bytes = 0;
  for (const position of positions) {
    if (bytes > POSITIONS_BYTES) {
      pieces.push([]);
      bytes = 0;
    }
    bytes += POSITION_BYTES + position.subject.length * 3;
    pieces.at(-1)?.push(position);
  }
  return pieces;
}

/** Publishing in volume: messages are gathered to batches and streamed; each counts as published when the broker has it on disk. */
import { randomBytes } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { SUBJECT_BYTES_MAX } from '../base/subject.ts';
import { ChunkPool } from './chunk-pool.ts';
import { type EndpointOptions, Endpoints } from './endpoints.ts';
import { type ClientError, closedError, refusedError, UsageError } from './errors.ts';
import { Fifo } from './fifo.ts';
import { type Body, checkBody, type HeadersInput, listHeaders } from './message.ts';
import {
  bodyLengthOf,
  type OutBatch,
  type RecordExtras,
  recordLengthOf,
  sectionBytesOf,
  type Waiter,
} from './out-batch.ts';
import { PublishLane } from './publish-lane.ts';
import { BACKOFF, RETRY_BUDGET, RetryBudget } from './retry.ts';
import { ClientTracing } from './tracing.ts';
import { abortable } from './wait.ts';

export interface PublisherOptions {
  /**
   * Who publishes, 1 to 60 bytes. With the id of an earlier publisher the sequences go on where that one stood. Default: a random one.
   * Only one publisher at a time may use an id.
   */
  readonly producerId?: string;
  /** Whether the broker remembers the sequences, so that a repeat after a lost connection is stored once. Default true. */
  readonly idempotent?: boolean;
  /** Longest time that a message waits for others while a batch is on its way, in ms. More makes larger batches and later answers. Default 2. */
  readonly linger?: number;
  /** Size at which a batch goes, in bytes of records; 1 KiB to 1 MiB, and no more than the broker allows. Default 64 KiB. */
  readonly batchBytes?: number;
  /** Messages at which a batch goes. Default 10,000. */
  readonly batchMessages?: number;
  /** Connections, over which subjects are spread; 1 to 64. More use more threads of the broker. Default 1. */
  readonly channels?: number;
  /** What may be waiting and on its way, in bytes, each batch with 4 KiB beside its messages; beyond it publishers wait. Default 16 MiB. */
  readonly bufferBytes?: number;
  /** Calls of `publish` and `publishMany` that may wait for room at a time; beyond it they are refused. Default 10,000. */
  readonly waitersMax?: number;
  /** From taking a message to giving it up, in ms. Refusals that may pass and lost connections are retried as long. Default 120,000. */
  readonly deliveryTimeoutMs?: number;
}

export interface MessageOptions {
  readonly headers?: HeadersInput;
  /** Whole seconds after which it is gone; 0 or none: never. */
  readonly expirationSeconds?: number;
  /** Refused with HEAD_MISMATCH unless this is the last id of the subject (0: it has none yet). Such messages travel in a batch of their own. */
  readonly expectedLastId?: number;
  /** Ends the wait, with the signal's reason. Messages that were taken already are published all the same. */
  readonly signal?: AbortSignal;
}

export interface PublishedRange {
  /** Ids of the first and the last message. */
  readonly firstId: number;
  readonly lastId: number;
  /** Consecutive ids each; more than one where the messages filled several batches and others published in between. */
  readonly ranges: readonly { readonly firstId: number; readonly lastId: number }[];
}

export interface PublisherStats {
  /** Messages that were taken. */
  readonly messages: number;
  /** Of those, with their ids. */
  readonly stored: number;
  readonly failed: number;
  /** Sent, with repeats. */
  readonly batches: number;
  readonly batchesInFlight: number;
  readonly bufferedBytes: number;
  /** Streams that were opened, over all channels: those beyond their number are reconnections. */
  readonly streams: number;
}

const CHANNELS_MAX = 64;
const BATCH_BYTES_MIN = 1024;
const BATCH_BYTES_MAX = 1024 * 1024;
const PRODUCER_BYTES_MAX = 60;
/** Of a batch, to every broker. */
const BATCH_MESSAGES_MAX = 65_535;

/** A call that found no room. `work` tries to go on and says whether it is done. */
interface Waiting {
  readonly work: (failure: ClientError | null) => boolean;
  readonly signal: AbortSignal | undefined;
}

/** Calls that were aborted are looked for so often at the most. */
const ABORTED_LOOK_MS = 100;
/** What a batch takes up beside its records: a chunk has 4 KiB at least. */
const BATCH_OVERHEAD_BYTES = 4 * 1024;

export class Publisher {
  readonly producerId: string;
  /** Null: this program traces nothing. */
  readonly #tracing = ClientTracing.find();
  readonly #lanes: readonly PublishLane[];
  readonly #endpoints: readonly Endpoints[];
  readonly #bufferBytes: number;
  readonly #waitersMax: number;
  /** Each tries to go on and says whether it is done. */
  readonly #waiting = new Fifo<Waiting>();
  #bufferedBytes = 0;
  #droppedAt = Number.NEGATIVE_INFINITY;
  #messages = 0;
  #stored = 0;
  #failed = 0;
  #failure: ClientError | null = null;
  /** Of the first call of `close`; null until then. */
  #closing: Promise<void> | null = null;
  /** Aborted: what was taken is not waited for any longer. */
  readonly #cut = new AbortController();
  readonly #closed = Promise.withResolvers<void>();
  /** Of messages that nobody waits for, since the last flush. */
  #untold: ClientError | null = null;

  /** Made by `Client.publisher`. */
  constructor(addresses: readonly string[], endpointOptions: EndpointOptions, options: PublisherOptions) {
    const { channels = 1, batchBytes = 64 * 1024, bufferBytes = 16 * 1024 * 1024 } = options;
    check(Number.isInteger(channels) && channels >= 1 && channels <= CHANNELS_MAX, 'channels: 1 to 64');
    check(batchBytes >= BATCH_BYTES_MIN && batchBytes <= BATCH_BYTES_MAX, 'batchBytes: 1 KiB to 1 MiB');
    check(bufferBytes >= batchBytes, 'bufferBytes: at least batchBytes');
    const isFixedId = options.producerId !== undefined;
    this.producerId = options.producerId ?? randomName();
    const idLength = Buffer.byteLength(this.producerId);
    check(idLength >= 1 && idLength <= PRODUCER_BYTES_MAX, 'producerId: 1 to 60 bytes');
    const { batchMessages = 10_000 } = options;
    const isPossible = Number.isInteger(batchMessages) && batchMessages >= 1 && batchMessages <= BATCH_MESSAGES_MAX;
    check(isPossible, 'batchMessages: 1 to 65,535');
    this.#bufferBytes = bufferBytes;
    this.#waitersMax = options.waitersMax ?? 10_000;
    const { random } = endpointOptions;
    const shared = {
      isFixedId,
      lingerMs: options.linger ?? 2,
      batchBytes,
      batchMessages,
      deliveryTimeoutMs: options.deliveryTimeoutMs ?? 120_000,
      budget: new RetryBudget(RETRY_BUDGET),
      backoff: BACKOFF,
      random,
      newProducerId: randomName,
      pool: new ChunkPool(bufferBytes),
      now: () => performance.now(),
    };
    const port = {
      stored: (batch: OutBatch, firstId: number) => this.#onStored(batch, firstId),
      failed: (batch: OutBatch, error: ClientError) => this.#onFailed(batch, error),
      onBroken: (error: ClientError) => this.#break(error),
    };
    const first = Math.floor(random() * addresses.length);
    this.#endpoints = Array.from(
      { length: channels },
      (_, lane) => new Endpoints(addresses, { ...endpointOptions, failFast: false }, first + lane),
    );
    this.#lanes = this.#endpoints.map((endpoints, lane) => {
      // Sequences are counted by stream, so that each has a producer of its own.
      const id = channels === 1 ? this.producerId : `${this.producerId}-${lane}`;
      return new PublishLane(endpoints, { ...shared, producerId: options.idempotent === false ? '' : id }, port);
    });
  }

  /** Resolves when the publisher is closed. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  get stats(): PublisherStats {
    return {
      messages: this.#messages,
      stored: this.#stored,
      failed: this.#failed,
      batches: this.#sum((lane) => lane.batchesSent),
      batchesInFlight: this.#sum((lane) => lane.inFlight),
      bufferedBytes: this.#bufferedBytes,
      streams: this.#sum((lane) => lane.streams),
    };
  }

  /** Resolves with the id once the message is durable. Calls keep their order for each subject, also when nobody waits between them. */
  publish(subject: string, body: Body, options?: MessageOptions): Promise<number> {
    const range = this.publishMany(subject, [body], options);
    return range.then(({ firstId }) => firstId);
  }

  /**
   * The cheap way for many: no promise and no object for each message. They get consecutive ids if they fit into one batch (`batchBytes`,
   * `batchMessages`); longer lists are cut into several. Rejects with the first failure; others of the list may be stored then. Arguments that
   * cannot be sent reject with a RangeError or a TypeError, and nothing is taken.
   */
  publishMany(subject: string, bodies: readonly Body[], options?: MessageOptions): Promise<PublishedRange> {
    try {
      return this.#publishMany(subject, bodies, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #extrasOf(options: MessageOptions | undefined): RecordExtras | null {
    const extras = extrasOf(options);
    return this.#tracing === null ? extras : this.#tracing.extras(extras);
  }

  /** Throws, before anything is taken, where the arguments are not fit to be sent. */
  #publishMany(subject: string, bodies: readonly Body[], options?: MessageOptions): Promise<PublishedRange> {
    checkSubject(subject);
    check(bodies.length > 0, 'publishMany takes at least one body');
    for (const body of bodies) checkBody(body);
    const { promise, resolve, reject } = Promise.withResolvers<PublishedRange>();
    const { signal } = options ?? {};
    const many = new Many(bodies.length, resolve, reject);
    const extras = this.#extrasOf(options);
    const expected = expectedOf(options);
    let next = 0;
    this.#admit((failure) => {
      if (failure !== null || signal?.aborted === true) {
        many.failed(failure ?? signal?.reason);
        return true;
      }
      if (expected >= 0) next = this.#appendAlone(subject, bodies, expected, extras, many);
      else next = this.#appendMany(subject, bodies, next, extras, many);
      return next === bodies.length;
    }, signal);
    return abortable(promise, signal);
  }

  /**
   * Takes the message if there is room. False: nothing was done; wait for `ready`. What becomes of it is told by `flush` and `stats`.
   */
  tryPublish(subject: string, body: Body, options?: Omit<MessageOptions, 'signal'>): boolean {
    const refusal = this.#refusal;
    if (refusal !== null) throw refusal;
    checkSubject(subject);
    checkBody(body);
    if (this.#isFull || this.#waiting.size > 0) return false;
    const bodyLength = bodyLengthOf(body);
    const extras = this.#extrasOf(options);
    const expected = expectedOf(options);
    if (expected >= 0) {
      this.#appendAlone(subject, [body], expected, extras, null);
      return true;
    }
    const recordLength = recordLengthOf(bodyLength, extras);
    const batch = this.#laneOf(subject).append(subject, body, bodyLength, recordLength, extras);
    this.#messages += 1;
    this.#bufferedBytes += sectionBytesOf(recordLength) + (batch.count === 1 ? BATCH_OVERHEAD_BYTES : 0);
    return true;
  }

  /** Resolves when there is room again, in the order of the calls. */
  ready(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#admit((failure) => {
      if (failure !== null) reject(failure);
      else resolve();
      return true;
    }, options.signal);
    return abortable(promise, options.signal);
  }

  /**
   * Resolves when everything that was taken before has its id. Rejects with the first failure, since the last flush, of a message
   * that no other promise stands for.
   */
  async flush(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    if (this.#waiting.size > 0) await abortable(this.#afterWaiting(), signal);
    await abortable(Promise.all(this.#lanes.map((lane) => lane.flush())), signal);
    const failure = this.#untold;
    this.#untold = null;
    if (failure !== null) throw failure;
  }

  #afterWaiting(): Promise<void> {
    return new Promise((resolve, reject) => {
      const work = (failure: ClientError | null): boolean => {
        if (failure === null) resolve();
        else reject(failure);
        return true;
      };
      this.#waiting.push({ work, signal: undefined });
    });
  }

  /**
   * Takes nothing more, waits for what was taken, and closes. With a signal the wait can be cut short: what is left then fails. All calls
   * wait for the same end, so that one which comes later throws nothing away.
   */
  async close(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    this.#closing ??= this.#finish();
    const cut = (): void => this.#cut.abort(signal?.reason);
    if (signal?.aborted === true) cut();
    signal?.addEventListener('abort', cut, { once: true });
    try {
      await this.#closing;
    } finally {
      signal?.removeEventListener('abort', cut);
    }
  }

  async #finish(): Promise<void> {
    const { signal } = this.#cut;
    try {
      // Also when a lane cannot go on: what the others have taken is waited for, and what was lost is told.
      if (this.#waiting.size > 0) await abortable(this.#afterWaiting(), signal).catch(() => signal.throwIfAborted());
      await this.flush({ signal });
    } finally {
      this.#failure ??= closedError('publisher');
      this.#wake();
      await Promise.all(this.#lanes.map((lane) => lane.close()));
      for (const endpoints of this.#endpoints) endpoints.close();
      this.#closed.resolve();
    }
  }

  /** What a call of `close` has told already is not told again. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closing === null) await this.close();
    else await this.closed;
  }

  /** Why nothing is taken any more, or null. */
  get #refusal(): ClientError | null {
    return this.#failure ?? (this.#closing === null ? null : closedError('publisher'));
  }

  get #isFull(): boolean {
    return this.#bufferedBytes >= this.#bufferBytes;
  }

  #appendMany(subject: string, bodies: readonly Body[], from: number, extras: RecordExtras | null, many: Many): number {
    const lane = this.#laneOf(subject);
    let next = from;
    let batch: OutBatch | null = null;
    let count = 0;
    while (next < bodies.length && !this.#isFull) {
      const body = bodies[next] as Body;
      const bodyLength = bodyLengthOf(body);
      const recordLength = recordLengthOf(bodyLength, extras);
      const into = lane.append(subject, body, bodyLength, recordLength, extras);
      if (into !== batch) {
        batch?.track(many.part(count), count);
        batch = into;
        count = 0;
      }
      count += 1;
      next += 1;
      this.#bufferedBytes += sectionBytesOf(recordLength) + (into.count === 1 ? BATCH_OVERHEAD_BYTES : 0);
    }
    batch?.track(many.part(count), count);
    this.#messages += next - from;
    return next;
  }

  #appendAlone(
    subject: string,
    bodies: readonly Body[],
    expectedLastId: number,
    extras: RecordExtras | null,
    many: Many | null,
  ): number {
    const lengths = bodies.map(bodyLengthOf);
    const records = lengths.map((length) => recordLengthOf(length, extras));
    const bytes = records.reduce((sum, length) => sum + sectionBytesOf(length), 0);
    const lane = this.#laneOf(subject);
    const batch = lane.beginAlone(subject, expectedLastId, bytes);
    bodies.forEach((body, index) => {
      batch.append(body, lengths[index] as number, records[index] as number, extras);
    });
    if (many !== null) batch.track(many.part(bodies.length), bodies.length);
    this.#messages += bodies.length;
    this.#bufferedBytes += bytes + BATCH_OVERHEAD_BYTES;
    lane.send(batch);
    return bodies.length;
  }

  /** Runs `work` when its turn comes: calls that find no room wait, and those behind them too, so that order holds. */
  #admit(work: Waiting['work'], signal: AbortSignal | undefined): void {
    const refusal = this.#refusal;
    if (refusal !== null) {
      work(refusal);
    } else if (this.#waiting.size === 0 && !this.#isFull && work(null)) {
      return;
    } else if (this.#waiting.size >= this.#waitersMax && !this.#dropAborted()) {
      work(fullError());
    } else {
      this.#waiting.push({ work, signal });
    }
  }

  /** Nobody waits for these any more; true if there were any. A walk over all, so not for each call that finds no place. */
  #dropAborted(): boolean {
    const now = performance.now();
    if (now - this.#droppedAt < ABORTED_LOOK_MS) return false;
    this.#droppedAt = now;
    const all = this.#waiting.drain();
    for (const waiting of all) if (waiting.signal?.aborted !== true) this.#waiting.push(waiting);
    return this.#waiting.size < all.length;
  }

  #wake(): void {
    while (this.#failure !== null || !this.#isFull) {
      const first = this.#waiting.peek();
      if (first === undefined || !first.work(this.#failure)) return;
      this.#waiting.shift();
    }
  }

  #laneOf(subject: string): PublishLane {
    const lanes = this.#lanes;
    return (lanes.length === 1 ? lanes[0] : lanes[hash(subject) % lanes.length]) as PublishLane;
  }

  #onStored(batch: OutBatch, firstId: number): void {
    this.#bufferedBytes -= batch.bytes + BATCH_OVERHEAD_BYTES;
    this.#stored += batch.count;
    batch.stored(firstId);
    this.#wake();
  }

  #onFailed(batch: OutBatch, error: ClientError): void {
    this.#bufferedBytes -= batch.bytes + BATCH_OVERHEAD_BYTES;
    this.#failed += batch.count;
    if (batch.untracked > 0) this.#untold ??= error;
    batch.failed(error);
    this.#wake();
  }

  /** One lane cannot go on: the publisher as a whole is done for, since its user chose no lane. */
  #break(error: ClientError): void {
    this.#failure ??= error;
    this.#wake();
  }

  #sum(of: (lane: PublishLane) => number): number {
    return this.#lanes.reduce((sum, lane) => sum + of(lane), 0);
  }
}

/** Gathers the ids of a list of messages that may be spread over several batches. */
class Many {
  readonly #resolve: (range: PublishedRange) => void;
  readonly #reject: (error: unknown) => void;
  readonly #ranges: { firstId: number; lastId: number }[] = [];
  #left: number;

  constructor(count: number, resolve: (range: PublishedRange) => void, reject: (error: unknown) => void) {
    this.#left = count;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** The next `count` messages, which are in one batch. */
  part(count: number): Waiter {
    return {
      stored: (firstId) => this.#stored(firstId, count),
      failed: (error) => this.failed(error),
    };
  }

  failed(error: unknown): void {
    this.#reject(error);
  }

  /** Batches of a subject are stored in their order, but for those that were refused: a list with a failure is rejected anyway. */
  #stored(firstId: number, count: number): void {
    const last = this.#ranges.at(-1);
    if (last !== undefined && last.lastId + 1 === firstId) last.lastId += count;
    else this.#ranges.push({ firstId, lastId: firstId + count - 1 });
    this.#left -= count;
    if (this.#left > 0) return;
    const ranges = this.#ranges;
    this.#resolve({
      firstId: (ranges[0] as { firstId: number }).firstId,
      lastId: (ranges.at(-1) as { lastId: number }).lastId,
      ranges,
    });
  }
}

/** A batch has room for the longest subject that a broker takes; what else is wrong with one the broker says. */
function checkSubject(subject: string): void {
  if (typeof subject !== 'string') throw new TypeError('a subject is text');
  // A UTF-16 unit takes at most three bytes: nearly all subjects need not be measured.
  if (subject.length * 3 <= SUBJECT_BYTES_MAX) return;
  if (Buffer.byteLength(subject) > SUBJECT_BYTES_MAX) throw refusedError('SUBJECT_TOO_LONG');
}

function extrasOf(options: MessageOptions | undefined): RecordExtras | null {
  if (options === undefined) return null;
  const { headers, expirationSeconds = 0 } = options;
  if (headers === undefined && expirationSeconds === 0) return null;
  check(
    Number.isInteger(expirationSeconds) && expirationSeconds >= 0 && expirationSeconds < 2 ** 31,
    'expirationSeconds: whole seconds, 0 to 2^31-1',
  );
  return { headers: listHeaders(headers), expirationSeconds };
}

/** -1: whatever the last id is. */
function expectedOf(options: MessageOptions | undefined): number {
  const expected = options?.expectedLastId;
  if (expected === undefined) return -1;
  check(Number.isSafeInteger(expected) && expected >= 0, 'expectedLastId: an id, or 0 for a subject that has none yet');
  return expected;
}

function check(holds: boolean, rule: string): void {
  if (!holds) throw new RangeError(rule);
}

function fullError(): UsageError {
  return new UsageError('the buffer of the publisher is full and waitersMax calls wait for room', {
    code: status.RESOURCE_EXHAUSTED,
    reason: null,
    outcome: 'none',
    retryAfterMs: 50,
  });
}

function randomName(): string {
  return randomBytes(12).toString('base64url');
}

/** FNV-1a over UTF-16 units: spreads subjects, and is part of no agreement with anyone. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x0100_0193);
  return value >>> 0;
}

/** One channel of a publisher: gathers batches, and keeps a PublishStream going for them. Batches of a subject always take the same lane. */
import {
  type ClientDuplexStream,
  type Client as GrpcClient,
  type Metadata,
  type StatusObject,
  status,
} from '@grpc/grpc-js';
import { Outcome, PublishStreamRequest, PublishStreamResponse } from '../grpc/gen/broker/v1/producer.ts';
import type { ChunkPool } from './chunk-pool.ts';
import type { Endpoints } from './endpoints.ts';
import { ClientError, closedError, errorOf, protocolError } from './errors.ts';
import type { Body } from './message.ts';
import { OutBatch, type RecordExtras, sectionBytesOf } from './out-batch.ts';
import { isPassing } from './positions.ts';
import { ProducerSession, type SessionPort } from './producer-session.ts';
import { type BackoffOptions, type RetryBudget, retryDelayMs } from './retry.ts';
import { sleep } from './wait.ts';

export interface LaneOptions {
  /** '' = not idempotent. */
  readonly producerId: string;
  /** The id was given by the user, so that another may not take its place. */
  readonly isFixedId: boolean;
  readonly lingerMs: number;
  readonly batchBytes: number;
  readonly batchMessages: number;
  readonly deliveryTimeoutMs: number;
  readonly budget: RetryBudget;
  readonly backoff: BackoffOptions;
  readonly random: () => number;
  readonly newProducerId: () => string;
  readonly pool: ChunkPool;
  /** ms, monotonic */
  readonly now: () => number;
}

export interface LanePort extends SessionPort<OutBatch> {
  /** The lane cannot go on. Told before everything that it has fails with the error: whoever waits for the room of that is given none here. */
  onBroken(error: ClientError): void;
}

type Call = ClientDuplexStream<Buffer, Buffer>;

const PATH = '/broker.v1.Producer/PublishStream';
const raw = (bytes: Buffer): Buffer => bytes;
/** Batches share a frame up to this size: each frame costs the broker a turn. */
const FRAME_BYTES = 64 * 1024;
/** Longest connection attempt before it is reported to nobody and begun anew, in ms. */
const CONNECT_TIMEOUT_MS = 30_000;
/** How often batches are looked at for their age, in ms. */
const EXPIRY_CHECK_MS = 500;
/** First guess of a batch's size. */
const BATCH_BYTES_GUESS = 2 * 1024;

export class PublishLane implements SessionPort<OutBatch> {
  readonly #options: LaneOptions;
  readonly #port: LanePort;
  readonly #endpoints: Endpoints;
  readonly #session: ProducerSession<OutBatch>;
  /** Batches that still take messages, the oldest first. */
  readonly #gathering = new Map<string, OutBatch>();
  readonly #unsettled = new Set<OutBatch>();
  readonly #closing = new AbortController();
  readonly #ended: Promise<void>;
  #producerId: string;
  /** Of a batch's records; the broker may allow less than was asked for. */
  #batchBytes: number;
  #batchMessages: number;
  #call: Call | null = null;
  /** Of the last call. */
  #metadata: Metadata | null = null;
  /** The broker has answered the open, and the stream takes more. */
  #isWritable = false;
  /** Something, since the stream was opened: it is a good one. */
  #hasStored = false;
  #isFailed: ClientError | null = null;
  #soon: NodeJS.Immediate | null = null;
  #timer: NodeJS.Timeout | null = null;
  #timerAt = Number.POSITIVE_INFINITY;
  batchesSent = 0;
  streams = 0;

  constructor(endpoints: Endpoints, options: LaneOptions, port: LanePort) {
    this.#endpoints = endpoints;
    this.#options = options;
    this.#port = port;
    this.#producerId = options.producerId;
    this.#batchBytes = options.batchBytes;
    this.#batchMessages = options.batchMessages;
    this.#session = new ProducerSession<OutBatch>({ ...options, isIdempotent: options.producerId !== '' }, this);
    this.#ended = this.#run();
  }

  get inFlight(): number {
    return this.#session.inFlight;
  }

  get failure(): ClientError | null {
    return this.#isFailed;
  }

  /** Takes a message into the subject's batch; that batch. */
  append(subject: string, body: Body, bodyLength: number, recordLength: number, extras: RecordExtras | null): OutBatch {
    let batch = this.#gathering.get(subject);
    const size = sectionBytesOf(recordLength);
    if (batch !== undefined && batch.bytes + size > this.#batchBytes) {
      this.#seal(batch);
      batch = undefined;
    }
    if (batch === undefined) {
      batch = this.#begin(subject, -1, size);
      this.#gathering.set(subject, batch);
      this.#schedule();
    }
    batch.append(body, bodyLength, recordLength, extras);
    if (batch.bytes >= this.#batchBytes || batch.count >= this.#batchMessages) this.#seal(batch);
    return batch;
  }

  /** A batch that goes by itself, since it insists on the subject's last id. The caller fills it and hands it to `send`. */
  beginAlone(subject: string, expectedLastId: number, bytes: number): OutBatch {
    const before = this.#gathering.get(subject);
    if (before !== undefined) this.#seal(before);
    return this.#begin(subject, expectedLastId, bytes);
  }

  send(batch: OutBatch): void {
    this.#session.add(batch);
    this.#schedule();
  }

  /** Resolves when everything that was appended before has come to an end. */
  async flush(): Promise<void> {
    for (const batch of [...this.#gathering.values()]) this.#seal(batch);
    await Promise.all([...this.#unsettled].map((batch) => new Promise<void>((resolve) => batch.onSettled(resolve))));
  }

  /** Ends the stream; whatever has no result fails. */
  async close(): Promise<void> {
    if (!this.#closing.signal.aborted) {
      this.#closing.abort();
      this.#call?.cancel();
      if (this.#isFailed === null) this.#failAll(closedError('publisher'));
    }
    await this.#ended;
  }

  // What the session says.

  stored(batch: OutBatch, firstId: number): void {
    this.#hasStored = true;
    this.#unsettled.delete(batch);
    this.#port.stored(batch, firstId);
  }

  failed(batch: OutBatch, error: ClientError): void {
    this.#unsettled.delete(batch);
    this.#port.failed(batch, error);
  }

  #begin(subject: string, expectedLastId: number, bytes: number): OutBatch {
    const { now, pool } = this.#options;
    const batch = new OutBatch({
      subject,
      madeAt: now(),
      expectedLastId,
      pool,
      bytes: Math.max(bytes, BATCH_BYTES_GUESS),
    });
    this.#unsettled.add(batch);
    return batch;
  }

  #seal(batch: OutBatch): void {
    this.#gathering.delete(batch.subject);
    this.#session.add(batch);
    this.#schedule();
  }

  /** Sends at the end of this turn of the event loop, so that what comes in one turn goes together. */
  #schedule(): void {
    if (this.#soon !== null) return;
    this.#soon = setImmediate(() => {
      this.#soon = null;
      this.#pump();
    });
  }

  /** Sends what may be sent. A batch that is not full waits for more while others are on their way, at most for the linger. */
  #pump(): void {
    if (this.#isFailed !== null) return;
    const now = this.#options.now();
    this.#sealDue(now);
    if (this.#call !== null && this.#isWritable) this.#sendAll(this.#call, now);
    this.#arm(now);
  }

  #sealDue(now: number): void {
    const isIdle = this.#session.inFlight === 0 && this.#session.size === 0;
    for (const batch of this.#gathering.values()) {
      if (!isIdle && batch.madeAt + this.#lingerMs > now) break;
      this.#gathering.delete(batch.subject);
      this.#session.add(batch);
    }
  }

  #sendAll(call: Call, now: number): void {
    let parts: Buffer[] = [];
    let bytes = 0;
    const flush = (): void => {
      if (parts.length === 0) return;
      this.#isWritable = call.write(parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts, bytes));
      parts = [];
      bytes = 0;
    };
    while (this.#isWritable) {
      const batch = this.#session.next(now);
      if (batch === null) break;
      const part = batch.encode();
      if (bytes + part.length > FRAME_BYTES) flush();
      parts.push(part);
      bytes += part.length;
      this.batchesSent += 1;
    }
    flush();
  }

  /** What cannot be sent gathers on, until it has to be looked at for its age. */
  get #lingerMs(): number {
    const { lingerMs, deliveryTimeoutMs } = this.#options;
    return this.#isWritable ? lingerMs : Math.max(lingerMs, Math.min(EXPIRY_CHECK_MS, deliveryTimeoutMs));
  }

  #arm(now: number): void {
    const [oldest] = this.#gathering.values();
    // Of a stream that takes nothing now, it is looked at again when that has drained.
    let at = this.#isWritable ? this.#session.retryAt : Number.POSITIVE_INFINITY;
    if (oldest !== undefined) at = Math.min(at, oldest.madeAt + this.#lingerMs);
    if (this.#session.size > 0) at = Math.min(at, now + EXPIRY_CHECK_MS);
    // A timer that comes too early only looks and sets the next one.
    if (at >= this.#timerAt) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => this.#onTimer(), Math.max(0, at - now));
  }

  #onTimer(): void {
    this.#timer = null;
    this.#timerAt = Number.POSITIVE_INFINITY;
    this.#session.expire(this.#options.now());
    this.#renewIfNeeded();
    this.#pump();
  }

  #renewIfNeeded(): void {
    if (this.#session.needsNewStream) this.#call?.cancel();
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    let failures = 0;
    while (!signal.aborted && this.#isFailed === null) {
      let retryAfterMs: number | null = null;
      try {
        const client = await this.#endpoints.connect(Date.now() + CONNECT_TIMEOUT_MS, signal);
        // Between the connection and this line it may have been closed: a stream that begins now would be ended by nobody.
        signal.throwIfAborted();
        const end = await this.#stream(client);
        this.#call = null;
        this.#isWritable = false;
        const isRenewal = this.#session.needsNewStream;
        this.#session.broken();
        if (signal.aborted) return;
        if (this.#hasStored) failures = 0;
        this.#hasStored = false;
        if (!isRenewal) {
          this.#endpoints.avoid(client);
          if (end.code !== status.OK) {
            const failure = errorOf(end);
            if (end.code === status.RESOURCE_EXHAUSTED) retryAfterMs = failure.retryAfterMs;
            this.#judge(failure);
          }
        }
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof ClientError)) throw error;
      }
      if (this.#isFailed !== null) return;
      failures += 1;
      this.#pump();
      const { backoff, random } = this.#options;
      await sleep(retryDelayMs(failures, retryAfterMs, random(), backoff), signal).catch(() => undefined);
    }
  }

  /** Why the stream ended decides whether another one can go on. */
  #judge(error: ClientError): void {
    if (error.reason === 'SEQUENCE_UNKNOWN' && !this.#options.isFixedId) {
      this.#producerId = this.#options.newProducerId();
      this.#session.restart(error);
      return;
    }
    if (this.#endpoints.renewsToken(error, this.#metadata)) return;
    if (!isPassing(error) && error.reason !== 'WINDOW_EXCEEDED') this.#fail(error);
  }

  #fail(error: ClientError): void {
    this.#port.onBroken(error);
    this.#failAll(error);
  }

  #failAll(error: ClientError): void {
    this.#isFailed = error;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#soon !== null) clearImmediate(this.#soon);
    for (const batch of this.#gathering.values()) this.#session.add(batch);
    this.#gathering.clear();
    this.#session.failAll(error);
  }

  /** Resolves with the status that the stream ended with. */
  #stream(client: GrpcClient): Promise<StatusObject> {
    return new Promise((resolve) => {
      this.#metadata = this.#endpoints.metadata();
      const call = client.makeBidiStreamRequest(PATH, raw, raw, this.#metadata);
      this.#call = call;
      let isOpened = false;
      call.on('data', (frame: Buffer) => {
        if (this.#call === call && this.#isFailed === null) isOpened = this.#onFrame(call, frame) || isOpened;
      });
      call.on('drain', () => {
        if (this.#call !== call || !isOpened) return;
        this.#isWritable = true;
        this.#pump();
      });
      // The same failure comes as `status`; unheard it would be thrown.
      call.on('error', () => undefined);
      call.on('status', resolve);
      const open = { producerId: this.#producerId, firstSequence: this.#session.firstSequence };
      call.write(Buffer.from(PublishStreamRequest.encode({ open, batches: [] }).finish()));
    });
  }

  /** True if the frame has opened the stream. */
  #onFrame(call: Call, frame: Buffer): boolean {
    const response = decode(frame);
    if (response instanceof Error) {
      this.#disagree(call, 'the broker sent a malformed message', { cause: response });
      return false;
    }
    const { opened, results, window } = response;
    const now = this.#options.now();
    if (opened !== undefined) {
      this.#batchBytes = Math.min(this.#options.batchBytes, opened.batchBytesMax);
      this.#batchMessages = Math.min(this.#options.batchMessages, opened.batchMessagesMax);
      const limits = { bytesMax: opened.batchBytesMax, countMax: opened.batchMessagesMax };
      this.#session.opened(opened.batchesInFlightMax, opened.lastSequence, limits);
      this.#isWritable = true;
      this.streams += 1;
    }
    for (const { sequence, firstId, error } of results) {
      const isKnown =
        error === undefined
          ? this.#session.stored(sequence, firstId)
          : this.#session.refused(sequence, { ...error, isUnknown: error.outcome === Outcome.OUTCOME_UNKNOWN }, now);
      if (!isKnown) {
        this.#disagree(call, `the broker answered batch ${sequence}, which is not on its way`);
        return false;
      }
    }
    if (window !== undefined) this.#session.widen(window.bytesLimit, window.messagesLimit);
    this.#renewIfNeeded();
    this.#pump();
    return opened !== undefined;
  }

  #disagree(call: Call, message: string, options?: ErrorOptions): void {
    call.cancel();
    this.#fail(protocolError(message, options));
  }
}

function decode(frame: Buffer): PublishStreamResponse | Error {
  try {
    return PublishStreamResponse.decode(frame);
  } catch (error) {
    if (error instanceof Error) return error;
    throw error;
  }
}

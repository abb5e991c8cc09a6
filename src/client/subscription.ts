/** A subscription over all its streams: it goes on where it stood when one breaks, and gives each message once, in the order of the ids. */
import { type Client as GrpcClient, type Metadata, type StatusObject, status } from '@grpc/grpc-js';
import type { Position } from '../grpc/gen/broker/v1/consumer.ts';
import { ConsumeStream } from './consume-stream.ts';
import { DeliveryQueue } from './delivery-queue.ts';
import type { Endpoints } from './endpoints.ts';
import { ClientError, errorOf } from './errors.ts';
import type { Message, MessageBatch } from './message.ts';
import { isPassing, isPattern, Positions } from './positions.ts';
import { BACKOFF, retryDelayMs } from './retry.ts';
import { checkSubscription, type SubscribeOptions } from './subscribe-options.ts';
import { SubscribeStream } from './subscribe-stream.ts';
import { sleep } from './wait.ts';

export interface SubjectPosition {
  readonly subject: string;
  /** The lowest id that may come next. */
  readonly nextId: number;
  /** Last id given, as the broker said lately. */
  readonly head: number;
  /** Up to here every id is a message or a void, as the broker said lately. */
  readonly settled: number;
}

const CREDIT_BYTES = 4 * 1024 * 1024;
const CREDIT_MESSAGES = 100_000;
const CONNECT_TIMEOUT_MS = 30_000;

type Stream = ConsumeStream | SubscribeStream;

export class Subscription implements AsyncIterable<Message> {
  readonly #endpoints: Endpoints;
  readonly #subjects: readonly string[];
  readonly #options: SubscribeOptions;
  readonly #positions: Positions;
  readonly #queue: DeliveryQueue;
  readonly #credit: { readonly bytes: number; readonly messages: number };
  readonly #closing = new AbortController();
  readonly #started = Promise.withResolvers<void>();
  readonly #closed: Promise<void>;
  readonly #heads = new Map<string, Position>();
  readonly #headOf: (subject: string, signal: AbortSignal) => Promise<number>;
  #isStarted = false;
  /** The present stream: it is a good one, also if nothing is published. */
  #hasStarted = false;
  #isPlain: boolean;
  /** Of the last stream. */
  #metadata: Metadata | null = null;
  #stream: Stream | null = null;
  #streams = 0;
  #room: (() => void) | null = null;

  /** Made by `Client.subscribe`. */
  constructor(
    endpoints: Endpoints,
    subjects: readonly string[],
    options: SubscribeOptions,
    headOf: (subject: string, signal: AbortSignal) => Promise<number>,
  ) {
    checkSubscription(subjects, options);
    this.#endpoints = endpoints;
    this.#subjects = subjects;
    this.#options = options;
    this.#headOf = headOf;
    this.#isPlain = options.broadcasts ?? false;
    this.#positions = new Positions(subjects, options.start ?? 'new');
    this.#credit = {
      bytes: options.credit?.bytes ?? CREDIT_BYTES,
      messages: options.credit?.messages ?? CREDIT_MESSAGES,
    };
    this.#queue = new DeliveryQueue((bytes, messages) => this.#onTaken(bytes, messages));
    this.#started.promise.catch(() => undefined);
    const onAbort = (): void => this.#closing.abort();
    options.signal?.addEventListener('abort', onAbort, { once: true });
    if (options.signal?.aborted === true) onAbort();
    const stop = (): void => {
      this.#queue.clear();
      this.#queue.end(null);
      this.#stream?.cancel();
    };
    this.#closing.signal.addEventListener('abort', stop, { once: true });
    this.#closed = this.#run().finally(() => options.signal?.removeEventListener('abort', onAbort));
  }

  /** Resolves when every start is fixed: what is published from then on will come. Rejects if it ends before. */
  get started(): Promise<void> {
    return this.#started.promise;
  }

  /** Resolves when the subscription has ended, whichever way. */
  get closed(): Promise<void> {
    return this.#closed;
  }

  /** Streams that were opened: those beyond the first are reconnections. */
  get streams(): number {
    return this.#streams;
  }

  /** Where each subject stands of which something has come, or the broker has spoken. */
  get positions(): SubjectPosition[] {
    return [...this.#positions.entries()].map(([subject, nextId]) => {
      const said = this.#heads.get(subject);
      const seen = nextId - 1;
      return {
        subject,
        nextId,
        head: Math.max(seen, said?.head ?? 0),
        settled: Math.max(seen, said?.settled ?? 0),
      };
    });
  }

  /** Message by message. Leaving the loop closes the subscription. */
  [Symbol.asyncIterator](): AsyncIterator<Message, undefined> {
    const { signal } = this.#closing;
    let current: Iterator<Message> | null = null;
    const advance = async (): Promise<IteratorResult<Message, undefined>> => {
      for (;;) {
        const batch = signal.aborted ? null : await this.#queue.next();
        if (batch === null || signal.aborted) return { done: true, value: undefined };
        current = batch[Symbol.iterator]();
        const first = current.next();
        if (first.done !== true) return first;
      }
    };
    return {
      next: () => {
        // What is left of a batch is not wanted any more either.
        const result = signal.aborted ? undefined : current?.next();
        return result === undefined || result.done === true ? advance() : Promise.resolve(result);
      },
      return: async () => {
        await this.close();
        return { done: true, value: undefined };
      },
    };
  }

  /** Batch by batch, as they were published: cheaper for those who take many. Leaving the loop closes the subscription. */
  async *batches(): AsyncGenerator<MessageBatch, undefined> {
    const { signal } = this.#closing;
    try {
      while (!signal.aborted) {
        const batch = await this.#queue.next();
        if (batch === null || signal.aborted) return;
        yield batch;
      }
    } finally {
      await this.close();
    }
  }

  /** Ends the iteration at once, as the signal does; resolves when the stream has ended too. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    let failures = 0;
    let error: unknown = null;
    while (!signal.aborted) {
      let retryAfterMs: number | null = null;
      try {
        const before = this.#positions.taken;
        this.#hasStarted = false;
        const client = await this.#endpoints.connect(Date.now() + CONNECT_TIMEOUT_MS, signal);
        // Between the connection and this line it may have been closed: a stream that begins now would be ended by nobody.
        signal.throwIfAborted();
        const end = await this.#follow(client, signal);
        this.#stream = null;
        if (signal.aborted) break;
        if (this.#hasStarted || this.#positions.taken > before) failures = 0;
        const failure = errorOf(end);
        if (this.#fallsBack(failure)) continue;
        // A limit says when it has room again: to ask sooner is to be refused again.
        if (end.code === status.RESOURCE_EXHAUSTED) retryAfterMs = failure.retryAfterMs;
        if (end.code !== status.OK) this.#endpoints.avoid(client);
        if (end.code !== status.OK && !this.#goesOn(failure)) {
          error = failure;
          break;
        }
      } catch (thrown) {
        if (signal.aborted) break;
        if (
          !(thrown instanceof ClientError) ||
          !this.#goesOn(thrown) ||
          !(this.#isStarted || !this.#endpoints.failsFast)
        ) {
          error = thrown;
          break;
        }
      }
      failures += 1;
      await sleep(retryDelayMs(failures, retryAfterMs, Math.random(), BACKOFF), signal).catch(() => undefined);
    }
    this.#queue.end(error);
    this.#started.reject(error ?? new DOMException('the subscription was closed', 'AbortError'));
  }

  #goesOn(error: ClientError): boolean {
    if (this.#endpoints.renewsToken(error, this.#metadata)) return true;
    if (error.reason !== 'RESUME_TOKEN_INVALID') return isPassing(error);
    return this.#positions.dropToken();
  }

  /** A broker from before Consume can serve a single subject all the same. */
  #fallsBack(error: ClientError): boolean {
    const isSingle = this.#subjects.length === 1 && !isPattern(this.#subjects[0] as string);
    if (error.code !== status.UNIMPLEMENTED || error.reason !== null || this.#isPlain || !isSingle) return false;
    this.#isPlain = true;
    return true;
  }

  async #follow(client: GrpcClient, signal: AbortSignal): Promise<StatusObject> {
    if (this.#isPlain) return await this.#followPlain(client, signal);
    this.#metadata = this.#endpoints.metadata();
    const stream = new ConsumeStream(client, {
      metadata: this.#metadata,
      positions: this.#positions,
      credit: this.#creditLeft,
      heartbeatMs: this.#options.heartbeatMs ?? 1_000,
      listener: {
        onBatch: (batch, bytes, messages) => {
          if (batch === null) stream.taken(bytes, messages);
          else this.#queue.push(batch, bytes, messages);
        },
        onPositions: (positions) => {
          for (const position of positions) this.#heads.set(position.subject, position);
        },
        onStarted: () => this.#onStarted(),
      },
    });
    this.#stream = stream;
    this.#streams += 1;
    return await stream.ended;
  }

  /** What waits for the reader was granted on an earlier stream. */
  get #creditLeft(): { bytes: number; messages: number } {
    return {
      bytes: Math.max(1, this.#credit.bytes - this.#queue.bytes),
      messages: Math.max(1, this.#credit.messages - this.#queue.messages),
    };
  }

  async #followPlain(client: GrpcClient, signal: AbortSignal): Promise<StatusObject> {
    const subject = this.#subjects[0] as string;
    // The plain service does not say where `new` is: with the head asked for first, a stream that breaks at once can go on.
    const start = this.#options.start ?? 'new';
    if (start === 'new' && this.#positions.nextId(subject) === undefined) {
      this.#positions.began(subject, (await this.#headOf(subject, signal)) + 1);
    }
    // A stream that nobody reads would be ended by the broker, and opened again, for ever.
    while (this.#isFull && !signal.aborted) await this.#whenRoom();
    signal.throwIfAborted();
    const next = this.#positions.nextId(subject);
    this.#metadata = this.#endpoints.metadata();
    const stream = new SubscribeStream(client, {
      subject,
      start: next === undefined ? start : { id: next },
      metadata: this.#metadata,
      positions: this.#positions,
      onBatch: (batch, bytes) => {
        this.#queue.push(batch, bytes, 1);
        if (this.#isFull) stream.pause();
      },
      onStarted: () => this.#onStarted(),
    });
    this.#stream = stream;
    this.#streams += 1;
    return await stream.ended;
  }

  get #isFull(): boolean {
    return this.#queue.bytes >= this.#credit.bytes || this.#queue.messages >= this.#credit.messages;
  }

  #whenRoom(): Promise<void> {
    return new Promise((resolve) => {
      this.#room = resolve;
      this.#closing.signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  #onTaken(bytes: number, messages: number): void {
    const stream = this.#stream;
    if (stream instanceof ConsumeStream) stream.taken(bytes, messages);
    else if (!this.#isFull) {
      stream?.resume();
      this.#room?.();
    }
  }

  #onStarted(): void {
    this.#isStarted = true;
    this.#hasStarted = true;
    this.#started.resolve();
  }
}

import type { ServerDuplexStream } from '@grpc/grpc-js';
import { type Caller, Verb } from '../../access/caller.ts';
import { defined } from '../../base/assert.ts';
import type { Reason } from '../../base/errors.ts';
import { SUBJECT_BYTES_MAX, subjectFault, subjectHash } from '../../base/subject.ts';
import type { CallTrace } from '../../base/trace-context.ts';
import { FrameMemory } from '../../grpc/frame-memory.ts';
import { Durability, type ProducerOpened, PublishStreamResponse } from '../../grpc/gen/broker/v1/producer.ts';
import { BatchErrors, FrameScan } from '../../grpc/producer-codec.ts';
import { QuotaErrors } from '../../grpc/quota-status.ts';
import type { ReceiveBudget } from '../../grpc/receive-budget.ts';
import { ReceivedGarbage } from '../../grpc/received-garbage.ts';
import { makeStatus } from '../../grpc/status.ts';
import { BaseDelay } from '../../publish/base-delay.ts';
import type { WindowLimits } from '../../publish/send-window.ts';
import { LEDGER_SEQUENCES } from '../../publish/sequence-ledger.ts';
import {
  BATCH_MESSAGES_MAX,
  BatchFlag,
  PUBLISH_BATCH_HEADER,
  STREAM_ENDED_BYTES,
  StreamToken,
  ToShard,
  TRACE_BYTES,
} from '../link.ts';
import type { Tracing } from '../tracing/tracing.ts';
import { CallMetrics } from './call-metrics.ts';
import { type Passing, ProducerStream, type ProducerStreamPort } from './producer-stream.ts';
import { Quotas } from './quotas.ts';
import { putTrace } from './request-records.ts';
import type { ShardLink } from './shard-link.ts';

/** A reader of a ring does not ring when it has made room: it is looked for again after this time, in ms. */
const RETRY_MS = 1;

export interface ProducerStreamLimits {
  /** limits.producer_streams */
  readonly producerStreamsMax: number;
  /** Largest records section of a batch, in bytes. */
  readonly sectionBytesMax: number;
  readonly window: WindowLimits;
}

/** What the streams need of the dispatcher. */
export interface ProducerRoutes {
  /** The link to the shard of a hash; null while it is being replaced, or its slot is on its way to another. */
  linkOf(hash: number): ShardLink | null;
  /** Changes when slots change their shard; -1 while some are on their way. */
  readonly slotsEpoch: number;
  /** All links that are there. */
  links(): readonly ShardLink[];
  touched(link: ShardLink): void;
  readonly isBusy: boolean;
  /** There is room for so many bytes within limits.in_flight_bytes. */
  hasRoom(bytes: number): boolean;
  /** Last sequence of a producer, 0 for a new one; rejects with an ErrorStatus. */
  openProducer(producer: Buffer, mayBeNew: boolean): Promise<number>;
  /** Why nothing new is taken, or null. */
  readonly refusing: Reason | null;
}

/** The streams of one producer that have not finished: the newest one, and those that it has replaced and that wait for results. */
interface ProducerEntry {
  streams: ProducerStream[];
  /** Opens that wait until one stream is left. */
  readonly waiting: (() => void)[];
}

const NOTHING = new Uint8Array(0);

/** What counts, and bounds, what streams publish. */
export interface Meters {
  readonly quotas: Quotas | undefined;
  readonly metrics: CallMetrics;
}

/** All publish streams of this node. */
export class ProducerStreams implements ProducerStreamPort {
  /** The database loses acknowledged messages in a power cut, and that was accepted (design section 3, promise 2). */
  isWeak = false;
  /** Null: nothing is traced. */
  tracing: Tracing | null = null;
  readonly scan = new FrameScan();
  readonly errors = new BatchErrors();
  readonly quotaErrors = new QuotaErrors();
  readonly quotas: Quotas;
  readonly received: ProducerStreamPort['received'];
  readonly window: WindowLimits;
  readonly baseDelay = new BaseDelay();
  readonly #limits: ProducerStreamLimits;
  readonly #routes: ProducerRoutes;
  readonly #metrics: CallMetrics;
  /** By number; null = free. */
  readonly #streams: (ProducerStream | null)[] = [];
  readonly #free: number[] = [];
  readonly #byProducer = new Map<string, ProducerEntry>();
  #touchedStreams: ProducerStream[] = [];
  #blockedStreams: ProducerStream[] = [];
  /** Streams that have ended, and the links that have not been told yet: their numbers are not free before. */
  #ending: { readonly number: number; links: ShardLink[]; epoch: number }[] = [];
  #retryTimer: NodeJS.Timeout | null = null;
  #count = 0;
  #bytesInFlight = 0;
  messages = 0;
  batches = 0;
  refused = 0;
  /** Whether the batch that found a full ring last is traced; #hasDrawn: there was one, and nobody has come since. */
  #drawn: CallTrace | null = null;
  #hasDrawn = false;
  readonly #room = Buffer.alloc(SUBJECT_BYTES_MAX);

  constructor(
    limits: ProducerStreamLimits,
    routes: ProducerRoutes,
    budget: ReceiveBudget,
    { quotas = new Quotas(), metrics = new CallMetrics() }: Partial<Meters> = {},
  ) {
    this.#metrics = metrics;
    this.received = { memory: new FrameMemory(), garbage: new ReceivedGarbage(), budget };
    this.#limits = limits;
    this.#routes = routes;
    this.window = limits.window;
    this.quotas = quotas;
    quotas.onChanged = () => {
      for (const stream of [...this.#streams]) stream?.retell();
    };
  }

  get count(): number {
    return this.#count;
  }

  get bytesInFlight(): number {
    return this.#bytesInFlight;
  }

  /** What all streams together may have in flight; a walk over them, for scrapes. */
  get windowBytes(): number {
    return this.#streams.reduce((sum, stream) => sum + (stream?.window.size ?? 0), 0);
  }

  /** Streams wait for room on a ring, whose reader does not ring when it has made some. */
  get isBlocked(): boolean {
    return this.#blockedStreams.length > 0 || this.#ending.length > 0;
  }

  /** Nothing that was taken waits for its result. */
  get isIdle(): boolean {
    return this.#streams.every((stream) => stream === null || stream.inFlight === 0);
  }

  /** Those that are open; for a look at them. */
  *streams(): Generator<ProducerStream> {
    for (const stream of this.#streams) if (stream !== null) yield stream;
  }

  accept(call: ServerDuplexStream<Buffer, Buffer>, caller: Caller): Reason | null {
    const isFull = this.#count >= this.#limits.producerStreamsMax;
    const refusal = this.#routes.refusing ?? (isFull ? 'STREAMS_FULL' : null);
    if (refusal !== null) {
      call.emit('error', makeStatus(refusal, ''));
      return refusal;
    }
    const number = this.#free.pop() ?? this.#streams.length;
    this.#count += 1;
    this.#streams[number] = new ProducerStream(number, call, caller, this);
    return null;
  }

  async open(stream: ProducerStream, producer: Buffer, firstSequence: number): Promise<Uint8Array> {
    let lastSequence = 0;
    if (producer.length > 0) {
      await this.#takeOver(producer.toString('latin1'), stream);
      if (stream.ended) return NOTHING;
      lastSequence = await this.#routes.openProducer(producer, firstSequence === 1);
    }
    const opened: ProducerOpened = {
      lastSequence,
      durability: this.isWeak ? Durability.DURABILITY_REPLICATED : Durability.DURABILITY_DURABLE,
      batchesInFlightMax: LEDGER_SEQUENCES,
      batchBytesMax: this.#limits.sectionBytesMax,
      batchMessagesMax: BATCH_MESSAGES_MAX,
    };
    return PublishStreamResponse.encode({ opened, acknowledged: 0, results: [], window: undefined }).finish();
  }

  pass(stream: ProducerStream, frame: Buffer, isOver: boolean): Passing {
    const { scan } = this;
    const routes = this.#routes;
    const { caller, from } = stream;
    const fault = this.#faultOf(frame) ?? caller.demand(Verb.PUBLISH, frame, scan.subjectStart, scan.subjectEnd, from);
    if (fault !== null) {
      this.#countRefused(fault);
      return fault;
    }
    const { space } = caller;
    const subject = space.length === 0 ? frame : this.#subjectInSpace(frame, space);
    if (subject === null) {
      this.#countRefused('SUBJECT_TOO_LONG');
      return 'SUBJECT_TOO_LONG';
    }
    const subjectStart = subject === frame ? scan.subjectStart : 0;
    const subjectLength = space.length + scan.subjectEnd - scan.subjectStart;
    const hash = subjectHash(subject, subjectStart, subjectStart + subjectLength);
    const link = routes.linkOf(hash);
    const bytes = scan.sectionEnd - scan.sectionStart;
    if (link === null || routes.refusing !== null || !routes.hasRoom(bytes)) return 'full';
    const { payload } = link;
    // Of a batch that is refused nothing is copied.
    const sectionEnd = isOver ? scan.sectionStart : scan.sectionEnd;
    const length = PUBLISH_BATCH_HEADER + subjectLength + stream.producer.length + sectionEnd - scan.sectionStart;
    const mayTrace = !isOver && length + TRACE_BYTES <= payload.recordBytesMax;
    const trace = mayTrace && this.tracing !== null ? this.#drawTrace(this.tracing) : null;
    const at = payload.claim(ToShard.PUBLISH_BATCH, trace === null ? length : length + TRACE_BYTES);
    if (at < 0) {
      this.#drawn = trace;
      this.#hasDrawn = mayTrace;
      return 'full';
    }
    const now = performance.now();
    const { view } = payload;
    view.setFloat64(at, now, true);
    view.setFloat64(at + 8, scan.sequence, true);
    view.setFloat64(at + 16, scan.expectedHead, true);
    view.setUint32(at + 24, StreamToken.make(stream.number, scan.sequence), true);
    view.setUint32(at + 28, hash, true);
    view.setUint8(at + 32, subjectLength);
    view.setUint8(at + 33, stream.producer.length);
    view.setUint8(at + 34, routes.isBusy ? 1 : 0);
    view.setUint8(at + 35, (isOver ? BatchFlag.OVER_QUOTA : 0) | (trace === null ? 0 : BatchFlag.TRACED));
    const target = payload.buffer;
    let to = at + PUBLISH_BATCH_HEADER;
    if (trace !== null) {
      putTrace(view, target, to, trace);
      to += TRACE_BYTES;
    }
    to += subject.copy(target, to, subjectStart, subjectStart + subjectLength);
    if (stream.producer.length > 0) to += stream.producer.copy(target, to);
    frame.copy(target, to, scan.sectionStart, sectionEnd);
    payload.commit();
    stream.ledger?.take(scan.sequence, link.shard, bytes, scan.count, now);
    this.#bytesInFlight += bytes;
    if (!isOver) {
      this.batches += 1;
      this.messages += scan.count;
    }
    routes.touched(link);
    return 'passed';
  }

  touched(stream: ProducerStream): void {
    if (stream.isTouched) return;
    stream.isTouched = true;
    this.#touchedStreams.push(stream);
    if (this.#touchedStreams.length === 1) queueMicrotask(this.#flush);
  }

  blocked(stream: ProducerStream): void {
    this.#blockedStreams.push(stream);
    this.#retrySoon();
  }

  settled(bytes: number): void {
    this.#bytesInFlight -= bytes;
  }

  answeredAfter(ms: number): void {
    this.#metrics.batches.observe(ms * 1_000);
  }

  finished(stream: ProducerStream): void {
    this.#count -= 1;
    this.#leave(stream);
    if (!stream.hadFailures) {
      this.#release(stream.number);
      return;
    }
    this.#ending.push({ number: stream.number, links: [], epoch: -1 });
    this.#tellEnded();
  }

  // --- answers of the shards ---

  stored(token: number, firstId: number): void {
    this.#streamOf(token).stored(StreamToken.sequence(token), firstId);
  }

  refuse(token: number, reason: Reason): void {
    this.#countRefused(reason);
    this.#streamOf(token).refused(StreamToken.sequence(token), reason);
  }

  shardDied(shard: number): void {
    this.shardRetired(shard);
    for (const stream of [...this.#streams]) stream?.shardDied(shard);
  }

  /** It owned no slot any more: what it remembered of refused batches has gone along with its slots, and nothing of a stream is lost. */
  shardRetired(shard: number): void {
    for (const ending of this.#ending) ending.links = ending.links.filter((link) => link.shard !== shard);
  }

  /** Tries again what found no room; called in every round of work. */
  retry(): void {
    if (this.#ending.length > 0) this.#tellEnded();
    if (this.#blockedStreams.length === 0) return;
    const streams = this.#blockedStreams;
    this.#blockedStreams = [];
    for (const stream of streams) stream.retry();
  }

  endAll(reason: Reason): void {
    for (const stream of [...this.#streams]) stream?.end(reason);
  }

  readonly #flush = (): void => {
    const streams = this.#touchedStreams;
    this.#touchedStreams = [];
    for (const stream of streams) stream.flush();
  };

  /**
   * Ends the producer's other streams, and resolves when nothing of them is on its way. Only then is the highest sequence that the log knows the
   * last one: a batch on a ring would get its ids behind the open, in front of or in place of what the next stream sends.
   */
  #takeOver(name: string, stream: ProducerStream): Promise<void> {
    const entry: ProducerEntry = this.#byProducer.get(name) ?? { streams: [], waiting: [] };
    this.#byProducer.set(name, entry);
    const others = [...entry.streams];
    entry.streams.push(stream);
    for (const other of others) other.end('PRODUCER_REPLACED');
    if (entry.streams.length === 1) return Promise.resolve();
    return new Promise((resolve) => entry.waiting.push(resolve));
  }

  #leave(stream: ProducerStream): void {
    const name = stream.producer.toString('latin1');
    const entry = this.#byProducer.get(name);
    if (entry === undefined || !entry.streams.includes(stream)) return;
    entry.streams = entry.streams.filter((other) => other !== stream);
    if (entry.streams.length === 0) this.#byProducer.delete(name);
    if (entry.streams.length > 1) return;
    for (const resolve of entry.waiting.splice(0)) resolve();
  }

  #streamOf(token: number): ProducerStream {
    return defined(this.#streams[StreamToken.stream(token)], 'an answer names a stream that is not there');
  }

  #countRefused(reason: Reason): void {
    this.refused += 1;
    this.#metrics.refusedFor('batch', reason);
  }

  /** The subject of the batch under the scan as it is called inside the broker, from 0 on, until the next one; null: it is too long. */
  #subjectInSpace(frame: Buffer, space: Uint8Array): Buffer | null {
    const { subjectStart, subjectEnd } = this.scan;
    if (space.length + subjectEnd - subjectStart > SUBJECT_BYTES_MAX) return null;
    this.#room.set(space);
    frame.copy(this.#room, space.length, subjectStart, subjectEnd);
    return this.#room;
  }

  /** Why no shard may have the batch under the scan, or null. */
  #faultOf(frame: Buffer): Reason | null {
    const { scan } = this;
    const fault = subjectFault(frame, scan.subjectStart, scan.subjectEnd) ?? scan.fault;
    if (fault !== null) return fault;
    const isLarge =
      scan.sectionEnd - scan.sectionStart > this.#limits.sectionBytesMax || scan.count > BATCH_MESSAGES_MAX;
    return isLarge ? 'BATCH_TOO_LARGE' : null;
  }

  #retrySoon(): void {
    if (this.#retryTimer !== null) return;
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = null;
      this.retry();
      if (this.isBlocked) this.#retrySoon();
    }, RETRY_MS);
  }

  /** Behind the stream's last batch on every ring, so that a shard cannot take a batch of the next stream for one of it. */
  #tellEnded(): void {
    const epoch = this.#routes.slotsEpoch;
    // What a shard remembers of the stream moves with the slots: on its way it would hear of no end, and a shard that was told may get it afterwards.
    if (epoch < 0) {
      this.#retrySoon();
      return;
    }
    for (const ending of this.#ending) {
      if (ending.epoch !== epoch) {
        ending.epoch = epoch;
        ending.links = [...this.#routes.links()];
      }
      ending.links = ending.links.filter((link) => !this.#tell(link, ending.number));
      if (ending.links.length === 0) this.#release(ending.number);
    }
    this.#ending = this.#ending.filter(({ links }) => links.length > 0);
    if (this.#ending.length > 0) this.#retrySoon();
  }

  /** A batch that found the ring full comes again and again: it is drawn for once, or most of those that wait would be traced, or none. */
  #drawTrace(tracing: Tracing): CallTrace | null {
    const trace = this.#hasDrawn ? this.#drawn : tracing.beginRoot();
    this.#hasDrawn = false;
    this.#drawn = null;
    return trace;
  }

  #tell(link: ShardLink, stream: number): boolean {
    const at = link.payload.claim(ToShard.STREAM_ENDED, STREAM_ENDED_BYTES);
    if (at < 0) return false;
    link.payload.view.setUint32(at, stream, true);
    link.payload.commit();
    this.#routes.touched(link);
    return true;
  }

  #release(number: number): void {
    this.#streams[number] = null;
    this.#free.push(number);
  }
}

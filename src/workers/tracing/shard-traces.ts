import { randomBytes } from 'node:crypto';
import { REASON_CODE, type Reason } from '../../base/errors.ts';
import { SUBJECT_BYTES_MAX } from '../../base/subject.ts';
import {
  type CallTrace,
  isSampled,
  isTraceparentKey,
  readTraceparent,
  SPAN_ID_BYTES,
  TRACE_CONTEXT_BYTES,
  TRACEPARENT_KEY_LENGTH,
  TRACEPARENT_LENGTH,
} from '../../base/trace-context.ts';
import type { PublishScan } from '../../grpc/codec.ts';
import type { RingProducer } from '../../shm/ring-producer.ts';
import type { SubjectRef } from '../../storage/store.ts';
import { StreamToken, ToMain, TRACE_BYTES } from '../link.ts';
import { TraceBudget } from './trace-budget.ts';
import {
  type GroupTimes,
  LINKS_MAX,
  type LogTimes,
  NO_TIMES,
  type RowTrace,
  type TraceRecord,
  traceRecordBytes,
  writeTraceRecord,
} from './trace-record.ts';

/** What a shard is told of tracing. */
export interface ShardTraceSettings {
  /** tracing.parent_based */
  readonly isParentBased: boolean;
  /** A TraceBudget. */
  readonly budget: SharedArrayBuffer;
}

/** What is answered: the rows of a batch and where each begins. */
export interface TracedBatch {
  readonly subject: { readonly ref: SubjectRef };
  readonly calls: Uint32Array;
  readonly rows: number;
  readonly base: number;
  readonly traces: readonly RowTrace[] | null;
  readonly times: GroupTimes | null;
  messagesOf(row: number): number;
}

/** A header of a message, `0x0a` key = 1, `0x12` value = 2 */
const KEY_TAG = 0x0a;
const VALUE_TAG = 0x12;
const HEADER_BYTES = 4 + TRACEPARENT_KEY_LENGTH + TRACEPARENT_LENGTH;

/**
 * The traces of one shard: begun for what the main thread has chosen, or for messages that bring a sampled context; ended with a record to the main
 * thread, which makes spans of it. Objects exist for traced rows only.
 */
export class ShardTraces {
  /** There was no room on the ring to tell of it. */
  dropped = 0;
  readonly #shard: number;
  readonly #budget: TraceBudget;
  readonly #isParentBased: boolean;
  readonly #ring: RingProducer;
  readonly #touched: () => void;

  constructor(shard: number, settings: ShardTraceSettings, ring: RingProducer, touched: () => void) {
    this.#shard = shard;
    this.#budget = new TraceBudget(settings.budget);
    this.#isParentBased = settings.isParentBased;
    this.#ring = ring;
    this.#touched = touched;
  }

  /** The trace of a unary publish, or null. `given`: what the main thread says of it. */
  ofPublish(
    call: number,
    enqueuedAt: number,
    given: CallTrace | null,
    bytes: Uint8Array,
    scan: PublishScan,
  ): RowTrace | null {
    if (given === null && (scan.headerCount === 0 || !this.#isParentBased)) return null;
    const found = this.#isParentBased ? contextOf(bytes, scan) : null;
    return this.#begin(call, enqueuedAt, given, found === null ? NONE : [found]);
  }

  /** The same of a batch, whose messages have brought the contexts `found`. */
  ofBatch(token: number, enqueuedAt: number, given: CallTrace | null, found: readonly Uint8Array[]): RowTrace | null {
    if (given === null && found.length === 0) return null;
    return this.#begin(token, enqueuedAt, given, this.#isParentBased ? found : NONE);
  }

  #begin(call: number, enqueuedAt: number, given: CallTrace | null, found: readonly Uint8Array[]): RowTrace | null {
    const sampled = found.filter(isSampled);
    const isRoot = given !== null && isRootContext(given.context);
    // Its sender has decided that it is not traced; this node's own choice comes after that.
    if (sampled.length === 0 && found.length > 0 && (given === null || isRoot)) return null;
    if (given === null && (sampled.length === 0 || !this.#budget.tryTake())) return null;
    const context = given !== null && !isRoot ? given.context : (sampled[0] ?? (given as CallTrace).context);
    const ids = randomBytes(2 * SPAN_ID_BYTES);
    return {
      call,
      context,
      spanId: ids.subarray(0, SPAN_ID_BYTES),
      idsSpanId: ids.subarray(SPAN_ID_BYTES),
      links: distinct(sampled, context).slice(0, LINKS_MAX),
      receivedAt: given?.receivedAt ?? enqueuedAt,
      enqueuedAt,
      takenAt: performance.now(),
      log: null,
    };
  }

  /** It was acknowledged: behind the acknowledgement, and in front of its delivery. */
  stored(batch: TracedBatch): void {
    for (const row of batch.traces ?? NO_ROWS) {
      let base = batch.base;
      for (let i = 0; i < batch.rows; i++) {
        const messages = batch.messagesOf(i);
        if (batch.calls[i] === row.call) this.#tell(row, batch, messages, base, -1);
        base += messages;
      }
    }
  }

  /** None of its rows that are left will be stored. */
  refused(batch: TracedBatch, reasonCode: number): void {
    for (const row of batch.traces ?? NO_ROWS) {
      for (let i = 0; i < batch.rows; i++)
        if (batch.calls[i] === row.call) this.#tell(row, batch, batch.messagesOf(i), 0, reasonCode);
    }
  }

  /** A unary publish that was refused before it was in a batch. The subject's bytes are copied. */
  refusedAtOnce(call: number, enqueuedAt: number, given: CallTrace, subject: SubjectRef, reason: Reason): void {
    const row = this.#begin(call, enqueuedAt, given, NONE);
    if (row === null) return;
    this.#write({ ...this.#recordOf(row, subject, 1), group: NO_TIMES, base: 0, reason: REASON_CODE[reason] });
  }

  #tell(row: RowTrace, batch: TracedBatch, messages: number, base: number, reason: number): void {
    const group = batch.times ?? NO_TIMES;
    this.#write({ ...this.#recordOf(row, batch.subject.ref, messages), group, base, reason });
  }

  #recordOf(row: RowTrace, subject: SubjectRef, messages: number): Omit<TraceRecord, 'group' | 'base' | 'reason'> {
    const isStream = StreamToken.is(row.call);
    const { hash } = subject;
    const bytes = subject.bytes.subarray(0, SUBJECT_BYTES_MAX);
    return { row, shard: this.#shard, answeredAt: performance.now(), messages, isStream, hash, subject: bytes };
  }

  /** On the ring of the runs, in front of those that deliver it. It waits for nothing. */
  #write(record: TraceRecord): void {
    const at = this.#ring.claim(ToMain.TRACE, traceRecordBytes(record));
    if (at < 0) {
      this.dropped += 1;
      return;
    }
    writeTraceRecord(this.#ring.view, this.#ring.bytes, at, record);
    this.#ring.commit();
    this.#touched();
  }
}

const NONE: readonly Uint8Array[] = [];
const NO_ROWS: readonly RowTrace[] = [];

/** `traces` of a batch, with the answer of the Raft thread to its request. */
export function noteLog(traces: readonly RowTrace[] | null, log: LogTimes): void {
  for (const row of traces ?? NO_ROWS) row.log = log;
}

/** What a record of the main thread has of a trace: `length` is 0 or TRACE_BYTES. */
export function readCallTrace(bytes: Uint8Array, view: DataView, at: number, length: number): CallTrace | null {
  if (length !== TRACE_BYTES) return null;
  return { receivedAt: view.getFloat64(at, true), context: bytes.slice(at + 8, at + 8 + TRACE_CONTEXT_BYTES) };
}

/** This node began it: there is no parent. */
function isRootContext(context: Uint8Array): boolean {
  for (let at = TRACE_CONTEXT_BYTES - 1 - SPAN_ID_BYTES; at < TRACE_CONTEXT_BYTES - 1; at++)
    if (context[at] !== 0) return false;
  return true;
}

/** The context of a `traceparent` among the headers, written as every encoder writes it; null: there is none that is sound. */
function contextOf(bytes: Uint8Array, { headers, headerCount }: PublishScan): Uint8Array | null {
  for (let i = 0; i < headerCount * 2; i += 2) {
    const start = headers[i] as number;
    if ((headers[i + 1] as number) - start < HEADER_BYTES || bytes[start] !== KEY_TAG) continue;
    const keyAt = start + 2;
    const keyEnd = keyAt + TRACEPARENT_KEY_LENGTH;
    if (bytes[start + 1] !== TRACEPARENT_KEY_LENGTH || !isTraceparentKey(bytes, keyAt, keyEnd)) continue;
    // A length of one byte: a longer value is no context of this version.
    if (bytes[keyEnd] !== VALUE_TAG) continue;
    return readTraceparent(bytes, keyEnd + 2, bytes[keyEnd + 1] as number);
  }
  return null;
}

/** Without `parent`, and each once. */
function distinct(contexts: readonly Uint8Array[], parent: Uint8Array): readonly Uint8Array[] {
  const key = (context: Uint8Array): string => Buffer.from(context).toString('latin1', 0, TRACE_CONTEXT_BYTES - 1);
  const seen = new Set([key(parent)]);
  return contexts.filter((context) => {
    const isNew = !seen.has(key(context));
    seen.add(key(context));
    return isNew;
  });
}

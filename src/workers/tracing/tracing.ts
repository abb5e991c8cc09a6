import { randomBytes } from 'node:crypto';
import type { ServiceError } from '@grpc/grpc-js';
import type { Attributes } from '@opentelemetry/api';
import { REASON_NAMES } from '../../base/errors.ts';
import { nameOf } from '../../base/subject-space.ts';
import {
  type CallTrace,
  childContext,
  isSampled,
  parseTraceparent,
  SAMPLED,
  SPAN_ID_BYTES,
  spanIdOf,
  TRACE_CONTEXT_BYTES,
  TRACE_ID_BYTES,
  traceIdOf,
} from '../../base/trace-context.ts';
import { VERSION } from '../../base/version.ts';
import type { Config } from '../../config/schema.ts';
import type { CallTracing } from '../../grpc/engine.ts';
import { readDetails } from '../../grpc/error-details.ts';
import type { Log } from '../../telemetry/log.ts';
import { type SpanData, SpanExport, SpanKind, type SpanLink } from '../../telemetry/span-export.ts';
import { DeliveryTraces, type ExpectedDelivery } from './delivery-traces.ts';
import { GapSampler } from './gap-sampler.ts';
import type { ShardTraceSettings } from './shard-traces.ts';
import { TraceBudget } from './trace-budget.ts';
import { type ForeignIds, type LogTimes, readTraceRecord, type TraceRecord } from './trace-record.ts';

/** `tracing.*` of the configuration, turned on. */
export type TracingSettings = Config['tracing'] & { readonly endpoint: string };

/** Finds the groups of subscribers of a subject on this node. */
export interface SubscriberGroups {
  groupsOf(subject: Buffer): readonly number[];
}

const SWEEP_MS = 1_000;
const CLOSE_MS = 2_000;
const SYSTEM = 'broker';

/**
 * Tracing on the main thread: chooses what is traced, and makes spans of what the threads have stamped. What is not traced costs it a look at one header and
 * one subtraction; spans are made when the call is over and nobody waits for them.
 */
export class Tracing implements CallTracing {
  readonly spans: SpanExport;
  readonly budget = new TraceBudget();
  readonly deliveries = new DeliveryTraces((expected, streams) => this.#delivered(expected, streams));
  /** Calls and batches that were traced to their end. */
  traced = 0;
  readonly #isParentBased: boolean;
  readonly #sampler: GapSampler;
  readonly #timers: readonly NodeJS.Timeout[];
  #groups: SubscriberGroups | null = null;
  #node = '';

  constructor(settings: TracingSettings, log: Log) {
    this.#isParentBased = settings.parentBased;
    this.#sampler = new GapSampler(settings.ratio);
    this.spans = new SpanExport({
      endpoint: settings.endpoint,
      headers: headersOf(settings.headers),
      serviceName: settings.serviceName,
      version: VERSION,
      log,
    });
    const sweep = setInterval(() => this.deliveries.sweep(performance.now()), SWEEP_MS).unref();
    this.#timers = [this.budget.fill(settings.tracesPerSecond), sweep];
  }

  get shardSettings(): ShardTraceSettings {
    return { isParentBased: this.#isParentBased, budget: this.budget.buffer };
  }

  /** Before the first call is let in. */
  start(node: string, groups: SubscriberGroups): void {
    this.#node = node;
    this.#groups = groups;
    this.spans.instanceId = node;
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await this.spans.close(CLOSE_MS);
  }

  // --- which ---

  begin(traceparent: string | undefined): CallTrace | null {
    if (traceparent !== undefined && this.#isParentBased) {
      const context = parseTraceparent(traceparent);
      // One that is not sound counts as none (W3C Trace Context, section 4.3).
      if (context !== null)
        return isSampled(context) && this.budget.tryTake() ? { context, receivedAt: performance.now() } : null;
    }
    return this.beginRoot();
  }

  /** For what brings no context: a share of them. */
  beginRoot(): CallTrace | null {
    if (!this.#sampler.take() || !this.budget.tryTake()) return null;
    const context = new Uint8Array(TRACE_CONTEXT_BYTES);
    context.set(randomBytes(TRACE_ID_BYTES));
    context[TRACE_CONTEXT_BYTES - 1] = SAMPLED;
    return { context, receivedAt: performance.now() };
  }

  // --- spans ---

  ended(method: string, subject: Uint8Array | null, trace: CallTrace, error: Partial<ServiceError> | null): void {
    this.traced += 1;
    const name = OPERATIONS[method] ?? method;
    this.#add({
      ...placeOf(trace.context),
      name,
      kind: SpanKind.SERVER,
      spanId: newSpanId(),
      startMs: trace.receivedAt,
      endMs: performance.now(),
      attributes: { ...callAttributes(method, name, subject), ...statusOf(error) },
      links: [],
      error: error === null ? null : (readDetails(error.metadata).reason ?? 'UNKNOWN'),
    });
  }

  /** A ToMain.TRACE record. */
  answered(view: DataView, bytes: Uint8Array, offset: number): void {
    const record = readTraceRecord(view, bytes, offset);
    this.traced += 1;
    const { row, reason, base, messages } = record;
    const now = performance.now();
    const method = record.isStream ? 'PublishStream' : 'Publish';
    const links = row.links.map(linkOf);
    const spanId = hexOf(row.spanId);
    const stored = reason < 0 ? { 'broker.first_id': base, 'broker.last_id': base + messages - 1 } : {};
    this.#add({
      ...placeOf(row.context),
      name: 'publish',
      kind: SpanKind.SERVER,
      spanId,
      startMs: row.receivedAt,
      endMs: now,
      attributes: {
        ...callAttributes(method, 'publish', record.subject),
        'messaging.batch.message_count': messages,
        'broker.shard': record.shard,
        ...stored,
      },
      links,
      error: reason < 0 ? null : (REASON_NAMES[reason] ?? 'UNKNOWN'),
    });
    this.#parts(record, spanId, now);
    if (reason < 0) {
      const own = childContext(row.context, row.spanId);
      const subject = Buffer.from(record.subject);
      this.expectDelivery(subject, own, base, messages, [linkOf(row.context), ...links], '');
    }
  }

  #parts(record: TraceRecord, parentSpanId: string, now: number): void {
    const { row, group, shard, answeredAt } = record;
    const traceId = traceIdOf(row.context);
    const thread = `shard ${shard}`;
    const part = (
      name: string,
      startMs: number,
      endMs: number,
      thread: string,
      id = newSpanId(),
      parent = parentSpanId,
    ): void => {
      if (startMs === 0 || endMs === 0) return;
      const attributes: Attributes = { 'thread.name': thread };
      this.#add({
        name,
        kind: SpanKind.INTERNAL,
        traceId,
        spanId: id,
        parentSpanId: parent,
        startMs,
        endMs,
        attributes,
        links: [],
        error: null,
      });
    };
    part('admission', row.receivedAt, row.enqueuedAt, 'main');
    part('ring', row.enqueuedAt, row.takenAt, thread);
    part('gather', row.takenAt, group.sealedAt, thread);
    const idsSpanId = hexOf(row.idsSpanId);
    part('ids', group.sealedAt, group.idsAt, thread, idsSpanId);
    if (row.log !== null) this.#logSpan(traceId, idsSpanId, row.log);
    part('store', group.storeAt, group.storedAt, thread);
    part('close', group.closeAt, group.closedAt, thread);
    part('acknowledge', answeredAt, now, 'main');
  }

  #logSpan(traceId: string, parentSpanId: string, log: LogTimes): void {
    this.#add({
      name: 'log',
      kind: SpanKind.INTERNAL,
      traceId,
      spanId: newSpanId(),
      parentSpanId,
      startMs: log.receivedAt,
      endMs: log.appliedAt,
      attributes: {
        'thread.name': 'raft',
        'broker.log.wait_ms': Math.max(0, log.submittedAt - log.receivedAt),
        'broker.log.leader': log.isLeader,
      },
      links: [],
      error: null,
    });
  }

  /** This node leads, and gave ids to another one. */
  gaveIds({ context, from, receivedAt, appliedAt }: ForeignIds): void {
    this.#add({
      ...placeOf(context),
      name: 'lead',
      kind: SpanKind.INTERNAL,
      spanId: newSpanId(),
      startMs: receivedAt,
      endMs: appliedAt,
      attributes: { 'thread.name': 'raft', 'broker.peer': from },
      links: [],
      error: null,
    });
  }

  /** A stored batch, this node's or another's (`from`), that subscribers of this node will be sent; of its trace, `context` is the parent. */
  expectDelivery(
    subject: Buffer,
    context: Uint8Array,
    base: number,
    count: number,
    links: readonly SpanLink[],
    from: string,
  ): void {
    const groups = this.#groups?.groupsOf(subject) ?? [];
    for (const group of groups) {
      const since = performance.now();
      this.deliveries.expect(group, {
        context,
        links: links.filter(({ spanId }) => spanId !== ''),
        destination: destinationOf(subject),
        base,
        end: base + count,
        since,
        from,
      });
    }
  }

  #delivered({ context, links, destination, base, end, since, from }: ExpectedDelivery, streams: number): void {
    this.#add({
      ...placeOf(context),
      name: 'deliver',
      kind: SpanKind.PRODUCER,
      spanId: newSpanId(),
      startMs: since,
      endMs: performance.now(),
      attributes: {
        'messaging.system': SYSTEM,
        'messaging.operation.name': 'deliver',
        'messaging.operation.type': 'send',
        ...destination,
        'messaging.batch.message_count': end - base,
        'broker.first_id': base,
        'broker.last_id': end - 1,
        'broker.streams': streams,
        'thread.name': 'main',
        ...(from === '' ? {} : { 'broker.peer': from }),
      },
      links,
      error: null,
    });
  }

  #add(span: SpanData): void {
    const attributes = { ...span.attributes, 'broker.node': this.#node };
    this.spans.add({ ...span, attributes });
  }
}

/** `messaging.operation.name` of the methods of the service. */
const OPERATIONS: Readonly<Record<string, string>> = {
  Publish: 'publish',
  PublishStream: 'open publish stream',
  Subscribe: 'subscribe',
  Consume: 'open consume stream',
  Fetch: 'fetch',
  Broadcast: 'broadcast',
  IncIdx: 'increment',
};

/** Of the messaging conventions: who sends, receives and settles. */
const TYPES: Readonly<Record<string, string>> = { publish: 'send', broadcast: 'send', fetch: 'receive' };

const SERVICES: Readonly<Record<string, string>> = {
  PublishStream: 'broker.v1.Producer',
  Consume: 'broker.v1.Consumer',
};

function callAttributes(method: string, operation: string, subject: Uint8Array | null): Attributes {
  const type = TYPES[operation];
  return {
    'messaging.system': SYSTEM,
    'messaging.operation.name': operation,
    ...(type === undefined ? {} : { 'messaging.operation.type': type }),
    ...(subject === null ? {} : destinationOf(subject)),
    'rpc.system': 'grpc',
    'rpc.service': SERVICES[method] ?? 'broker.Broker',
    'rpc.method': method,
  };
}

/** `subject`: as it is called inside the broker, or by its clients. */
function destinationOf(subject: Uint8Array): Record<string, string> {
  const { tenant, subject: name } = nameOf(subject);
  return { 'messaging.destination.name': name, ...(tenant === '' ? {} : { 'broker.tenant': tenant }) };
}

function statusOf(error: Partial<ServiceError> | null): Attributes {
  return { 'rpc.grpc.status_code': error?.code ?? 0 };
}

function placeOf(context: Uint8Array): { readonly traceId: string; readonly parentSpanId: string } {
  return { traceId: traceIdOf(context), parentSpanId: spanIdOf(context) };
}

function linkOf(context: Uint8Array): SpanLink {
  return { traceId: traceIdOf(context), spanId: spanIdOf(context) };
}

function newSpanId(): string {
  return randomBytes(SPAN_ID_BYTES).toString('hex');
}

function hexOf({ buffer, byteOffset, length }: Uint8Array): string {
  return Buffer.from(buffer as ArrayBuffer, byteOffset, length).toString('hex');
}

/** `name=value` with commas between, as the configuration has checked it. */
function headersOf(text: string | null): Readonly<Record<string, string>> {
  const pairs = (text ?? '').split(',').filter((pair) => pair !== '');
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=');
      return [pair.slice(0, at).trim(), pair.slice(at + 1).trim()];
    }),
  );
}

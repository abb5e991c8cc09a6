import type { Attributes, HrTime, SpanContext } from '@opentelemetry/api';
import type { ReadableSpan } from '@opentelemetry/sdk-trace';
import type { Log } from './log.ts';

/** What OpenTelemetry calls the kinds of spans (SpanKind of its API, which is not loaded for a number). */
export const SpanKind = { INTERNAL: 0, SERVER: 1, PRODUCER: 3 } as const;

export interface SpanLink {
  /** Hex. */
  readonly traceId: string;
  readonly spanId: string;
}

/** A span that has ended. Times in ms of performance.now(). */
export interface SpanData {
  readonly name: string;
  readonly kind: number;
  /** Hex. */
  readonly traceId: string;
  readonly spanId: string;
  /** '' = it is the root of its trace. */
  readonly parentSpanId: string;
  readonly startMs: number;
  readonly endMs: number;
  readonly attributes: Attributes;
  readonly links: readonly SpanLink[];
  /** What it failed with, a reason of the catalogue of errors; null: it did not. */
  readonly error: string | null;
}

export interface SpanExportOptions {
  /** With or without a path. */
  readonly endpoint: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly serviceName: string;
  readonly version: string;
  readonly log: Log;
}

/** The part of an exporter of OpenTelemetry that is used. */
export interface SpanSender {
  export(spans: ReadableSpan[], done: (result: { readonly code: number; readonly error?: Error }) => void): void;
  shutdown(): Promise<void>;
}

/** Spans that wait, at most; what comes then is dropped and counted. */
export const QUEUE_SPANS_MAX = 4_096;
/** Of one request: making it takes the thread that clients are served by, so it is done in small pieces. */
const BATCH_SPANS = 128;
const FLUSH_MS = 1_000;
/** How long a request may take, repeats included. */
const TIMEOUT_MS = 5_000;
/** Between two lines of the log that say that spans are lost. */
const WARN_MS = 30_000;
const SUCCESS = 0;
/** A step of the wall clock that is followed; what is less is how it is read. */
const CLOCK_STEP_MS = 5;

/**
 * Spans on their way to a collector: a bounded queue, one request at a time. Nothing waits for it. OpenTelemetry's exporter is loaded when this is made,
 * and until it is there spans wait like any others.
 */
export class SpanExport {
  exported = 0;
  /** The queue had no room. */
  dropped = 0;
  /** The collector did not take them. */
  failed = 0;
  readonly #options: SpanExportOptions;
  readonly #queue: SpanData[] = [];
  readonly #scope: ReadableSpan['instrumentationScope'];
  readonly #loaded: Promise<void>;
  readonly #timer: NodeJS.Timeout;
  #resource: ReadableSpan['resource'] | null = null;
  #sender: SpanSender | null = null;
  #instanceId = '';
  #isSending = false;
  #isClosed = false;
  #warnedAt = Number.NEGATIVE_INFINITY;
  #originMs = performance.timeOrigin;

  constructor(options: SpanExportOptions, load: (options: SpanExportOptions) => Promise<SpanSender> = openSender) {
    this.#options = options;
    this.#scope = { name: 'broker', version: options.version };
    this.#timer = setInterval(() => this.#tick(), FLUSH_MS).unref();
    this.#loaded = load(options).then(
      (sender) => {
        this.#sender = sender;
        this.#maybeSend();
      },
      (error: unknown) =>
        options.log.error('spans are not sent: OpenTelemetry could not be loaded', { error: String(error) }),
    );
  }

  /** The name of this node, when it is known. */
  set instanceId(id: string) {
    this.#instanceId = id;
    this.#resource = null;
  }

  get waiting(): number {
    return this.#queue.length;
  }

  add(span: SpanData): void {
    if (this.#isClosed || this.#queue.length >= QUEUE_SPANS_MAX) {
      this.dropped += 1;
      this.#maybeWarn('spans are dropped: they come faster than the collector takes them', {});
      return;
    }
    this.#queue.push(span);
    if (this.#queue.length === BATCH_SPANS) this.#maybeSend();
  }

  /** Sends what waits, for at most `ms`; what is left then is lost. */
  async close(ms: number): Promise<void> {
    clearInterval(this.#timer);
    const late = new Promise<void>((resolve) => setTimeout(resolve, ms).unref());
    await Promise.race([this.#finish(), late]);
    this.#isClosed = true;
    this.dropped += this.#queue.splice(0).length;
  }

  async #finish(): Promise<void> {
    await this.#loaded;
    while (this.#sender !== null && !this.#isClosed && (this.#queue.length > 0 || this.#isSending)) {
      this.#maybeSend();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await this.#sender?.shutdown();
  }

  #tick(): void {
    const drift = Date.now() - performance.now() - this.#originMs;
    if (Math.abs(drift) > CLOCK_STEP_MS) this.#originMs += drift;
    this.#maybeSend();
  }

  #maybeSend(): void {
    if (this.#sender === null || this.#isSending || this.#isClosed || this.#queue.length === 0) return;
    const spans = this.#queue.splice(0, BATCH_SPANS).map((span) => this.#readable(span));
    this.#isSending = true;
    this.#sender.export(spans, ({ code, error }) => {
      this.#isSending = false;
      if (code === SUCCESS) this.exported += spans.length;
      else {
        this.failed += spans.length;
        this.#maybeWarn('spans could not be sent', { error: error?.message ?? 'unknown' });
      }
      if (this.#queue.length >= BATCH_SPANS) setImmediate(() => this.#maybeSend());
    });
  }

  #maybeWarn(message: string, fields: Readonly<Record<string, unknown>>): void {
    const now = performance.now();
    if (now - this.#warnedAt < WARN_MS) return;
    this.#warnedAt = now;
    const { failed, dropped } = this;
    this.#options.log.warn(message, { ...fields, endpoint: this.#options.endpoint, failed, dropped });
  }

  #readable(span: SpanData): ReadableSpan {
    const { traceId, spanId, parentSpanId, error } = span;
    const context: SpanContext = { traceId, spanId, traceFlags: 1 };
    const start = this.#time(span.startMs);
    // Threads stamp one clock, but what happened at once may be stamped in either order.
    const end = this.#time(Math.max(span.startMs, span.endMs));
    return {
      name: span.name,
      kind: span.kind,
      spanContext: () => context,
      ...(parentSpanId === '' ? {} : { parentSpanContext: { traceId, spanId: parentSpanId, traceFlags: 1 } }),
      startTime: start,
      endTime: end,
      status: error === null ? { code: 0 } : { code: 2, message: error },
      attributes: error === null ? span.attributes : { ...span.attributes, 'error.type': error },
      links: span.links.map((link) => ({ context: { ...link, traceFlags: 1 }, attributes: {} })),
      events: [],
      duration: [0, Math.max(0, span.endMs - span.startMs) * 1e6],
      ended: true,
      resource: this.#resourceOfNode(),
      instrumentationScope: this.#scope,
      droppedAttributesCount: 0,
      droppedEventsCount: 0,
      droppedLinksCount: 0,
    };
  }

  #resourceOfNode(): ReadableSpan['resource'] {
    this.#resource ??= resourceOf({
      'service.name': this.#options.serviceName,
      'service.version': this.#options.version,
      'service.instance.id': this.#instanceId,
    });
    return this.#resource;
  }

  #time(ms: number): HrTime {
    const epochMs = this.#originMs + ms;
    const seconds = Math.floor(epochMs / 1000);
    return [seconds, Math.round((epochMs - seconds * 1000) * 1e6)];
  }
}

/** What the exporter needs of a Resource: its attributes, all known. */
function resourceOf(attributes: Attributes): ReadableSpan['resource'] {
  const resource: ReadableSpan['resource'] = {
    attributes,
    asyncAttributesPending: false,
    merge: () => resource,
    getRawAttributes: () => Object.entries(attributes),
  };
  return resource;
}

/** `/v1/traces` is added to an endpoint without a path, as OTEL_EXPORTER_OTLP_ENDPOINT is read. */
export function tracesUrl(endpoint: string): string {
  const url = new URL(endpoint);
  if (url.pathname === '/') url.pathname = '/v1/traces';
  return String(url);
}

async function openSender({ endpoint, headers }: SpanExportOptions): Promise<SpanSender> {
  const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-proto');
  return new OTLPTraceExporter({
    url: tracesUrl(endpoint),
    headers: { ...headers },
    timeoutMillis: TIMEOUT_MS,
    concurrencyLimit: 2,
  });
}

/**
 * Trace contexts in message headers (W3C Trace Context), by way of the OpenTelemetry API. A program that has registered no SDK pays nothing: the API is not
 * even loaded.
 */
import { createRequire } from 'node:module';
import type { Metadata } from '@grpc/grpc-js';
import type * as Api from '@opentelemetry/api';
import type { Header, Message } from './message.ts';
import type { RecordExtras } from './out-batch.ts';

/** Where copies of the API, whichever program part loaded them, share what was registered. */
const REGISTRY = Symbol.for('opentelemetry.js.api.1');
const TRACEPARENT = 'traceparent';
const NO_HEADERS: readonly Header[] = [];

function loadApi(): typeof Api {
  return createRequire(import.meta.url)('@opentelemetry/api') as typeof Api;
}

/** Puts the context that is active where a message is published, or a call made, into what is sent. */
export class ClientTracing {
  readonly #api: typeof Api;

  private constructor(api: typeof Api) {
    this.#api = api;
  }

  /** Null if no SDK was registered by now. */
  static find(): ClientTracing | null {
    return (globalThis as Record<symbol, unknown>)[REGISTRY] === undefined ? null : new ClientTracing(loadApi());
  }

  /** `headers` and those of the active context; the same array if there is none, or if they have one already. */
  headers(headers: readonly Header[]): readonly Header[] {
    const carrier = this.#carrier();
    if (carrier[TRACEPARENT] === undefined || headers.some(({ key }) => key === TRACEPARENT)) return headers;
    return [...headers, ...Object.entries(carrier).map(([key, value]) => ({ key, value: Buffer.from(value) }))];
  }

  extras(extras: RecordExtras | null): RecordExtras | null {
    const given = extras?.headers ?? NO_HEADERS;
    const headers = this.headers(given);
    return headers === given ? extras : { headers, expirationSeconds: extras?.expirationSeconds ?? 0 };
  }

  /** To the metadata of a call. */
  addTo(metadata: Metadata): void {
    for (const [key, value] of Object.entries(this.#carrier())) metadata.set(key, value);
  }

  #carrier(): Record<string, string> {
    const carrier: Record<string, string> = {};
    this.#api.propagation.inject(this.#api.context.active(), carrier);
    return carrier;
  }
}

/**
 * The context that the producer of a message was in, by the propagator that this program has registered; without one, or if the message brings none, the root
 * context. Begin the span of what is done with the message in it, or link to it:
 *
 *     tracer.startSpan('process', { kind: SpanKind.CONSUMER }, traceContext(message))
 */
export function traceContext(message: Message): Api.Context {
  const api = loadApi();
  return api.propagation.extract(api.ROOT_CONTEXT, message.headers, HEADERS);
}

const HEADERS: Api.TextMapGetter<readonly Header[]> = {
  keys: (headers) => headers.map(({ key }) => key),
  get: (headers, wanted) => {
    const found = headers.find(({ key }) => key === wanted);
    return found === undefined ? undefined : Buffer.from(found.value).toString();
  },
};

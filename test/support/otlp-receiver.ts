/** Takes spans by OTLP over HTTP, as a collector does, and keeps them decoded. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gunzipSync } from 'node:zlib';
import protobuf from 'protobufjs';
import { until } from './until.ts';

/** What is looked at of opentelemetry-proto v1 (trace/v1/trace.proto, common/v1, resource/v1, collector/trace/v1). */
const PROTO = `
syntax = "proto3";
package otlp;
message Request { repeated ResourceSpans resource_spans = 1; }
message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; }
message Resource { repeated KeyValue attributes = 1; }
message ScopeSpans { Scope scope = 1; repeated Span spans = 2; }
message Scope { string name = 1; string version = 2; }
message Span {
  bytes trace_id = 1; bytes span_id = 2; string trace_state = 3; bytes parent_span_id = 4; string name = 5; int32 kind = 6;
  fixed64 start_time_unix_nano = 7; fixed64 end_time_unix_nano = 8; repeated KeyValue attributes = 9; repeated Link links = 13; Status status = 15;
}
message Link { bytes trace_id = 1; bytes span_id = 2; }
message Status { string message = 2; int32 code = 3; }
message KeyValue { string key = 1; AnyValue value = 2; }
message AnyValue { oneof value { string string_value = 1; bool bool_value = 2; int64 int_value = 3; double double_value = 4; } }
`;

export interface ReceivedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly name: string;
  /** As the protocol numbers them: 1 internal, 2 server, 3 client, 4 producer, 5 consumer. */
  readonly kind: number;
  /** Ms since 1970. */
  readonly startMs: number;
  readonly endMs: number;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly resource: Readonly<Record<string, unknown>>;
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[];
  /** 2: failed. */
  readonly status: number;
}

type Raw = Readonly<Record<string, unknown>>;

export class OtlpReceiver {
  readonly spans: ReceivedSpan[] = [];
  /** Headers of the newest request. */
  headers: IncomingMessage['headers'] = {};
  requests = 0;
  /** What is answered; 200 takes the spans. */
  status = 200;
  /** Requests are read and not answered. */
  isSilent = false;
  readonly #server: Server;
  readonly #type = protobuf.parse(PROTO).root.lookupType('otlp.Request');

  private constructor() {
    this.#server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        this.requests += 1;
        this.headers = request.headers;
        if (this.isSilent) return;
        const body = Buffer.concat(chunks);
        if (this.status === 200) this.#take(request.headers['content-encoding'] === 'gzip' ? gunzipSync(body) : body);
        response.writeHead(this.status, { 'content-type': 'application/x-protobuf' });
        response.end();
      });
    });
  }

  static async listen(): Promise<OtlpReceiver> {
    const receiver = new OtlpReceiver();
    receiver.#server.listen(0, '127.0.0.1');
    await once(receiver.#server, 'listening');
    return receiver;
  }

  /** For tracing.endpoint. */
  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1/traces`;
  }

  /** The spans of a trace, once `isWhole` says that they are all there. */
  async trace(traceId: string, isWhole: (spans: readonly ReceivedSpan[]) => boolean): Promise<readonly ReceivedSpan[]> {
    const found = (): readonly ReceivedSpan[] => this.spans.filter((span) => span.traceId === traceId);
    await until(
      () => isWhole(found()),
      () => `the spans of ${traceId} are ${found().map(({ name }) => name)}`,
    );
    return found();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #take(body: Buffer): void {
    const request = this.#type.toObject(this.#type.decode(body), { longs: Number, defaults: true }) as Raw;
    for (const { resource, scopeSpans } of request.resourceSpans as Raw[]) {
      for (const { spans } of scopeSpans as Raw[]) {
        for (const span of spans as Raw[]) this.spans.push(spanOf(span, attributesOf((resource as Raw).attributes)));
      }
    }
  }
}

function spanOf(span: Raw, resource: ReceivedSpan['resource']): ReceivedSpan {
  return {
    traceId: hex(span.traceId),
    spanId: hex(span.spanId),
    parentSpanId: hex(span.parentSpanId),
    name: span.name as string,
    kind: span.kind as number,
    startMs: (span.startTimeUnixNano as number) / 1e6,
    endMs: (span.endTimeUnixNano as number) / 1e6,
    attributes: attributesOf(span.attributes),
    resource,
    links: (span.links as Raw[]).map((link) => ({ traceId: hex(link.traceId), spanId: hex(link.spanId) })),
    status: ((span.status as Raw | null)?.code as number | undefined) ?? 0,
  };
}

function hex(bytes: unknown): string {
  return Buffer.from(bytes as Uint8Array).toString('hex');
}

function attributesOf(list: unknown): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    (list as { key: string; value: Raw }[]).map(({ key, value }) => [
      key,
      Object.entries(value).find(([kind, held]) => kind === value.value && held !== undefined)?.[1] ??
        Object.values(value)[0],
    ]),
  );
}

/** A client of broker.v1.Consumer/Consume for tests: stock @grpc/grpc-js with the generated code, nothing hidden. */
import * as grpc from '@grpc/grpc-js';
import {
  type ConsumeOpen,
  type ConsumeRequest,
  type ConsumeResponse,
  ConsumerClient,
  type Delivery,
  type Position,
} from '../../src/grpc/gen/broker/v1/consumer.ts';
import { CallError } from './client.ts';

/** More than any test needs. */
export const PLENTY = { bytes: 2 ** 40, messages: 2 ** 40 };

/** A connection; streams may share it. */
export function clientOf(address: string): ConsumerClient {
  return new ConsumerClient(address, grpc.credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
}

/** One stream; what it was given is kept, and checked as it comes: ids of a subject rise, none comes twice. */
export class ConsumeStream {
  readonly ids = new Map<string, number[]>();
  readonly bodies = new Map<string, string[]>();
  readonly positions = new Map<string, Position>();
  deliveries = 0;
  messages = 0;
  bytes = 0;
  largestDelivery = 0;
  isComplete = false;
  /** Those that come with time: the first one comes with the start. */
  heartbeats = -1;
  resumeToken: Buffer = Buffer.alloc(0);
  /** What broke the promise of order. */
  readonly violations: string[] = [];
  /** Undefined while the stream lives; null after OK. */
  status: CallError | null | undefined;
  onDelivery: (delivery: Delivery) => void = () => undefined;
  /** Bodies are kept unless a test has too many of them. */
  keepsBodies = true;
  readonly #client: ConsumerClient;
  readonly #isShared: boolean;
  readonly #call: grpc.ClientDuplexStream<ConsumeRequest, ConsumeResponse>;
  readonly #waiting: { readonly isDone: () => boolean; readonly resolve: () => void }[] = [];

  /** On a connection of its own, or on that of `shared`. */
  constructor(address: string, shared?: ConsumerClient, token?: string) {
    this.#isShared = shared !== undefined;
    this.#client = shared ?? clientOf(address);
    const metadata = new grpc.Metadata();
    if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
    this.#call = this.#client.consume(metadata);
    this.#call.on('data', (response: ConsumeResponse) => this.#onResponse(response));
    this.#call.on('status', (status: grpc.StatusObject) => {
      this.status = status.code === grpc.status.OK ? null : new CallError(status);
      this.#check();
    });
    // The status says the same.
    this.#call.on('error', () => undefined);
  }

  /** Opens and waits until every start is fixed, or for the end. */
  static async open(
    address: string,
    subjects: ConsumeOpen['subjects'],
    options: {
      resumeToken?: Buffer;
      heartbeatMs?: number;
      credit?: { bytes: number; messages: number } | null;
      shared?: ConsumerClient;
      token?: string | undefined;
    } = {},
  ): Promise<ConsumeStream> {
    const { resumeToken = Buffer.alloc(0), heartbeatMs = 100, credit = PLENTY, shared, token } = options;
    const stream = new ConsumeStream(address, shared, token);
    stream.write({ open: { subjects, resumeToken, heartbeatMs }, credit: credit ?? undefined });
    await stream.until(() => stream.isComplete || stream.status !== undefined);
    return stream;
  }

  write(request: ConsumeRequest): void {
    this.#call.write(request);
  }

  grant(bytes: number, messages: number): void {
    this.write({ open: undefined, credit: { bytes, messages } });
  }

  halfClose(): void {
    this.#call.end();
  }

  pause(): void {
    this.#call.pause();
  }

  resume(): void {
    this.#call.resume();
  }

  cancel(): void {
    this.#call.cancel();
    if (!this.#isShared) this.#client.close();
  }

  [Symbol.dispose](): void {
    this.cancel();
  }

  idsOf(subject: string): number[] {
    return this.ids.get(subject) ?? [];
  }

  /** Resolves when it is so; looked at with each response. */
  until(isDone: () => boolean): Promise<void> {
    if (isDone()) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ isDone, resolve }));
  }

  /** A heartbeat that was asked for after this call has come, or the end. */
  async nextHeartbeat(): Promise<void> {
    const seen = this.heartbeats;
    // The next one may have been on its way already.
    await this.until(() => this.heartbeats >= seen + 2 || this.status !== undefined);
  }

  #onResponse(response: ConsumeResponse): void {
    for (const delivery of response.deliveries) this.#onDelivery(delivery);
    if (response.started !== undefined) {
      for (const position of response.started.positions) this.positions.set(position.subject, position);
      this.isComplete ||= response.started.complete;
    }
    if (response.heartbeat !== undefined) {
      this.heartbeats += 1;
      for (const position of response.heartbeat.positions) this.positions.set(position.subject, position);
      if (response.heartbeat.resumeToken.length > 0) this.resumeToken = response.heartbeat.resumeToken;
    }
    this.#check();
  }

  #onDelivery(delivery: Delivery): void {
    const { subject, firstId, count } = delivery;
    const records = delivery.records?.records ?? [];
    const ids = this.ids.get(subject) ?? [];
    const bodies = this.bodies.get(subject) ?? [];
    this.ids.set(subject, ids);
    this.bodies.set(subject, bodies);
    if (records.length !== count) this.violations.push(`${subject} ${firstId}: ${records.length} of ${count} records`);
    if (firstId <= (ids.at(-1) ?? 0)) this.violations.push(`${subject}: ${firstId} after ${ids.at(-1)}`);
    for (let i = 0; i < count; i++) ids.push(firstId + i);
    if (this.keepsBodies) for (const { body } of records) bodies.push(body.toString());
    this.deliveries += 1;
    this.messages += count;
    this.largestDelivery = Math.max(this.largestDelivery, count);
    for (const { body } of records) this.bytes += body.length;
    this.onDelivery(delivery);
  }

  #check(): void {
    for (const entry of [...this.#waiting]) {
      if (!entry.isDone()) continue;
      this.#waiting.splice(this.#waiting.indexOf(entry), 1);
      entry.resolve();
    }
  }
}

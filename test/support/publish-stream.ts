/** A client of broker.v1.Producer/PublishStream for tests: stock @grpc/grpc-js with the generated code, nothing hidden. */
import assert from 'node:assert/strict';
import * as grpc from '@grpc/grpc-js';
import {
  type BatchResult,
  ProducerClient,
  type ProducerOpened,
  type PublishStreamRequest,
  type PublishStreamResponse,
  type Window,
} from '../../src/grpc/gen/broker/v1/producer.ts';
import { CallError } from './client.ts';

export interface StreamBatch {
  readonly subject: string;
  readonly sequence: number;
  readonly bodies: readonly (string | Buffer)[];
  readonly expectedLastId?: number;
  readonly expirationSeconds?: number;
}

/** One stream; every response is kept, and waited for by `until`. */
export class PublishStream {
  readonly results = new Map<number, BatchResult>();
  /** Results in the order in which they came. */
  readonly order: number[] = [];
  opened: ProducerOpened | null = null;
  acknowledged = 0;
  window: Window = { bytesLimit: 0, messagesLimit: 0 };
  /** Undefined while the stream lives; null after OK. */
  status: CallError | null | undefined;
  readonly #client: ProducerClient;
  readonly #call: grpc.ClientDuplexStream<PublishStreamRequest, PublishStreamResponse>;
  readonly #waiting: { readonly isDone: () => boolean; readonly resolve: () => void }[] = [];

  constructor(address: string, tenant: string | null = null, token: string | null = null) {
    this.#client = new ProducerClient(address, grpc.credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
    });
    const metadata = new grpc.Metadata();
    if (tenant !== null) metadata.set('x-tenant', tenant);
    if (token !== null) metadata.set('authorization', `Bearer ${token}`);
    this.#call = this.#client.publishStream(metadata);
    this.#call.on('data', (response: PublishStreamResponse) => this.#onResponse(response));
    this.#call.on('status', (status: grpc.StatusObject) => {
      this.status = status.code === grpc.status.OK ? null : new CallError(status);
      this.#check();
    });
    // The status says the same.
    this.#call.on('error', () => undefined);
  }

  /** Opens and waits for the answer, or for the end. */
  static async open(
    address: string,
    producerId: string,
    firstSequence = 0,
    tenant: string | null = null,
    token: string | null = null,
  ): Promise<PublishStream> {
    const stream = new PublishStream(address, tenant, token);
    stream.write({ open: { producerId, firstSequence }, batches: [] });
    await stream.until(() => stream.opened !== null || stream.status !== undefined);
    return stream;
  }

  write(request: PublishStreamRequest): void {
    this.#call.write(request);
  }

  send(...batches: readonly StreamBatch[]): void {
    this.write({ open: undefined, batches: batches.map(toBatch) });
  }

  halfClose(): void {
    this.#call.end();
  }

  /** Stops reading: results stay with the broker. */
  pause(): void {
    this.#call.pause();
  }

  resume(): void {
    this.#call.resume();
  }

  cancel(): void {
    this.#call.cancel();
    this.#client.close();
  }

  [Symbol.dispose](): void {
    this.cancel();
  }

  /** Resolves when it is so; looked at with each response. */
  until(isDone: () => boolean): Promise<void> {
    if (isDone()) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ isDone, resolve }));
  }

  /** The results of these sequences, or the end of the stream. */
  async settled(...sequences: readonly number[]): Promise<BatchResult[]> {
    await this.until(() => this.status !== undefined || sequences.every((sequence) => this.results.has(sequence)));
    return sequences.flatMap((sequence) => this.results.get(sequence) ?? []);
  }

  /** Results as text: `1..3` or the reason. */
  async outcomes(...sequences: readonly number[]): Promise<string[]> {
    const results = await this.settled(...sequences);
    return results.map(({ firstId, lastId, error }) => error?.reason ?? `${firstId}..${lastId}`);
  }

  #onResponse(response: PublishStreamResponse): void {
    this.opened = response.opened ?? this.opened;
    this.acknowledged = Math.max(this.acknowledged, response.acknowledged);
    this.window = response.window ?? this.window;
    for (const result of response.results) {
      this.results.set(result.sequence, result);
      this.order.push(result.sequence);
    }
    this.#check();
  }

  #check(): void {
    for (const entry of [...this.#waiting]) {
      if (!entry.isDone()) continue;
      this.#waiting.splice(this.#waiting.indexOf(entry), 1);
      entry.resolve();
    }
  }
}

function toBatch({ subject, sequence, bodies, expectedLastId, expirationSeconds = 0 }: StreamBatch) {
  const records = bodies.map((body) => ({ body: Buffer.from(body), headers: [], expirationSeconds }));
  return { subject, sequence, records: { records }, expectedLastId };
}

/** A sender that obeys: what is refused and may come again is sent again. */
export interface Retrying {
  readonly stream: PublishStream;
  /** Batches that have no ids yet, by sequence. */
  readonly left: Map<number, StreamBatch>;
  readonly ids: Map<number, number>;
  /** Reasons of all refusals. */
  readonly reasons: Set<string>;
}

/** Sends what is left, in order, waits for every result, and checks that no batch was stored whose predecessor was refused. */
export async function sendRound({ stream, left, ids, reasons }: Retrying): Promise<void> {
  const batches = [...left.values()].sort((a, b) => a.sequence - b.sequence);
  for (const batch of batches) stream.results.delete(batch.sequence);
  for (const batch of batches) stream.send(batch);
  await stream.settled(...batches.map(({ sequence }) => sequence));
  assert.equal(stream.status, undefined, stream.status?.message);
  const refused = new Map<string, number>();
  for (const { sequence, subject } of batches) {
    const result = stream.results.get(sequence);
    const error = result?.error;
    if (error !== undefined) {
      assert.equal(error.outcome, 1, `${error.reason} says that nothing was stored`);
      assert.ok(error.retryAfterMs > 0, error.reason);
      const first = refused.get(subject);
      // One that is refused for itself, before what became of the first is known, is not refused because of it.
      const wasFirst = first !== undefined && stream.order.lastIndexOf(sequence) < stream.order.lastIndexOf(first);
      if (first !== undefined && !wasFirst) {
        assert.equal(error.reason, 'PREDECESSOR_FAILED', `batch ${sequence} behind ${first}`);
      }
      refused.set(subject, first ?? sequence);
      reasons.add(error.reason);
      continue;
    }
    assert.ok(!refused.has(subject), `batch ${sequence} of ${subject} was stored behind a refused one`);
    ids.set(sequence, result?.firstId ?? 0);
    left.delete(sequence);
  }
}

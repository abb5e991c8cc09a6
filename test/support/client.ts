/** A small gRPC client for tests: raw bytes over @grpc/grpc-js, and every failure with its reason and what may be assumed of the call. */
import * as grpc from '@grpc/grpc-js';
import {
  decodeErrorDetails,
  decodeMessage,
  decodeNumber,
  encodeFetch,
  encodeIncIdx,
  encodePublish,
  encodeSubscribe,
  type Message,
  type PublishFields,
  type Start,
} from './wire.ts';

/** `none`: the call had no effect and never will. `unknown`: it may have had, or may still have, one. */
export type FailedOutcome = 'none' | 'unknown';

export class CallError extends Error {
  override name = 'CallError';
  /** Number of the gRPC status. */
  readonly code: number;
  readonly statusName: string;
  /** `ErrorInfo.reason`; null when the status did not come from the broker (lost connection, own deadline, cancel). */
  readonly reason: string | null;
  readonly outcome: FailedOutcome;
  readonly retryAfterMs: number | null;
  /** `ErrorInfo.metadata`. */
  readonly metadata: Readonly<Record<string, string>>;

  constructor(status: grpc.StatusObject | grpc.ServiceError) {
    const details = detailsOf(status.metadata);
    const statusName = grpc.status[status.code] ?? String(status.code);
    super(`${statusName}${details.reason === null ? '' : ` (${details.reason})`}: ${status.details}`);
    this.code = status.code;
    this.statusName = statusName;
    this.reason = details.reason;
    this.metadata = details.metadata;
    this.retryAfterMs = details.retryAfterMs;
    this.outcome = outcomeOf(status.code, details.reason, details.metadata.outcome);
  }
}

function detailsOf(metadata: grpc.Metadata | undefined) {
  const [bytes] = metadata?.get('grpc-status-details-bin') ?? [];
  if (!Buffer.isBuffer(bytes)) return { reason: null, domain: null, metadata: {}, retryAfterMs: null };
  return decodeErrorDetails(bytes);
}

/** What the broker says of the outcome counts; without its word (no ErrorInfo) nothing may be assumed. */
function outcomeOf(code: number, reason: string | null, said: string | undefined): FailedOutcome {
  if (said === 'none' || said === 'unknown') return said;
  if (reason === null) return 'unknown';
  return code === grpc.status.UNKNOWN || code === grpc.status.INTERNAL ? 'unknown' : 'none';
}

export interface SubscriptionHandlers {
  onMessage(message: Message): void;
  /** The response headers came: from here on the start is fixed. */
  onLive?(): void;
  /** Exactly once. `null`: the server ended the stream with OK, or we cancelled it. */
  onEnd?(error: CallError | null): void;
}

export interface Subscription {
  readonly ended: Promise<void>;
  pause(): void;
  resume(): void;
  cancel(): void;
}

const SERVICE = '/broker.Broker/';
const identity = (bytes: Buffer): Buffer => bytes;

export interface ClientOptions {
  /** Deadline of a unary call unless it says otherwise, in ms. */
  readonly timeoutMs?: number;
  /** Sent as x-tenant; several are sent as they are. */
  readonly tenant?: string | readonly string[];
  /** Bearer token. */
  readonly token?: string | undefined;
}

export class BrokerClient {
  readonly #client: grpc.Client;
  readonly #timeoutMs: number;
  readonly #metadata = new grpc.Metadata();
  readonly #subscriptions = new Set<Subscription>();

  readonly address: string;

  constructor(address: string, options: ClientOptions = {}) {
    this.address = address;
    this.#timeoutMs = options.timeoutMs ?? 10_000;
    for (const tenant of [options.tenant ?? []].flat()) this.#metadata.add('x-tenant', tenant);
    if (options.token !== undefined) this.#metadata.set('authorization', `Bearer ${options.token}`);
    this.#client = new grpc.Client(address, grpc.credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
      // The brokers of tests are on this machine, whatever its `http_proxy` says.
      'grpc.enable_http_proxy': 0,
      // Tests kill and restart the broker: a client that backs off for seconds would measure its own patience.
      'grpc.initial_reconnect_backoff_ms': 20,
      'grpc.min_reconnect_backoff_ms': 20,
      'grpc.max_reconnect_backoff_ms': 100,
      'grpc.max_receive_message_length': 256 << 20,
      'grpc.max_send_message_length': 256 << 20,
      // A retry that the library makes on its own would hide an outcome from the checker.
      'grpc.enable_retries': 0,
    });
  }

  /** Sends `request` as it is. Rejects with CallError. */
  call(method: string, request: Buffer, timeoutMs = this.#timeoutMs, metadata = this.#metadata): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + timeoutMs };
      this.#client.makeUnaryRequest(
        SERVICE + method,
        identity,
        identity,
        request,
        metadata,
        options,
        (error, response) => {
          if (error !== null) reject(new CallError(error));
          else resolve(response as Buffer);
        },
      );
    });
  }

  async publish(fields: PublishFields, timeoutMs?: number): Promise<number> {
    return decodeNumber(await this.call('Publish', encodePublish(fields), timeoutMs));
  }

  async publishAs(tenant: string, fields: PublishFields): Promise<number> {
    const metadata = new grpc.Metadata();
    metadata.set('x-tenant', tenant);
    return decodeNumber(await this.call('Publish', encodePublish(fields), this.#timeoutMs, metadata));
  }

  async fetch(subject: string | Uint8Array, id: number | bigint, timeoutMs?: number): Promise<Message> {
    return decodeMessage(await this.call('Fetch', encodeFetch(subject, id), timeoutMs));
  }

  async incIdx(subject: string | Uint8Array, timeoutMs?: number): Promise<number> {
    return decodeNumber(await this.call('IncIdx', encodeIncIdx(subject), timeoutMs));
  }

  async broadcast(fields: PublishFields, timeoutMs?: number): Promise<boolean> {
    return decodeNumber(await this.call('Broadcast', encodePublish(fields), timeoutMs)) === 1;
  }

  subscribe(subject: string | Uint8Array, start: Start, handlers: SubscriptionHandlers): Subscription {
    return this.subscribeRaw(encodeSubscribe(subject, start), handlers);
  }

  subscribeRaw(request: Buffer, handlers: SubscriptionHandlers): Subscription {
    const stream = this.#client.makeServerStreamRequest(
      `${SERVICE}Subscribe`,
      identity,
      identity,
      request,
      this.#metadata,
    );
    const { promise, resolve } = Promise.withResolvers<void>();
    stream.on('metadata', () => handlers.onLive?.());
    stream.on('data', (bytes: Buffer) => handlers.onMessage(decodeMessage(bytes)));
    // The same failure also arrives as `status`; without this listener it would be thrown.
    stream.on('error', () => undefined);
    let cancelled = false;
    const subscription: Subscription = {
      ended: promise,
      pause: () => void stream.pause(),
      resume: () => void stream.resume(),
      cancel: () => {
        cancelled = true;
        stream.cancel();
      },
    };
    this.#subscriptions.add(subscription);
    stream.on('status', (status: grpc.StatusObject) => {
      this.#subscriptions.delete(subscription);
      const failed = status.code !== grpc.status.OK && !(cancelled && status.code === grpc.status.CANCELLED);
      handlers.onEnd?.(failed ? new CallError(status) : null);
      resolve();
    });
    return subscription;
  }

  /** Resolves when connected; rejects after `timeoutMs`. */
  ready(timeoutMs = 30_000): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#client.waitForReady(Date.now() + timeoutMs, (error) => (error ? reject(error) : resolve()));
    });
  }

  /** Cancels what is still subscribed and closes the connection. */
  close(): void {
    for (const subscription of this.#subscriptions) subscription.cancel();
    this.#client.close();
  }
}

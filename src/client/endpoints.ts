/** The addresses of a cluster and one gRPC channel to each: any node takes any call, so a caller wants one that answers. */
import {
  type ChannelCredentials,
  connectivityState,
  credentials,
  Client as GrpcClient,
  Metadata,
  status,
} from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';
import { TIMER_MS_MAX } from '../base/timer.ts';
import { TENANT_KEY } from '../grpc/tenant.ts';
import { type ClientError, type ConnectionError, connectionError } from './errors.ts';
import { isLoopback } from './loopback.ts';
import { retryDelayMs } from './retry.ts';
import type { ConnectFailures } from './tls.ts';
import type { Token } from './token.ts';
import { abortable, sleep } from './wait.ts';

/** Messages that a broker can be set to send; the broker's own limit is what counts. */
const RECEIVE_BYTES_MAX = 256 * 1024 * 1024;
/** HTTP/2 flow control of a channel: with the default of 64 KiB a consumer waits a round trip for every 64 KiB. */
const FLOW_CONTROL_BYTES = 4 * 1024 * 1024;
/** How long one address may take before the next is tried, in ms: a machine that is off does not even refuse. */
const ADDRESS_PATIENCE_MS = 2_000;

export interface EndpointOptions {
  readonly credentials: ChannelCredentials;
  /** Knows why handshakes failed; null or absent: nobody does. */
  readonly failures?: ConnectFailures | null;
  /** Fails at once if no address answers, instead of waiting for one. */
  readonly failFast: boolean;
  /** Whose calls these are; absent: the broker's default. */
  readonly tenant?: string | undefined;
  /** Says who calls; null or absent: nothing does. */
  readonly token?: Token | null;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

export function insecure(): ChannelCredentials {
  return credentials.createInsecure();
}

interface Endpoint {
  readonly address: string;
  client: GrpcClient | null;
}

/** One channel at a time is in use; `avoid` moves on to the next address. */
export class Endpoints {
  readonly #endpoints: readonly Endpoint[];
  readonly #options: EndpointOptions;
  #current: number;
  #closed = false;

  /** `first`: index of the address to begin with, modulo their number. */
  constructor(addresses: readonly string[], options: EndpointOptions, first = 0) {
    assert(addresses.length > 0, 'at least one address');
    this.#endpoints = addresses.map((address) => ({ address, client: null }));
    this.#options = options;
    this.#current = first % addresses.length;
  }

  get address(): string {
    return this.#endpoint.address;
  }

  /** What every call is sent with. Behind `connect` or `connected`, which see to it that there is a token. */
  metadata(): Metadata {
    const metadata = new Metadata();
    const { tenant, token } = this.#options;
    if (tenant !== undefined) metadata.set(TENANT_KEY, tenant);
    if (token?.value != null) metadata.set('authorization', `Bearer ${token.value}`);
    return metadata;
  }

  /** A call with this metadata was refused for who makes it: true if it is worth another try, with another token. */
  renewsToken({ code }: Pick<ClientError, 'code'>, metadata: Metadata | null): boolean {
    if (code !== status.UNAUTHENTICATED) return false;
    const [said] = metadata?.get('authorization') ?? [];
    const used = typeof said === 'string' ? said.slice('Bearer '.length) : null;
    return this.#options.token?.refused(used) === true;
  }

  get failsFast(): boolean {
    return this.#options.failFast;
  }

  get #endpoint(): Endpoint {
    return this.#endpoints[this.#current] as Endpoint;
  }

  /** The channel in use if it is connected, else null: the way of nearly every call. */
  get connected(): GrpcClient | null {
    const { client } = this.#endpoint;
    return client !== null &&
      this.#hasToken &&
      client.getChannel().getConnectivityState(false) === connectivityState.READY
      ? client
      : null;
  }

  /** A channel that is connected. Rejects with ConnectionError at the deadline (ms since 1970), with the signal's reason when it is aborted. */
  async connect(deadlineMs: number, signal: AbortSignal | undefined): Promise<GrpcClient> {
    if (this.connected === null) await this.#askForToken(deadlineMs, signal);
    for (let round = 1; ; round += 1) {
      for (let tries = 0; tries < this.#endpoints.length; tries += 1) {
        if (this.#closed) throw this.#failure([this.#endpoint]);
        const client = this.#clientOf(this.#endpoint);
        const patience =
          this.#endpoints.length === 1 ? deadlineMs : Math.min(deadlineMs, Date.now() + ADDRESS_PATIENCE_MS);
        if (
          await abortable(whenReady(client, patience, this.#options.failFast || this.#endpoints.length > 1), signal)
        ) {
          return client;
        }
        if (Date.now() >= deadlineMs) throw this.#failure([this.#endpoint]);
        this.avoid(client);
      }
      if (this.#options.failFast) throw this.#failure(this.#endpoints);
      const delay = retryDelayMs(round, null, this.#options.random(), { firstMs: 20, maxMs: 500 });
      await sleep(Math.min(delay, Math.max(1, deadlineMs - Date.now())), signal);
    }
  }

  /** The node of this channel does not want work: the next call goes to another one, if there is any. */
  avoid(client: GrpcClient): void {
    if (this.#endpoint.client === client) this.#current = (this.#current + 1) % this.#endpoints.length;
  }

  close(): void {
    this.#closed = true;
    for (const endpoint of this.#endpoints) endpoint.client?.close();
  }

  get #hasToken(): boolean {
    const { token } = this.#options;
    return token === undefined || token === null || token.value !== null;
  }

  async #askForToken(deadlineMs: number, signal: AbortSignal | undefined): Promise<void> {
    const { token } = this.#options;
    if (token === undefined || token === null) return;
    const late = AbortSignal.timeout(Math.min(TIMER_MS_MAX, Math.max(1, deadlineMs - Date.now())));
    try {
      await abortable(token.ask(), signal === undefined ? late : AbortSignal.any([signal, late]));
    } catch (cause) {
      signal?.throwIfAborted();
      const why = `the token could not be had: ${cause instanceof Error ? cause.message : String(cause)}`;
      throw connectionError(this.address, why, { cause });
    }
  }

  #failure(endpoints: readonly Endpoint[]): ConnectionError {
    const reasons = endpoints.map(({ address }) => this.#options.failures?.failureOf(address) ?? null);
    const reason = reasons.find((one) => one !== null) ?? null;
    return connectionError(endpoints.map(({ address }) => address).join(', '), reason);
  }

  #clientOf(endpoint: Endpoint): GrpcClient {
    endpoint.client ??= new GrpcClient(endpoint.address, this.#options.credentials, {
      // Channels to one address would share a connection, and with it one thread of work in the broker and one flow control window.
      'grpc.use_local_subchannel_pool': 1,
      'grpc.max_receive_message_length': RECEIVE_BYTES_MAX,
      'grpc.max_send_message_length': -1,
      'grpc-node.flow_control_window': FLOW_CONTROL_BYTES,
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 1_000,
      'grpc.keepalive_time_ms': 20_000,
      'grpc.keepalive_timeout_ms': 10_000,
      // Retries by the transport would hide what the broker answered, and keep copies of all that was sent.
      'grpc.enable_retries': 0,
      ...(isLoopback(endpoint.address) ? { 'grpc.enable_http_proxy': 0 } : {}),
    });
    return endpoint.client;
  }
}

/** As long as a timer of grpc-js can be set: beyond that it is over at once, and again and again. */
function soonOf(deadlineMs: number): number {
  return deadlineMs === Number.POSITIVE_INFINITY ? deadlineMs : Math.min(deadlineMs, Date.now() + TIMER_MS_MAX);
}

/** True when connected; false at the deadline, when the channel was closed, or, with `isHasty`, when the attempt has failed. */
function whenReady(client: GrpcClient, deadlineMs: number, isHasty: boolean): Promise<boolean> {
  const channel = client.getChannel();
  return new Promise((resolve) => {
    const look = (): void => {
      const state = channel.getConnectivityState(true);
      const isOver = state === connectivityState.SHUTDOWN || Date.now() >= deadlineMs;
      if (state === connectivityState.READY) resolve(true);
      else if (isOver || (isHasty && state === connectivityState.TRANSIENT_FAILURE)) resolve(false);
      else channel.watchConnectivityState(state, soonOf(deadlineMs), look);
    };
    look();
  });
}

/** Unary calls: one request, one answer, and the rules of trying again. */
import { type Client as GrpcClient, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import type { Endpoints } from './endpoints.ts';
import { ClientError, errorOf } from './errors.ts';
import { RetryBudget, retryDelayMs } from './retry.ts';
import { sleep } from './wait.ts';

export interface CallOptions {
  /** Ends the call at once; it rejects with the signal's reason. What was sent may take effect all the same. */
  readonly signal?: AbortSignal | undefined;
  /** Longest wait for the answer, in ms, over all tries. */
  readonly timeoutMs?: number | undefined;
}

export interface CallStats {
  /** Calls that were asked for. */
  calls: number;
  /** Requests that were sent, with repeats. */
  attempts: number;
}

const raw = (bytes: Buffer): Buffer => bytes;

export class Calls {
  readonly #endpoints: Endpoints;
  readonly #timeoutMs: number;
  readonly #random: () => number;
  readonly #budget: RetryBudget | null;
  readonly stats: CallStats = { calls: 0, attempts: 0 };

  constructor(
    endpoints: Endpoints,
    options: { readonly timeoutMs: number; readonly retries: boolean; readonly random: () => number },
  ) {
    this.#endpoints = endpoints;
    this.#timeoutMs = options.timeoutMs;
    this.#random = options.random;
    this.#budget = options.retries ? new RetryBudget() : null;
  }

  /**
   * `isRepeatable`: made twice, it has the effect of once (reads, and publishes with a sequence), so that it is also tried again when
   * nobody knows what became of it.
   */
  async call(path: string, request: Buffer, options: CallOptions, isRepeatable: boolean): Promise<Buffer> {
    const { signal } = options;
    signal?.throwIfAborted();
    const deadlineMs = Date.now() + (options.timeoutMs ?? this.#timeoutMs);
    this.stats.calls += 1;
    this.#budget?.noteCall();
    for (let failures = 1; ; failures += 1) {
      const client = this.#endpoints.connected ?? (await this.#endpoints.connect(deadlineMs, signal));
      this.stats.attempts += 1;
      try {
        return await callOnce(client, path, request, deadlineMs, signal);
      } catch (error) {
        if (!(error instanceof ClientError)) throw error;
        if (error.code === status.UNAVAILABLE) this.#endpoints.avoid(client);
        if (!isWorthwhile(error, isRepeatable)) throw error;
        const delay = retryDelayMs(failures, error.retryAfterMs, this.#random());
        // A refusal says more than the deadline that would take its place.
        if (Date.now() + delay >= deadlineMs || this.#budget?.tryRetry() !== true) throw error;
        await sleep(delay, signal);
      }
    }
  }
}

function isWorthwhile(error: ClientError, isRepeatable: boolean): boolean {
  if (error.retryable) return true;
  if (!isRepeatable || error.code === status.DEADLINE_EXCEEDED || error.code === status.CANCELLED) return false;
  return error.outcome === 'unknown' && error.reason !== 'INTERNAL_ERROR';
}

function callOnce(
  client: GrpcClient,
  path: string,
  request: Buffer,
  deadline: number,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const done = (error: ServiceError | null, response?: Buffer): void => {
      signal?.removeEventListener('abort', onAbort);
      if (error !== null) reject(errorOf(error));
      else resolve(response as Buffer);
    };
    const call = client.makeUnaryRequest(path, raw, raw, request, new Metadata(), { deadline }, done);
    const onAbort = (): void => {
      reject(signal?.reason);
      call.cancel();
    };
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

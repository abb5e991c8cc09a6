/** Unary calls: one request, one answer, and the rules of trying again. */
import { type Client as GrpcClient, type Metadata, type ServiceError, status } from '@grpc/grpc-js';
import type { Endpoints } from './endpoints.ts';
import { ClientError, errorOf, withOutcome } from './errors.ts';
import { RetryBudget, retryDelayMs } from './retry.ts';
import { ClientTracing } from './tracing.ts';
import { sleep } from './wait.ts';

export interface CallOptions {
  /** Ends the call at once; it rejects with the signal's reason. What was sent may take effect all the same. */
  readonly signal?: AbortSignal | undefined;
  /** Longest wait for the answer, in ms, over all tries. */
  readonly timeoutMs?: number | undefined;
}

/** What a request changes: nothing; once, however often it is made (a publish with a sequence); or each time again. */
export type Effect = 'none' | 'once' | 'each-time';

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
  /** Null: this program traces nothing. */
  readonly tracing = ClientTracing.find();

  constructor(
    endpoints: Endpoints,
    options: { readonly timeoutMs: number; readonly retries: boolean; readonly random: () => number },
  ) {
    this.#endpoints = endpoints;
    this.#timeoutMs = options.timeoutMs;
    this.#random = options.random;
    this.#budget = options.retries ? new RetryBudget() : null;
  }

  /** One request, many answers; not tried again. Whoever leaves the loop cancels the call. */
  answers(path: string, request: Buffer, { signal, timeoutMs = this.#timeoutMs }: CallOptions): AsyncGenerator<Buffer> {
    return answersOf(this.#endpoints, path, request, timeoutMs, signal);
  }

  /**
   * Without an effect, or with one of `once`, it is also tried again when nobody knows what became of it. From then on its outcome is unknown, whatever
   * becomes of later tries.
   */
  async call(path: string, request: Buffer, options: CallOptions, effect: Effect): Promise<Buffer> {
    const { signal } = options;
    signal?.throwIfAborted();
    const deadlineMs = Date.now() + (options.timeoutMs ?? this.#timeoutMs);
    this.stats.calls += 1;
    this.#budget?.noteCall();
    let isUnknown = false;
    for (let failures = 1; ; failures += 1) {
      const client = this.#endpoints.connected ?? (await this.#connect(deadlineMs, signal, isUnknown));
      // A signal that fires from here on is heard; one that fired since the connection was there would not be.
      signal?.throwIfAborted();
      const metadata = this.#endpoints.metadata();
      this.tracing?.addTo(metadata);
      this.stats.attempts += 1;
      try {
        return await callOnce(client, path, request, metadata, deadlineMs, signal);
      } catch (error) {
        if (!(error instanceof ClientError)) throw error;
        if (error.code === status.UNAVAILABLE) this.#endpoints.avoid(client);
        // It was refused at the door, so it took no effect.
        if (this.#endpoints.renewsToken(error, metadata)) continue;
        if (effect !== 'none' && error.outcome === 'unknown') isUnknown = true;
        if (!isWorthwhile(error, effect)) throw told(error, isUnknown);
        const delay = retryDelayMs(failures, error.retryAfterMs, this.#random());
        // A refusal says more than the deadline that would take its place.
        if (Date.now() + delay >= deadlineMs || this.#budget?.tryRetry() !== true) throw told(error, isUnknown);
        await sleep(delay, signal);
      }
    }
  }

  async #connect(deadlineMs: number, signal: AbortSignal | undefined, isUnknown: boolean): Promise<GrpcClient> {
    try {
      return await this.#endpoints.connect(deadlineMs, signal);
    } catch (error) {
      throw error instanceof ClientError ? told(error, isUnknown) : error;
    }
  }
}

/** What a caller is told, when an earlier try may have had its effect. */
function told(error: ClientError, isUnknown: boolean): ClientError {
  return isUnknown ? withOutcome(error, 'unknown') : error;
}

/** `timeoutMs` of the options is for the connection: how long answers come is not known. */
async function* answersOf(
  endpoints: Endpoints,
  path: string,
  request: Buffer,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer> {
  signal?.throwIfAborted();
  const client = endpoints.connected ?? (await endpoints.connect(Date.now() + timeoutMs, signal));
  signal?.throwIfAborted();
  const call = client.makeServerStreamRequest(path, raw, raw, request, endpoints.metadata());
  const onAbort = (): void => call.cancel();
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    for await (const answer of call) yield answer as Buffer;
  } catch (error) {
    signal?.throwIfAborted();
    throw errorOf(error as ServiceError);
  } finally {
    signal?.removeEventListener('abort', onAbort);
    call.cancel();
  }
}

function isWorthwhile(error: ClientError, effect: Effect): boolean {
  if (error.retryable) return true;
  if (effect === 'each-time' || error.code === status.DEADLINE_EXCEEDED || error.code === status.CANCELLED)
    return false;
  return error.outcome === 'unknown' && error.reason !== 'INTERNAL_ERROR';
}

function callOnce(
  client: GrpcClient,
  path: string,
  request: Buffer,
  metadata: Metadata,
  deadline: number,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const done = (error: ServiceError | null, response?: Buffer): void => {
      signal?.removeEventListener('abort', onAbort);
      if (error !== null) reject(errorOf(error));
      else resolve(response as Buffer);
    };
    const call = client.makeUnaryRequest(path, raw, raw, request, metadata, { deadline }, done);
    const onAbort = (): void => {
      reject(signal?.reason);
      call.cancel();
    };
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** When to try again: pure rules; time and randomness come from the caller. */

export interface RetryBudgetOptions {
  /** Retries that a client may make before it has made any call. */
  readonly reserve: number;
  /** Retries that each call adds, 0 to 1. */
  readonly ratio: number;
  /** Retries that can be saved up. */
  readonly max: number;
}

export const RETRY_BUDGET: RetryBudgetOptions = { reserve: 10, ratio: 0.5, max: 100 };

/**
 * Bounds the retries of all calls of a client together, so that clients of a broker that refuses everything add at most half to the load
 * that made it refuse (the token bucket of gRPC's proposal A6, "Throttling Retry Attempts and Hedged RPCs", filled by calls instead of
 * successes so that it holds from the first call on).
 */
export class RetryBudget {
  readonly #options: RetryBudgetOptions;
  #tokens: number;

  constructor(options: RetryBudgetOptions = RETRY_BUDGET) {
    this.#options = options;
    this.#tokens = options.reserve;
  }

  /** A call is made for the first time. */
  noteCall(): void {
    this.#tokens = Math.min(this.#options.max, this.#tokens + this.#options.ratio);
  }

  /** False: give up and pass the refusal on. */
  tryRetry(): boolean {
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}

export interface BackoffOptions {
  /** Bound of the first delay, in ms; doubles with every attempt. */
  readonly firstMs: number;
  readonly maxMs: number;
}

export const BACKOFF: BackoffOptions = { firstMs: 50, maxMs: 5_000 };

/**
 * Delay before the next try, in ms. At least what the broker asked for; beyond that random, so that clients that were refused together do
 * not come back together. `failures`: tries that failed, from 1. `random`: uniform in [0, 1).
 */
export function retryDelayMs(
  failures: number,
  retryAfterMs: number | null,
  random: number,
  options: BackoffOptions = BACKOFF,
): number {
  const bound = Math.min(options.maxMs, options.firstMs * 2 ** Math.min(30, failures - 1));
  return (retryAfterMs ?? 0) + bound / 2 + (bound / 2) * random;
}

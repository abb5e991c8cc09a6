/** Refusals with a retry delay of their own. Delays are rounded up, so that there are few different ones and each is encoded once. */
import { encodeBatchError } from './producer-codec.ts';
import { type ErrorStatus, makeStatus } from './status.ts';

const DELAY_MS_MAX = 3_600_000;

/** Up to two digits, which is a tenth at the most; at least 1, at most an hour. */
export function roundedDelayMs(delayMs: number): number {
  if (delayMs <= 1) return 1;
  const step = 10 ** Math.max(0, Math.floor(Math.log10(delayMs)) - 1);
  return Math.min(DELAY_MS_MAX, Math.ceil(delayMs / step) * step);
}

/** What is made of a delay, each once. */
class ByDelay<T> {
  readonly #make: (delayMs: number) => T;
  readonly #made = new Map<number, T>();

  constructor(make: (delayMs: number) => T) {
    this.#make = make;
  }

  of(delayMs: number): T {
    const rounded = roundedDelayMs(delayMs);
    let found = this.#made.get(rounded);
    if (found === undefined) {
      found = this.#make(rounded);
      this.#made.set(rounded, found);
    }
    return found;
  }
}

/** Of calls. */
export class QuotaStatuses extends ByDelay<ErrorStatus> {
  constructor() {
    super((delayMs) => makeStatus('QUOTA_EXCEEDED', '', delayMs));
  }
}

/** Of batches: encoded BatchErrors. */
export class QuotaErrors extends ByDelay<Uint8Array> {
  constructor() {
    super((delayMs) => encodeBatchError('QUOTA_EXCEEDED', delayMs));
  }
}

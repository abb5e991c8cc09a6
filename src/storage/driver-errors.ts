import { AssertionError } from '../base/assert.ts';
import { BrokerError } from '../base/errors.ts';
import { StoreFailure, StoreUncertain } from './store.ts';

/** Kinds of errors that are told; drivers have few, and what invents new ones for ever must fill neither memory nor log. */
const KINDS_MAX = 64;

/** Of the program, not of what is outside it: these end the process. */
const DEFECTS = [AssertionError, StoreFailure, TypeError, RangeError, ReferenceError, SyntaxError] as const;

/** The store is away, and what it was asked may be asked again. Anything else is a defect, which no waiting mends. */
export function isOutage(error: unknown): boolean {
  return error instanceof StoreUncertain || (error instanceof BrokerError && error.reason === 'STORE_UNAVAILABLE');
}

/**
 * What a remote store's driver throws beside the outcomes that the port names. A server, a proxy or a driver has more ways to fail than anybody has
 * listed, and none is a reason to end a broker: of a write nothing is known then, which asking again settles; a read has not been answered.
 */
export class DriverErrors {
  readonly #onNotice: (message: string, error: unknown) => void;
  readonly #told = new Set<string>();

  /** `onNotice` hears of each kind once. */
  constructor(onNotice: (message: string, error: unknown) => void) {
    this.#onNotice = onNotice;
  }

  /** What to reject a write with. */
  ofWrite(error: unknown): unknown {
    if (error instanceof StoreUncertain || isNamed(error)) return error;
    this.#tell('a write to the store failed in an unknown way, and is repeated', error);
    return new StoreUncertain('the driver of the store failed', { cause: error });
  }

  /** What to reject a read with. */
  ofRead(error: unknown): unknown {
    if (isNamed(error)) return error;
    this.#tell('a read of the store failed in an unknown way', error);
    return new BrokerError('STORE_UNAVAILABLE', 'the driver of the store failed', { cause: error });
  }

  #tell(message: string, error: unknown): void {
    const { name, code } = (error ?? {}) as { readonly name?: unknown; readonly code?: unknown };
    const kind = `${message} ${String(name)} ${String(code)}`;
    if (this.#told.has(kind) || this.#told.size >= KINDS_MAX) return;
    this.#told.add(kind);
    this.#onNotice(message, error);
  }
}

function isNamed(error: unknown): boolean {
  return error instanceof BrokerError || DEFECTS.some((kind) => error instanceof kind);
}

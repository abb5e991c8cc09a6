import { assert } from '../../base/assert.ts';
import type { Reason } from '../../base/errors.ts';

/** Waiting before void marks and new messages are tried again after the store refused some, in ms. */
export const STORE_RETRY_MS = 250;
/** Before a write of unknown outcome is repeated, in ms. */
export const REPEAT_MS = 50;

/**
 * What a shard may ask of its store, by what it last said. A remote one (a database) may leave the outcome of a write open: then the same bytes
 * are written again until it says, for `timeoutMs`. One that took nothing is not tried with new messages for a while, nor before the
 * void marks of those that it did not take are stored: the log entry and the mark of each cost space and memory too.
 */
export class StoreRules {
  readonly #timeoutMs: number | null;
  /** Why the store took nothing when it was last tried with messages. */
  #refusal: Reason | null = null;
  /** Ms of performance.now(); until then it is not tried with new ones. */
  #refusesUntil = 0;
  readonly #isFull: () => boolean;

  /**
   * `timeoutMs`: how long a write of unknown outcome is repeated; null: the store is embedded, whose writes have an outcome. `isFull`: the store
   * knows without being tried that it has no room for anything.
   */
  constructor(timeoutMs: number | null, isFull: () => boolean) {
    this.#timeoutMs = timeoutMs;
    this.#isFull = isFull;
  }

  /** Its batches are closed in the log before they are acknowledged. */
  get isRemote(): boolean {
    return this.#timeoutMs !== null;
  }

  /** Why new messages are refused, or null. `hasMarks`: of messages before them, marks are missing. */
  refusal(hasMarks: boolean): Reason | null {
    const isTime = performance.now() >= this.#refusesUntil;
    return isTime && !hasMarks && !this.#isFull() ? null : this.#refusal;
  }

  get refusedLast(): boolean {
    return this.#refusal !== null;
  }

  /** A write of unknown outcome, tried since `since` (ms of performance.now()), may be repeated. */
  mayRepeat(since: number): boolean {
    assert(this.#timeoutMs !== null, 'only a database leaves the outcome of a write open');
    return performance.now() - since < this.#timeoutMs;
  }

  /** A group came to its end. Marks alone also do on a full store. */
  took(): void {
    if (this.#refusal !== null && performance.now() >= this.#refusesUntil && !this.#isFull()) this.#refusal = null;
  }

  /**
   * The store took nothing of a group. True if new messages are refused from here on: one failed write may pass; marks that could not be written
   * 250 ms later say that it lasts. A full disk, or a database, says so at once.
   */
  tookNothing(reason: Reason, hadMarks: boolean, until: number): boolean {
    if (reason !== 'STORE_FULL' && !hadMarks && !this.isRemote) return false;
    this.#refusal = reason;
    this.#refusesUntil = until;
    return true;
  }
}

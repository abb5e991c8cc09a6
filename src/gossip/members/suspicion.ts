import { isPlanted } from '../../base/planted.ts';

/** Times in ms of the same clock; `isOwn`: our own probe had no answer, nobody told us. */
export interface SuspicionStart {
  readonly from: string;
  readonly isOwn: boolean;
  /** Confirmations wanted to bring the time down to the least; below 1: none, the least from the start. */
  readonly wanted: number;
  readonly minMs: number;
  readonly maxMs: number;
  readonly now: number;
}

/**
 * suspicion.go remainingSuspicionTime, without the time gone by: from `maxMs` down to `minMs` with the logarithm of the confirmations
 * (Lifeguard, "dynamic suspicion timeouts").
 */
export function suspicionMs(confirmations: number, wanted: number, minMs: number, maxMs: number): number {
  if (wanted < 1 || isPlanted('G1-unconfirmed-at-once')) return minMs;
  const fraction = Math.log(confirmations + 1) / Math.log(wanted + 1);
  return Math.max(minMs, Math.floor(maxMs - fraction * (maxMs - minMs)));
}

/** How long a member has to refute before we call it failed (suspicion.go). */
export class Suspicion {
  readonly isOwn: boolean;
  readonly #wanted: number;
  readonly #minMs: number;
  readonly #maxMs: number;
  readonly #from: Set<string>;
  #startedAt: number;
  #confirmations = 0;
  /** What pauses of ours may still add; to one of our own, what they add beyond themselves. */
  #creditMs: number;
  #hasGrace = true;

  constructor(start: SuspicionStart) {
    this.isOwn = start.isOwn;
    this.#wanted = start.wanted;
    this.#minMs = start.minMs;
    this.#maxMs = start.maxMs;
    this.#startedAt = start.now;
    this.#creditMs = start.maxMs;
    this.#from = new Set([start.from]);
  }

  /** When the member is called failed. */
  get dueAt(): number {
    return this.#startedAt + suspicionMs(this.#confirmations, this.#wanted, this.#minMs, this.#maxMs);
  }

  get confirmations(): number {
    return this.#confirmations;
  }

  /** suspicion.go Confirm: true if this is news, which is then worth telling others. Keeps at most `wanted` + 1 names. */
  confirm(from: string): boolean {
    if (this.#confirmations >= this.#wanted || this.#from.has(from)) return false;
    this.#from.add(from);
    this.#confirmations += 1;
    return true;
  }

  /**
   * We did not run for `pausedMs`: that time does not count, and there are at least `holdMs` from `now` to hear a refutation that waits. All in
   * all a suspicion that others told us of is put off by its longest time and no more, however often we pause; of our own, `holdMs` is.
   */
  pardon(now: number, pausedMs: number, holdMs: number): void {
    const free = this.isOwn ? pausedMs : 0;
    const wanted = Math.max(pausedMs, now + holdMs - this.dueAt) - free;
    const given = Math.min(wanted, this.#creditMs);
    this.#creditMs -= given;
    this.#startedAt += free + given;
  }

  /** The same for a short delay, once: true if it is put off to `now` + `holdMs`. */
  grace(now: number, holdMs: number): boolean {
    if (!this.#hasGrace) return false;
    this.#hasGrace = false;
    this.#startedAt += now + holdMs - this.dueAt;
    return true;
  }
}

import type { NetworkLog } from './types.ts';

/** Between two warnings of one kind: the first wait, doubled while they go on, up to the longest. In ms. */
const EVERY_MS_MIN = 1_000;
const EVERY_MS_MAX = 60_000;

/**
 * Warnings that strangers can cause: of each kind the first at once, then less and less often, at last once a minute, with the number of those that were
 * left out. After a minute without any the next one is a first one again.
 */
export class LogLimit {
  readonly #log: NetworkLog;
  readonly #now: () => number;
  readonly #kinds = new Map<string, { nextAt: number; everyMs: number; leftOut: number }>();

  /** `now`: ms that never fall. */
  constructor(log: NetworkLog, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#now = now;
  }

  /** `kind` is one of a few constants. */
  warn(kind: string, message: string, fields: Readonly<Record<string, unknown>>): void {
    const now = this.#now();
    const state = this.#kinds.get(kind) ?? { nextAt: now, everyMs: EVERY_MS_MIN, leftOut: 0 };
    this.#kinds.set(kind, state);
    if (now < state.nextAt) {
      state.leftOut += 1;
      return;
    }
    this.#log.warn(message, state.leftOut === 0 ? fields : { ...fields, leftOut: state.leftOut });
    if (now - state.nextAt >= EVERY_MS_MAX) state.everyMs = EVERY_MS_MIN;
    state.nextAt = now + state.everyMs;
    state.everyMs = Math.min(EVERY_MS_MAX, state.everyMs * 2);
    state.leftOut = 0;
  }
}

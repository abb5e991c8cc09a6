import type { NetworkLog } from './types.ts';

const EVERY_MS = 1_000;

/** Warnings that strangers can cause: of each kind one a second, which says how many were left out before it. */
export class LogLimit {
  readonly #log: NetworkLog;
  readonly #kinds = new Map<string, { nextAt: number; leftOut: number }>();

  constructor(log: NetworkLog) {
    this.#log = log;
  }

  /** `kind` is one of a few constants. */
  warn(kind: string, message: string, fields: Readonly<Record<string, unknown>>): void {
    const state = this.#kinds.get(kind) ?? { nextAt: 0, leftOut: 0 };
    this.#kinds.set(kind, state);
    const now = performance.now();
    if (now < state.nextAt) {
      state.leftOut += 1;
      return;
    }
    this.#log.warn(message, state.leftOut === 0 ? fields : { ...fields, leftOut: state.leftOut });
    state.nextAt = now + EVERY_MS;
    state.leftOut = 0;
  }
}

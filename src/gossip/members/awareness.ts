import { assert } from '../../base/assert.ts';

/**
 * How well we keep time ourselves (awareness.go; Lifeguard, "local health"): 0 is well, each missed answer or refutation makes it worse.
 * A node that is not well waits longer before it accuses others.
 */
export class Awareness {
  readonly #max: number;
  #score = 0;

  /** Scores are 0 to `max` - 1. */
  constructor(max: number) {
    assert(max >= 1, 'awareness is a factor of at least 1');
    this.#max = max;
  }

  get score(): number {
    return this.#score;
  }

  /** awareness.go ApplyDelta */
  change(delta: number): void {
    this.#score = Math.min(this.#max - 1, Math.max(0, this.#score + delta));
  }

  /** awareness.go ScaleTimeout */
  scale(ms: number): number {
    return ms * (this.#score + 1);
  }
}

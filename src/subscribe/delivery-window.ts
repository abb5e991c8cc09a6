/**
 * Where one subscription stands, on the side that owns its stream. Deliveries come as runs that cover the ids [from, to): everything in that
 * range that a reader may see is in the run, the rest is void or expired. The window takes a run exactly when it continues what was
 * taken before, so that shared tail runs, catch-up runs and repeats may arrive in any mixture: each id is passed on at most once and in order.
 */
export type Take = 'take' | 'repeat' | 'gap' | 'paused';

export class DeliveryWindow {
  /** Next id to pass on. */
  #next: number;
  /** The stream does not drain: nothing is taken until `resume`. */
  #paused = false;
  /** It begins at a time that has not come: shared runs that would continue it are for others, until the shard says where it begins. */
  isAwaiting: boolean;

  constructor(next: number, isAwaiting = false) {
    this.#next = next;
    this.isAwaiting = isAwaiting;
  }

  get next(): number {
    return this.#next;
  }

  get paused(): boolean {
    return this.#paused;
  }

  judge(from: number, to: number): Take {
    if (this.#paused) return 'paused';
    if (to <= this.#next) return 'repeat';
    return from <= this.#next && !this.isAwaiting ? 'take' : 'gap';
  }

  /** The run up to `to` (exclusive) was passed on. */
  took(to: number): void {
    this.#next = Math.max(this.#next, to);
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
  }
}

/** What happened when: counts and the worst latency of each step of the measured window. */

export const TIMELINE_STEP_MS = 250;

export interface Timeline {
  readonly stepMs: number;
  readonly counts: readonly number[];
  /** Worst of each step, in ms; 0 where nothing ended. */
  readonly worstMs: readonly number[];
}

export class TimelineRecorder {
  readonly #counts: number[] = [];
  readonly #worst: number[] = [];
  #began = 0;

  begin(now: number): void {
    this.#began = now;
    this.#counts.length = 0;
    this.#worst.length = 0;
  }

  add(now: number, count: number, latencyMs: number): void {
    const step = Math.floor((now - this.#began) / TIMELINE_STEP_MS);
    while (this.#counts.length <= step) {
      this.#counts.push(0);
      this.#worst.push(0);
    }
    this.#counts[step] = (this.#counts[step] as number) + count;
    if (latencyMs > (this.#worst[step] as number)) this.#worst[step] = latencyMs;
  }

  result(): Timeline {
    return { stepMs: TIMELINE_STEP_MS, counts: [...this.#counts], worstMs: [...this.#worst] };
  }
}

export function mergeTimelines(parts: readonly Timeline[]): Timeline {
  const length = Math.max(0, ...parts.map((part) => part.counts.length));
  const steps = Array.from({ length }, (_, step) => step);
  return {
    stepMs: TIMELINE_STEP_MS,
    counts: steps.map((step) => parts.reduce((sum, part) => sum + (part.counts[step] ?? 0), 0)),
    worstMs: steps.map((step) => Math.max(...parts.map((part) => part.worstMs[step] ?? 0))),
  };
}

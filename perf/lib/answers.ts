/** Single answers of a load with their times, and what those of a stretch of time say. Pure but for the recorder's growth. */

/** What a generator saw, one entry an answer; times in ms since the epoch, by the monotonic clock. */
export interface Answers {
  /** When the measured part began. */
  readonly beganAt: number;
  readonly at: readonly number[];
  /** From when it was due. */
  readonly latencyMs: readonly number[];
  /** Stream that it came on. */
  readonly stream: readonly number[];
}

/** A stretch of a measured part, in ms from its beginning. */
export interface Stretch {
  readonly fromMs: number;
  readonly toMs: number;
}

export interface StretchFigures {
  /** Answers whose frame was due or on its way within it. */
  readonly count: number;
  readonly p99Ms: number;
  readonly worstMs: number;
  /** Longest time that a stream was without an answer. */
  readonly longestGapMs: number;
}

export class AnswersRecorder {
  readonly #at: number[] = [];
  readonly #latencyMs: number[] = [];
  readonly #stream: number[] = [];
  #beganAt = 0;

  /** Times of `performance.now()`: threads count them from different beginnings. */
  begin(now: number): void {
    this.#beganAt = performance.timeOrigin + now;
  }

  add(now: number, stream: number, latencyMs: number): void {
    this.#at.push(performance.timeOrigin + now);
    this.#latencyMs.push(latencyMs);
    this.#stream.push(stream);
  }

  result(): Answers {
    return { beganAt: this.#beganAt, at: this.#at, latencyMs: this.#latencyMs, stream: this.#stream };
  }
}

/** Of all these stretches together. */
export function figuresWithin(parts: readonly Answers[], stretches: readonly Stretch[]): StretchFigures {
  const latencies: number[] = [];
  let longestGapMs = 0;
  for (const { beganAt, at, latencyMs, stream } of parts) {
    const isWithin = (from: number, to: number): boolean =>
      stretches.some(({ fromMs, toMs }) => from <= beganAt + toMs && to >= beganAt + fromMs);
    const last = new Map<number, number>();
    at.forEach((time, index) => {
      const latency = latencyMs[index] as number;
      if (isWithin(time - latency, time)) latencies.push(latency);
      const before = last.get(stream[index] as number) ?? time;
      if (isWithin(before, time)) longestGapMs = Math.max(longestGapMs, time - before);
      last.set(stream[index] as number, time);
    });
  }
  latencies.sort((a, b) => a - b);
  return {
    count: latencies.length,
    p99Ms: latencies[Math.max(0, Math.ceil(latencies.length * 0.99) - 1)] ?? Number.NaN,
    worstMs: latencies.at(-1) ?? Number.NaN,
    longestGapMs,
  };
}

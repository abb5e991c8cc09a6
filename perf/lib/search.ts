/** `--find-max`: the highest rate of an open loop that is kept with a p99 under a limit. */
import { findMax } from './find-max.ts';
import type { Latency } from './histogram.ts';
import type { Plot } from './plot.ts';
import type { Progress } from './progress.ts';
import { formatNumber } from './report.ts';

const TOLERANCE = 0.05;
const PROBES_MAX = 16;
/** Of a rate that counts as kept: a server that falls behind may still answer quickly what it takes. */
const KEPT_MIN = 0.97;

export interface Search<Result> {
  /** 0 if no rate was good. */
  readonly rate: number;
  /** At that rate. */
  readonly best: Result | null;
  readonly results: readonly Result[];
  readonly notes: readonly string[];
  readonly plot: Plot;
}

export async function searchMaximum<Result extends { readonly latency: Latency }>(options: {
  readonly limitMs: number;
  readonly startRate: number;
  readonly progress: Progress;
  readonly tolerance?: number;
  readonly probesMax?: number;
  /** What the rate counts. */
  readonly what: string;
  readonly run: (rate: string) => Promise<Result>;
  readonly rateOf: (result: Result) => number;
}): Promise<Search<Result>> {
  const { limitMs, startRate, progress, tolerance = TOLERANCE, probesMax = PROBES_MAX, what, run, rateOf } = options;
  const { best, probes } = await findMax<Result>({
    startRate,
    tolerance,
    probesMax,
    probe: async (rate) => {
      progress.say(`trying ${formatNumber(rate)} ${what}/s`);
      const result = await run(String(Math.max(1, Math.round(rate))));
      return { isGood: result.latency.p99Ms < limitMs && rateOf(result) > rate * KEPT_MIN, result };
    },
  });
  progress.clear();
  const tried = probes.map(({ rate, result }) => [rate, result.latency.p99Ms] as const);
  return {
    rate: best?.rate ?? 0,
    best: best?.result ?? null,
    results: probes.map(({ result }) => result),
    notes: best === null ? [`no rate had a p99 under ${limitMs} ms`] : [],
    plot: {
      title: 'p99 at each rate that was tried',
      xLabel: `${what} a second`,
      yLabel: 'ms',
      yScale: 'log',
      series: [{ name: 'p99', points: tried.toSorted((a, b) => a[0] - b[0]) }],
    },
  };
}

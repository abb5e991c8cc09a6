/** Latencies in microseconds, 1 us to 10 min with three digits, in hdr-histogram-js' WASM flavour. */
import {
  build,
  decodeFromCompressedBase64,
  encodeIntoCompressedBase64,
  type Histogram,
  initWebAssembly,
} from 'hdr-histogram-js';

const HIGHEST_US = 600_000_000;

/** Once in each thread, before the first histogram. */
export async function loadHistograms(): Promise<void> {
  await initWebAssembly();
}

export function newHistogram(): Histogram {
  return build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: HIGHEST_US,
    numberOfSignificantValueDigits: 3,
    bitBucketSize: 64,
    useWebAssembly: true,
  });
}

export function record(histogram: Histogram, microseconds: number): void {
  histogram.recordValue(Math.min(HIGHEST_US, Math.max(1, Math.round(microseconds))));
}

/** As text for another thread; the histogram's memory is given back. */
export function packHistogram(histogram: Histogram): string {
  const packed = encodeIntoCompressedBase64(histogram);
  histogram.destroy();
  return packed;
}

export interface Latency {
  readonly count: number;
  readonly meanMs: number;
  readonly p50Ms: number;
  readonly p90Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly maxMs: number;
}

/** Percentiles of the sum of several packed histograms. */
export function summarize(packed: readonly string[]): Latency {
  return latencyOf(sumOf(packed));
}

/**
 * The same, corrected for coordinated omission (Gil Tene's method, as HdrHistogram does it): a value longer than the interval at which each
 * caller comes stands for those who would have come meanwhile and waited less and less. For closed loops, whose callers wait instead.
 */
export function corrected(packed: readonly string[], intervalMs: number): Latency {
  const sum = sumOf(packed);
  const copy = sum.copyCorrectedForCoordinatedOmission(Math.max(1, Math.round(intervalMs * 1_000)));
  sum.destroy();
  return latencyOf(copy);
}

/** HdrHistogram's text form in ms, which its plotters read (.hgrm). */
export function percentileText(packed: readonly string[]): string {
  const sum = sumOf(packed);
  const text = sum.outputPercentileDistribution(5, 1_000);
  sum.destroy();
  return text;
}

/** Points of a percentile plot: [1 / (1 - quantile), ms]. */
export function percentileCurve(packed: readonly string[]): [number, number][] {
  const sum = sumOf(packed);
  const points: [number, number][] = [];
  for (let x = 1; x <= Math.max(10, Math.min(1e6, sum.totalCount)); x *= 1.25) {
    points.push([x, sum.getValueAtPercentile(100 * (1 - 1 / x)) / 1_000]);
  }
  sum.destroy();
  return points;
}

function sumOf(packed: readonly string[]): Histogram {
  const sum = newHistogram();
  for (const text of packed) {
    const part = decodeFromCompressedBase64(text, 64, true);
    sum.add(part);
    part.destroy();
  }
  return sum;
}

function latencyOf(sum: Histogram): Latency {
  const ms = (percentile: number) => sum.getValueAtPercentile(percentile) / 1_000;
  const latency = {
    count: sum.totalCount,
    meanMs: sum.mean / 1_000,
    p50Ms: ms(50),
    p90Ms: ms(90),
    p99Ms: ms(99),
    p999Ms: ms(99.9),
    maxMs: sum.maxValue / 1_000,
  };
  sum.destroy();
  return latency;
}

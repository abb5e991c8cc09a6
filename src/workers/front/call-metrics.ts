import { METHODS } from './call-table.ts';

/** gRPC has 17 status codes. */
const STATUSES = 17;
/** Bucket i counts durations below 2^i / 16 ms: from 62.5 us to 64 s. */
export const DURATION_BUCKETS = 21;

/** Counts of answered calls by method and status, and their durations: plain columns, read at scrape. */
export class CallMetrics {
  readonly counts = new Float64Array(METHODS.length * STATUSES);
  readonly buckets = new Float64Array(METHODS.length * DURATION_BUCKETS);
  readonly sumsMs = new Float64Array(METHODS.length);

  answered(method: number, status: number, durationMs: number): void {
    const cell = method * STATUSES + status;
    this.counts[cell] = (this.counts[cell] as number) + 1;
    this.sumsMs[method] = (this.sumsMs[method] as number) + durationMs;
    const bucket = Math.min(DURATION_BUCKETS - 1, 32 - Math.clz32(durationMs * 16));
    const at = method * DURATION_BUCKETS + bucket;
    this.buckets[at] = (this.buckets[at] as number) + 1;
  }

  count(method: number, status: number): number {
    return this.counts[method * STATUSES + status] as number;
  }

  /** Upper bound of a bucket in ms; the last one is unbounded. */
  static bucketLimitMs(bucket: number): number {
    return bucket === DURATION_BUCKETS - 1 ? Number.POSITIVE_INFINITY : 2 ** bucket / 16;
  }
}

/** What the load is worked out from beside the shards' counters: numbers that only grow. */
export interface FrontLook {
  /** To subscribers. */
  readonly messagesOut: number;
  readonly bytesOut: number;
  /** Durations of single publishes: answers below each of `publishLimitsMs`, each counted in one bucket. */
  readonly publishBuckets: readonly number[];
  readonly publishLimitsMs: readonly number[];
}

/** The last seconds of the node as a whole. */
export interface RecentLoad {
  readonly messagesIn: number;
  readonly messagesOut: number;
  /** All four per second. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Of the main thread's time and of all cores, 0 to 1. */
  readonly mainUtilization: number;
  readonly cpuUtilization: number;
  /** 99 of 100 took no longer, as far as the buckets tell; 0: there were none. */
  readonly publishP99Ms: number;
  readonly storeWriteP99Ms: number;
}

/**
 * The bucket limit below which `share` of what was counted between two looks lies; 0 if nothing was. Of the last bucket, which has no limit, the limit
 * in front of it.
 */
export function quantileBetween(
  before: readonly number[],
  after: readonly number[],
  limits: readonly number[],
  share: number,
): number {
  const counts = after.map((count, i) => count - (before[i] ?? 0));
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total <= 0) return 0;
  let seen = 0;
  let limit = 0;
  for (const [i, count] of counts.entries()) {
    seen += count;
    const next = limits[i] ?? Number.POSITIVE_INFINITY;
    if (Number.isFinite(next)) limit = next;
    if (seen >= total * share) return limit;
  }
  return limit;
}

import { BucketGrid, DURATION_SHAPE } from '../../shm/histogram.ts';
import { Method } from '../front/call-table.ts';
import type { Dispatcher } from '../front/dispatcher.ts';
import type { FrontLook } from '../slots/recent-load.ts';

const GRID = new BucketGrid(DURATION_SHAPE);
const BUCKETS = Array.from({ length: GRID.length }, (_, bucket) => bucket);
const LIMITS_MS = BUCKETS.map((bucket) => GRID.limitOf(bucket) / 1_000);

/** Once a second: what the main thread has counted so far. */
export function frontLook({ metrics, subscriptions, consumers }: Dispatcher): FrontLook {
  const publishes = metrics.durations[Method.PUBLISH];
  return {
    messagesOut: subscriptions.delivered + consumers.messages,
    bytesOut: subscriptions.deliveredBytes + consumers.bytes,
    publishBuckets: BUCKETS.map((bucket) => publishes?.bucketCount(bucket) ?? 0),
    publishLimitsMs: LIMITS_MS,
  };
}

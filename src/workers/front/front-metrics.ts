import {
  RAFT_METRICS,
  RAFT_SYNC,
  SHARD_GROUP_MESSAGES,
  SHARD_METRICS,
  SHARD_STORE_WRITE,
} from '../../telemetry/catalogue.ts';
import { MetricsRegistry } from '../../telemetry/metrics.ts';
import type { RaftCounters } from '../raft/raft-counters.ts';
import type { ShardCounters } from '../shard/shard-counters.ts';
import { CallMetrics, DURATION_BUCKETS } from './call-metrics.ts';
import { METHODS } from './call-table.ts';
import type { Dispatcher } from './dispatcher.ts';

/** Everything that /metrics shows, read from the columns and shared counters when it is scraped. */
export function frontMetrics(
  dispatcher: Dispatcher,
  shards: readonly ShardCounters[],
  raft: RaftCounters,
): MetricsRegistry {
  const registry = new MetricsRegistry();
  const { counts, buckets, sumsMs } = dispatcher.metrics;
  const bucketLimitsMs = Array.from({ length: DURATION_BUCKETS }, (_, bucket) => CallMetrics.bucketLimitMs(bucket));
  registry.addCalls({ methods: METHODS, counts, buckets, sumsMs, bucketLimitsMs });
  const { subscriptions, consumers, seats } = dispatcher;
  registry.addActiveSubscribers(() => seats.open);
  registry.addCounter(
    'broker_deliveries_total',
    'Messages written to subscribers.',
    {},
    () => subscriptions.delivered + consumers.messages,
  );
  registry.addGauge('broker_consume_streams', 'Consume streams that are open.', {}, () => consumers.count);
  registry.addCounter(
    'broker_broadcasts_dropped_total',
    'Broadcasts that a full subscriber did not get.',
    {},
    () => subscriptions.broadcastsDropped,
  );
  registry.addCounter(
    'broker_subscribers_stalled_total',
    'Subscriptions ended because they read nothing.',
    {},
    () => subscriptions.stalled + consumers.stalled,
  );
  const { producers } = dispatcher;
  registry.addGauge('broker_publish_streams', 'Open publish streams.', {}, () => producers.count);
  registry.addGauge(
    'broker_publish_stream_in_flight_bytes',
    'Bytes of batches without a result.',
    {},
    () => producers.bytesInFlight,
  );
  registry.addCounter(
    'broker_publish_stream_batches_total',
    'Batches taken from publish streams.',
    {},
    () => producers.batches,
  );
  registry.addCounter(
    'broker_publish_stream_messages_total',
    'Messages of these batches.',
    {},
    () => producers.messages,
  );
  registry.addCounter(
    'broker_publish_stream_refused_total',
    'Batches of publish streams that were refused.',
    {},
    () => producers.refused,
  );
  registry.addGauge('broker_calls_in_flight', 'Calls taken in and not answered.', {}, () => dispatcher.callsInFlight);
  registry.addGauge('broker_in_flight_bytes', 'Bytes of these calls.', {}, () => dispatcher.bytesInFlight);
  shards.forEach((counters, shard) => {
    const labels = { shard: String(shard) };
    registry.addBlock(SHARD_METRICS, (slot) => counters.get(slot), labels);
    registry.addHistogram(
      SHARD_GROUP_MESSAGES.name,
      SHARD_GROUP_MESSAGES.help,
      labels,
      counters.groupMessages,
      SHARD_GROUP_MESSAGES.scale,
    );
    registry.addHistogram(
      SHARD_STORE_WRITE.name,
      SHARD_STORE_WRITE.help,
      labels,
      counters.storeWrite,
      SHARD_STORE_WRITE.scale,
    );
  });
  registry.addBlock(RAFT_METRICS, (slot) => raft.get(slot), {});
  registry.addHistogram(RAFT_SYNC.name, RAFT_SYNC.help, {}, raft.sync, RAFT_SYNC.scale);
  return registry;
}

import {
  RAFT_METRICS,
  RAFT_SYNC,
  RESIZE_PAUSE,
  SHARD_GROUP_MESSAGES,
  SHARD_METRICS,
  SHARD_STORE_WRITE,
} from '../../telemetry/catalogue.ts';
import { MetricsRegistry } from '../../telemetry/metrics.ts';
import type { Peers } from '../peers/peers.ts';
import type { RaftCounters } from '../raft/raft-counters.ts';
import type { ShardCounters } from '../shard/shard-counters.ts';
import type { MoveCounters } from '../slots/move-counters.ts';
import type { SlotTable } from '../slots/slot-table.ts';
import { CallMetrics, DURATION_BUCKETS } from './call-metrics.ts';
import { METHODS } from './call-table.ts';
import type { Dispatcher } from './dispatcher.ts';

/** What there is to show of the shards. `isThere`: the others are not shown. */
export interface ShardFigures {
  readonly counters: readonly ShardCounters[];
  readonly table: SlotTable;
  readonly moves: MoveCounters;
  readonly isThere: (shard: number) => boolean;
}

/** Everything that /metrics shows, read from the columns and shared counters when it is scraped. */
export function frontMetrics(dispatcher: Dispatcher, shards: ShardFigures, raft: RaftCounters): MetricsRegistry {
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
  registry.addGauge('broker_store_weak', '1 while settings of the database can lose acknowledged messages.', {}, () =>
    producers.isWeak ? 1 : 0,
  );
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
  registry.addGauge(
    'broker_receiving_bytes',
    'Bytes kept of requests that have not come to their end.',
    {},
    () => dispatcher.receiving.bytes,
  );
  registry.addGauge(
    'broker_unsent_bytes',
    'Bytes of deliveries that subscribers have not taken.',
    {},
    () => dispatcher.unsent.bytes,
  );
  addPeers(registry, dispatcher.peers);
  addShards(registry, shards);
  registry.addBlock(RAFT_METRICS, (slot) => raft.get(slot), {});
  registry.addHistogram(RAFT_SYNC.name, RAFT_SYNC.help, {}, raft.sync, RAFT_SYNC.scale);
  return registry;
}

function addPeers(registry: MetricsRegistry, peers: Peers): void {
  registry.addGauge('broker_peers_open', 'Other nodes that this one sends messages to.', {}, () => peers.open);
  registry.addGauge('broker_peers_heard', 'Other nodes that this one takes messages of.', {}, () => peers.heard);
  registry.addGauge('broker_peers_unsent_bytes', 'Bytes that wait for peers.', {}, () => peers.unsentBytes);
  registry.addGauge(
    'broker_peers_demanded_subjects',
    'Subjects that other nodes have subscribers of.',
    {},
    () => peers.demand.size,
  );
  const batches = 'Stored batches sent to nodes with subscribers of their subject, or received from their writers.';
  const broadcasts = 'Broadcasts sent to other nodes, or received from them.';
  const add = (name: string, help: string, direction: string, value: () => number): void =>
    registry.addCounter(name, help, { direction }, value);
  add('broker_peers_batches_total', batches, 'out', () => peers.batchesSent);
  add('broker_peers_batches_total', batches, 'in', () => peers.batchesReceived);
  add('broker_peers_broadcasts_total', broadcasts, 'out', () => peers.broadcastsSent);
  add('broker_peers_broadcasts_total', broadcasts, 'in', () => peers.broadcastsReceived);
  const dropped =
    'Batches and broadcasts that a peer had no room for or was not reached with (out), and batches that had no reader or no room here (in).';
  add('broker_peers_dropped_total', dropped, 'out', () => peers.unsent);
  add('broker_peers_dropped_total', dropped, 'in', () => peers.batchesIgnored);
}

function addShards(
  registry: MetricsRegistry,
  { counters: blocks, table, moves, isThere: isShard }: ShardFigures,
): void {
  registry.addHistogram(RESIZE_PAUSE.name, RESIZE_PAUSE.help, {}, moves.pause, RESIZE_PAUSE.scale);
  registry.addCounter(
    'broker_resize_failed_pieces_total',
    'Moves of slots that were given up.',
    {},
    () => moves.failed,
  );
  registry.addGauge(
    'broker_slots_held',
    'Slots on their way to another shard: their work waits.',
    {},
    () => table.held,
  );
  blocks.forEach((counters, shard) => {
    const labels = { shard: String(shard) };
    const isThere = (): boolean => isShard(shard);
    registry.addGauge('broker_shard_slots', 'Slots, of 1024, that it owns.', labels, () => table.count(shard), isThere);
    const moved = (direction: string, slots: Float64Array): void =>
      registry.addCounter(
        'broker_shard_slots_moved_total',
        'Slots that it was given (in) and that it gave away (out).',
        { ...labels, direction },
        () => slots[shard] as number,
        isThere,
      );
    moved('in', moves.slotsIn);
    moved('out', moves.slotsOut);
    registry.addBlock(SHARD_METRICS, (slot) => counters.get(slot), labels, isThere);
    registry.addHistogram(
      SHARD_GROUP_MESSAGES.name,
      SHARD_GROUP_MESSAGES.help,
      labels,
      counters.groupMessages,
      SHARD_GROUP_MESSAGES.scale,
      isThere,
    );
    registry.addHistogram(
      SHARD_STORE_WRITE.name,
      SHARD_STORE_WRITE.help,
      labels,
      counters.storeWrite,
      SHARD_STORE_WRITE.scale,
      isThere,
    );
  });
}

import { REASON_NAMES, type Reason } from '../../base/errors.ts';
import { VERSION } from '../../base/version.ts';
import type { Config } from '../../config/schema.ts';
import { CALL_DURATION, STREAM_BATCH } from '../../telemetry/catalogue.ts';
import { MetricsRegistry, type Sample } from '../../telemetry/metrics.ts';
import { REFUSED_AT } from '../front/call-metrics.ts';
import { METHODS } from '../front/call-table.ts';
import type { Dispatcher } from '../front/dispatcher.ts';
import type { Peers } from '../peers/peers.ts';
import type { RaftCounters } from '../raft/raft-counters.ts';
import { addRaft } from './raft-metrics.ts';
import { addShards, type ShardFigures } from './shard-metrics.ts';
import { addTenants } from './tenant-metrics.ts';

/** Of batches of streams, which no call's code tells: alerts watch them, and would not see the first one of a series that begins with it. */
const WATCHED_REASONS: ReadonlySet<Reason> = new Set<Reason>(['DATA_LOSS', 'INTERNAL_ERROR', 'OUTCOME_UNKNOWN']);

export interface FrontFigures {
  readonly dispatcher: Dispatcher;
  readonly shards: ShardFigures;
  readonly raft: RaftCounters;
  readonly config: Config;
  readonly nodeId: string;
  readonly isReady: () => boolean;
  /** Open connections of clients, and how many were closed because there were too many; null before the port is open. */
  readonly connections: () => {
    readonly open: number;
    readonly refused: number;
    readonly cuts: Readonly<Record<string, number>>;
  } | null;
}

/** Everything that /metrics shows, read from the columns and shared counters when it is scraped. What matters most comes first (metrics.series_max). */
export function frontMetrics(figures: FrontFigures): MetricsRegistry {
  const { dispatcher, config, connections } = figures;
  const registry = new MetricsRegistry({ seriesMax: config.metrics.seriesMax });
  addNode(registry, figures);
  const { counts, durations, refusals } = dispatcher.metrics;
  registry.addCalls({ methods: METHODS, counts, durations, duration: CALL_DURATION });
  const refused = 'Calls, streams and batches of streams that were refused, by reason, and where that was decided.';
  registry.addSamples('counter', 'broker_refused_total', refused, () => refusedSamples(refusals));
  registry.addGauge('broker_calls_in_flight', 'Calls taken in and not answered.', {}, () => dispatcher.callsInFlight);
  registry.addGauge(
    'broker_in_flight_bytes',
    'Bytes of calls taken in and not answered.',
    {},
    () => dispatcher.bytesInFlight,
  );
  registry.addGauge(
    'broker_receiving_bytes',
    'Bytes kept of requests that have not come to their end.',
    {},
    () => dispatcher.receiving.bytes,
  );
  registry.addCounter(
    'broker_requests_evicted_total',
    'Requests that were slow, or of a greedy connection, and gave way to others before they had come to their end.',
    {},
    () => dispatcher.receiving.evicted,
  );
  registry.addCounter(
    'broker_requests_turned_away_total',
    'Requests that were refused while they came, because the room for those that have not come to their end was taken.',
    {},
    () => dispatcher.receiving.refused,
  );
  registry.addGauge('broker_connections', 'Open connections of clients.', {}, () => connections()?.open ?? 0);
  registry.addCounter(
    'broker_connections_refused_total',
    'Connections closed because there were too many.',
    {},
    () => connections()?.refused ?? 0,
  );
  registry.addSamples(
    'counter',
    'broker_connections_cut_total',
    'Connections that were ended, or not taken, for what their clients did; the log names these.',
    () => Object.entries(connections()?.cuts ?? {}).map(([reason, value]) => ({ labels: { reason }, value })),
  );
  addStreams(registry, dispatcher);
  addTenants(registry, dispatcher.producers.quotas);
  addSubscriptions(registry, dispatcher, figures.shards);
  addRaft(registry, figures.raft);
  addPeers(registry, dispatcher.peers);
  addShards(registry, figures.shards, config.store.kind);
  return registry;
}

function addNode(registry: MetricsRegistry, { config, nodeId, isReady, dispatcher }: FrontFigures): void {
  registry.addGauge(
    'broker_node_info',
    'Always 1: which node this is, and what it runs.',
    { node: nodeId, cluster: config.cluster, store: config.store.kind, version: VERSION, node_js: process.version },
    () => 1,
  );
  registry.addGauge('broker_ready', '1 while /readyz says that the node should get traffic.', {}, () =>
    isReady() ? 1 : 0,
  );
  registry.addGauge('broker_store_weak', '1 while settings of the database can lose acknowledged messages.', {}, () =>
    dispatcher.producers.isWeak ? 1 : 0,
  );
  const { limits, subjects, producers, subscribe } = config;
  const limit = (key: string, value: number): Sample => ({ labels: { key }, value });
  const configured = [
    limit('limits.connections', limits.connections),
    limit('limits.in_flight_bytes', limits.inFlightBytes),
    limit('limits.in_flight_calls', limits.inFlightCalls),
    limit('limits.producer_streams', limits.producerStreams),
    limit('limits.subscriptions', limits.subscriptions),
    limit('producers.max', producers.max),
    limit('subjects.max', subjects.max),
    limit('subscribe.unsent_bytes', subscribe.unsentBytes),
  ];
  registry.addSamples('gauge', 'broker_configured_limit', 'Settings that bound what is shown here.', () => configured);
}

function refusedSamples(refusals: Dispatcher['metrics']['refusals']): Sample[] {
  return REFUSED_AT.flatMap((at) => {
    const column = refusals[at];
    return REASON_NAMES.flatMap((reason, code) => {
      const value = column[code] as number;
      const isShown = value > 0 || (at === 'batch' && WATCHED_REASONS.has(reason));
      return isShown ? [{ labels: { at, reason }, value }] : [];
    });
  });
}

function addStreams(registry: MetricsRegistry, { producers, metrics }: Dispatcher): void {
  registry.addGauge('broker_publish_streams', 'Open publish streams.', {}, () => producers.count);
  registry.addGauge(
    'broker_publish_stream_in_flight_bytes',
    'Bytes of batches without a result.',
    {},
    () => producers.bytesInFlight,
  );
  registry.addGauge(
    'broker_publish_stream_window_bytes',
    'What all publish streams together may have in flight.',
    {},
    () => producers.windowBytes,
  );
  registry.addCounter(
    'broker_publish_stream_batches_total',
    'Batches taken from publish streams.',
    {},
    () => producers.batches,
  );
  registry.addCounter(
    'broker_publish_stream_messages_total',
    'Messages of batches taken from publish streams.',
    {},
    () => producers.messages,
  );
  registry.addCounter(
    'broker_publish_stream_refused_total',
    'Batches of publish streams that were refused.',
    {},
    () => producers.refused,
  );
  registry.addHistogram(STREAM_BATCH, {}, [metrics.batches]);
}

function addSubscriptions(
  registry: MetricsRegistry,
  dispatcher: Dispatcher,
  { counters, isThere }: ShardFigures,
): void {
  const { subscriptions, consumers, seats, unsent } = dispatcher;
  registry.addActiveSubscribers(() => seats.open);
  registry.addGauge('broker_consume_streams', 'Consume streams that are open.', {}, () => consumers.count);
  registry.addCounter(
    'broker_deliveries_total',
    'Messages written to subscribers.',
    {},
    () => subscriptions.delivered + consumers.messages,
  );
  registry.addGauge(
    'broker_subscription_lag_max_messages',
    'Most messages that any subscription has before it.',
    {},
    () => Math.max(0, ...counters.map((shard, number) => (isThere(number) ? shard.get('lag_max') : 0))),
  );
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
  registry.addGauge(
    'broker_unsent_bytes',
    'Bytes of deliveries that subscribers have not taken.',
    {},
    () => unsent.bytes,
  );
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

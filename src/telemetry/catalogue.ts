import type { HistogramMetric, SlotMetric } from './metrics.ts';

/** The broker's own metrics that are plain slots of a thread's counters: `broker_<area>_<what>_<unit>`. Labelled with the shard. */
export const SHARD_METRICS = [
  {
    slot: 'messages_total',
    kind: 'counter',
    name: 'broker_shard_messages_total',
    help: 'Messages given to the store.',
  },
  {
    slot: 'bytes_total',
    kind: 'counter',
    name: 'broker_shard_bytes_total',
    help: 'Bytes of batches given to the store.',
  },
  {
    slot: 'groups_total',
    kind: 'counter',
    name: 'broker_shard_groups_total',
    help: 'Durable writes: groups of batches.',
  },
  { slot: 'batches_total', kind: 'counter', name: 'broker_shard_batches_total', help: 'Batches, one subject each.' },
  { slot: 'damaged_total', kind: 'counter', name: 'broker_shard_damaged_total', help: 'Batches found damaged.' },
  {
    slot: 'queue_bytes',
    kind: 'gauge',
    name: 'broker_shard_queue_bytes',
    help: 'Bytes that wait in the ring from the main thread.',
  },
  {
    slot: 'queue_wait_ms',
    kind: 'gauge',
    name: 'broker_shard_queue_wait_seconds',
    help: 'Wait in the ring of the request taken last; 0 once nothing comes.',
    scale: 1e-3,
  },
  {
    slot: 'active_subjects',
    kind: 'gauge',
    name: 'broker_shard_active_subjects',
    help: 'Subjects with something in memory.',
  },
  { slot: 'subscriptions', kind: 'gauge', name: 'broker_shard_subscriptions', help: 'Subscriptions served.' },
  {
    slot: 'catch_up_readers',
    kind: 'gauge',
    name: 'broker_shard_catch_up_readers',
    help: 'Subscriptions that are not at the tail: they read the store, or wait until their stream has drained.',
  },
  {
    slot: 'parked_fetches',
    kind: 'gauge',
    name: 'broker_shard_parked_fetches',
    help: 'Fetches that wait for a verdict, or for their turn to read a database.',
  },
  {
    slot: 'event_loop_utilization',
    kind: 'gauge',
    name: 'broker_shard_event_loop_utilization_ratio',
    help: 'Share of the last second that the thread was busy, 0 to 1.',
  },
  { slot: 'store_bytes', kind: 'gauge', name: 'broker_shard_store_bytes', help: 'Bytes kept in the store.' },
] as const satisfies readonly SlotMetric<string>[];

/** Of all shards together: a machine with many cores would show too many series of what is no load of a shard. Counters stay when a shard goes. */
export const SHARD_SUMS = [
  {
    slot: 'memory_reads_total',
    kind: 'counter',
    name: 'broker_store_memory_reads_total',
    help: 'Reads of a database that were answered from memory.',
  },
  {
    slot: 'database_reads_total',
    kind: 'counter',
    name: 'broker_store_database_reads_total',
    help: 'Reads of messages that a database was asked for.',
  },
  {
    slot: 'read_bytes_total',
    kind: 'counter',
    name: 'broker_store_read_bytes_total',
    help: 'Bytes of batches that the store was asked for and gave; those at hand in memory are not among them.',
  },
  {
    slot: 'write_failures_total',
    kind: 'counter',
    name: 'broker_store_write_failures_total',
    help: 'Writes that the store refused, or answered in a way that leaves open what became of them.',
  },
  {
    slot: 'read_failures_total',
    kind: 'counter',
    name: 'broker_store_read_failures_total',
    help: 'Reads that the store did not answer.',
  },
  { slot: 'store_segments', kind: 'gauge', name: 'broker_store_segments', help: 'Segment files.' },
  { slot: 'store_batches', kind: 'gauge', name: 'broker_store_batches', help: 'Batches in the index of the store.' },
  { slot: 'store_subjects', kind: 'gauge', name: 'broker_store_subjects', help: 'Subjects in the index of the store.' },
  {
    slot: 'store_index_bytes',
    kind: 'gauge',
    name: 'broker_store_index_bytes',
    help: 'Memory of the index of the store, and of the notes for the next segment index.',
  },
  {
    slot: 'connections_open',
    kind: 'gauge',
    name: 'broker_store_connections',
    help: 'Connections of the shards to the database.',
  },
  {
    slot: 'connections_busy',
    kind: 'gauge',
    name: 'broker_store_requests_in_flight',
    help: 'Requests of the shards that the database works on.',
  },
  {
    slot: 'connections_waiting',
    kind: 'gauge',
    name: 'broker_store_requests_waiting',
    help: 'Requests of the shards that wait for their turn at the database.',
  },
  {
    slot: 'peer_batches_total',
    kind: 'counter',
    name: 'broker_peers_stored_batches_total',
    help: 'Stored batches handed on for other nodes.',
  },
  {
    slot: 'peer_batches_dropped_total',
    kind: 'counter',
    name: 'broker_peers_stored_batches_dropped_total',
    help: 'Stored batches for other nodes that found no room on the ring: those nodes read them.',
  },
  {
    slot: 'peer_batches_kept_total',
    kind: 'counter',
    name: 'broker_peers_batches_kept_total',
    help: 'Batches of other nodes that are kept for reads.',
  },
  {
    slot: 'peer_batches_refused_total',
    kind: 'counter',
    name: 'broker_peers_batches_refused_total',
    help: 'Batches of other nodes that are not what they are said to be.',
  },
] as const satisfies readonly SlotMetric<string>[];

/** Of the raft thread; no labels. */
export const RAFT_METRICS = [
  { slot: 'term', kind: 'gauge', name: 'broker_raft_term', help: 'Raft term.' },
  { slot: 'applied', kind: 'gauge', name: 'broker_raft_applied_index', help: 'Last entry applied.' },
  {
    slot: 'committed',
    kind: 'gauge',
    name: 'broker_raft_committed_index',
    help: 'Last entry that is known to be durable on a majority.',
  },
  { slot: 'last_index', kind: 'gauge', name: 'broker_raft_last_index', help: 'Last entry of the log.' },
  {
    slot: 'has_leader',
    kind: 'gauge',
    name: 'broker_raft_has_leader',
    help: '1 while it is known who leads; without a leader nothing is published.',
  },
  {
    slot: 'leader_changes_total',
    kind: 'counter',
    name: 'broker_raft_leader_changes_total',
    help: 'Times that another leader, or none, became known.',
  },
  {
    slot: 'snapshots_total',
    kind: 'counter',
    name: 'broker_raft_snapshots_total',
    help: 'Snapshots taken.',
  },
  {
    slot: 'snapshot_index',
    kind: 'gauge',
    name: 'broker_raft_snapshot_index',
    help: 'Last entry covered by a snapshot.',
  },
  { slot: 'entries_total', kind: 'counter', name: 'broker_raft_entries_total', help: 'Entries proposed.' },
  {
    slot: 'command_bytes_total',
    kind: 'counter',
    name: 'broker_raft_command_bytes_total',
    help: 'Bytes of commands proposed.',
  },
  { slot: 'subjects', kind: 'gauge', name: 'broker_raft_subjects', help: 'Subjects known to the state machine.' },
  { slot: 'producers', kind: 'gauge', name: 'broker_raft_producers', help: 'Producers known to the state machine.' },
  {
    slot: 'state_bytes',
    kind: 'gauge',
    name: 'broker_raft_state_bytes',
    help: 'Memory of the state machine.',
  },
  {
    slot: 'log_memory_bytes',
    kind: 'gauge',
    name: 'broker_raft_log_memory_bytes',
    help: 'Memory of the entries of the log that are not on the disk only.',
  },
  {
    slot: 'open_allotments',
    kind: 'gauge',
    name: 'broker_raft_open_allotments',
    help: 'Allotments without a verdict.',
  },
  {
    slot: 'log_time_ms',
    kind: 'gauge',
    name: 'broker_raft_log_time_seconds',
    help: 'Log time of the last entry, since 1970.',
    scale: 1e-3,
  },
  {
    slot: 'untrusted_total',
    kind: 'counter',
    name: 'broker_raft_untrusted_connections_total',
    help: 'Connections to the Raft port that were refused: clear text where TLS is needed, or no certificate of a node of this cluster.',
  },
  {
    slot: 'event_loop_utilization',
    kind: 'gauge',
    name: 'broker_raft_event_loop_utilization_ratio',
    help: 'Share of the last second that the thread was busy, 0 to 1.',
  },
] as const satisfies readonly SlotMetric<string>[];

export type RaftSlot = (typeof RAFT_METRICS)[number]['slot'];

/** Names for the raft thread's CounterBlock. */
export const RAFT_SLOTS: readonly RaftSlot[] = RAFT_METRICS.map(({ slot }) => slot);

/** Limits of the buckets that are shown of times, in us: each doubling, and its middle where p99 matters, from 0.5 ms to 128 ms. */
const DURATION_LIMITS_US: readonly number[] = Array.from({ length: 19 }, (_, doubling) => 62.5 * 2 ** doubling).flatMap(
  (limit) => (limit >= 500 && limit < 128_000 ? [limit, limit * 1.5] : [limit]),
);

const duration = (name: string, help: string): HistogramMetric => ({
  name,
  help,
  scale: 1e-6,
  limits: DURATION_LIMITS_US,
});

export const GROUP_MESSAGES: HistogramMetric = {
  name: 'broker_store_group_messages',
  help: 'Messages of a durable write.',
  scale: 1,
  limits: Array.from({ length: 17 }, (_, doubling) => 2 ** doubling),
};
export const STORE_WRITE = duration('broker_store_write_seconds', 'Time of a durable write.');
export const STORE_READ = duration(
  'broker_store_read_seconds',
  'Time of a read of the disk or the database; what memory has is not counted.',
);
export const RAFT_SYNC = duration('broker_raft_sync_seconds', 'Time to make entries durable.');
export const RAFT_APPEND = duration('broker_raft_append_seconds', 'Time to write entries, without the sync.');
/** Of the main thread: slots that change their shard. */
export const RESIZE_PAUSE = duration(
  'broker_resize_pause_seconds',
  'Time for which work of the slots of one piece was held.',
);
export const CALL_DURATION = duration(
  'rpc_request_get_method_duration',
  'Seconds from the arrival of a call to its answer; of calls that are no streams.',
);
export const STREAM_BATCH = duration(
  'broker_publish_stream_batch_seconds',
  'Time from taking in a batch of a publish stream to its result.',
);

import type { SlotMetric } from './metrics.ts';

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
    help: 'Wait in the ring of the request taken last.',
    scale: 1e-3,
  },
  {
    slot: 'active_subjects',
    kind: 'gauge',
    name: 'broker_shard_active_subjects',
    help: 'Subjects with something in memory.',
  },
  {
    slot: 'memory_reads_total',
    kind: 'counter',
    name: 'broker_shard_memory_reads_total',
    help: 'Reads of a database that were answered from memory.',
  },
  {
    slot: 'database_reads_total',
    kind: 'counter',
    name: 'broker_shard_database_reads_total',
    help: 'Reads of messages that a database was asked for.',
  },
  {
    slot: 'peer_batches_total',
    kind: 'counter',
    name: 'broker_shard_peer_batches_total',
    help: 'Stored batches handed on for other nodes.',
  },
  {
    slot: 'peer_batches_dropped_total',
    kind: 'counter',
    name: 'broker_shard_peer_batches_dropped_total',
    help: 'Stored batches for other nodes that found no room on the ring: those nodes read them.',
  },
  {
    slot: 'peer_batches_kept_total',
    kind: 'counter',
    name: 'broker_shard_peer_batches_kept_total',
    help: 'Batches of other nodes that are kept for reads.',
  },
  {
    slot: 'peer_batches_refused_total',
    kind: 'counter',
    name: 'broker_shard_peer_batches_refused_total',
    help: 'Batches of other nodes that are not what they are said to be.',
  },
  { slot: 'subscriptions', kind: 'gauge', name: 'broker_shard_subscriptions', help: 'Subscriptions served.' },
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
  { slot: 'store_segments', kind: 'gauge', name: 'broker_shard_store_segments', help: 'Segment files.' },
  {
    slot: 'store_batches',
    kind: 'gauge',
    name: 'broker_shard_store_batches',
    help: 'Batches in the index of the store.',
  },
  {
    slot: 'store_subjects',
    kind: 'gauge',
    name: 'broker_shard_store_subjects',
    help: 'Subjects in the index of the store.',
  },
  {
    slot: 'store_index_bytes',
    kind: 'gauge',
    name: 'broker_shard_store_index_bytes',
    help: 'Memory of the index of the store, and of the notes for the next segment index.',
  },
] as const satisfies readonly SlotMetric<string>[];

/** Of the raft thread; no labels. */
export const RAFT_METRICS = [
  { slot: 'term', kind: 'gauge', name: 'broker_raft_term', help: 'Raft term.' },
  { slot: 'applied', kind: 'gauge', name: 'broker_raft_applied_index', help: 'Last entry applied.' },
  { slot: 'last_index', kind: 'gauge', name: 'broker_raft_last_index', help: 'Last entry of the log.' },
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
    slot: 'event_loop_utilization',
    kind: 'gauge',
    name: 'broker_raft_event_loop_utilization_ratio',
    help: 'Share of the last second that the thread was busy, 0 to 1.',
  },
] as const satisfies readonly SlotMetric<string>[];

export type RaftSlot = (typeof RAFT_METRICS)[number]['slot'];

/** Names for the raft thread's CounterBlock. */
export const RAFT_SLOTS: readonly RaftSlot[] = RAFT_METRICS.map(({ slot }) => slot);

/** Histograms: name, help, and the factor from the observed unit to the metric's. */
export const SHARD_GROUP_MESSAGES = {
  name: 'broker_shard_group_messages',
  help: 'Messages of a durable write.',
  scale: 1,
} as const;
export const SHARD_STORE_WRITE = {
  name: 'broker_shard_store_write_seconds',
  help: 'Time of a durable write, observed in microseconds.',
  scale: 1e-6,
} as const;
export const RAFT_SYNC = {
  name: 'broker_raft_sync_seconds',
  help: 'Time to make an entry durable, observed in microseconds.',
  scale: 1e-6,
} as const;
/** Of the main thread: slots that change their shard. */
export const RESIZE_PAUSE = {
  name: 'broker_resize_pause_seconds',
  help: 'Time for which work of the slots of one piece was held, observed in microseconds.',
  scale: 1e-6,
} as const;

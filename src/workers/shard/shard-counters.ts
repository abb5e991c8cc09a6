import { performance } from 'node:perf_hooks';
import { REASON_CODE, REASON_NAMES, type Reason } from '../../base/errors.ts';
import { CounterBlock } from '../../shm/counters.ts';
import { DURATION_SHAPE, type HistogramShape, SharedHistogram } from '../../shm/histogram.ts';
import type { StoreConnections, StoreStats } from '../../storage/store.ts';
import type { PeerBatchCounters } from './peer-batches.ts';
import type { PublishCounters } from './publish-ports.ts';
import type { ReadCounters } from './shard-store.ts';

/** Plain cells of a shard's block: `*_total` and `*_sum` only grow, the others are levels. Sums are in the unit that the name ends in. */
export const SHARD_CELLS = [
  'messages_total',
  'bytes_total',
  'groups_total',
  'batches_total',
  'queue_bytes',
  'queue_wait_ms',
  'queue_wait_count',
  'queue_wait_ms_total',
  'active_subjects',
  'subscriptions',
  'parked_fetches',
  'damaged_total',
  'event_loop_utilization',
  'store_bytes',
  'store_segments',
  'store_batches',
  'store_subjects',
  'store_index_bytes',
  'store_refusal',
  'memory_reads_total',
  'database_reads_total',
  'peer_batches_total',
  'peer_batches_dropped_total',
  'peer_batches_kept_total',
  'peer_batches_refused_total',
  'catch_up_readers',
  'lag_max',
  'read_bytes_total',
  'read_failures_total',
  'write_failures_total',
  'connections_open',
  'connections_busy',
  'connections_waiting',
] as const;

type Cell = (typeof SHARD_CELLS)[number];

export interface ShardLevels {
  readonly activeSubjects: number;
  readonly subscriptions: number;
  readonly parkedFetches: number;
  /** Subscriptions that are not at the tail, and the most messages that any subscription has before it. */
  readonly behind: { readonly readers: number; readonly lagMax: number };
  readonly connections: StoreConnections;
}

const LEVELS: readonly Cell[] = [
  'queue_bytes',
  'queue_wait_ms',
  'active_subjects',
  'subscriptions',
  'parked_fetches',
  'event_loop_utilization',
  'store_bytes',
  'store_segments',
  'store_batches',
  'store_subjects',
  'store_refusal',
  'catch_up_readers',
  'lag_max',
  'connections_open',
  'connections_busy',
  'connections_waiting',
];

/** Messages of a group: 1 to 2^16. */
const GROUP_MESSAGES_SHAPE: HistogramShape = { smallest: 1, perDoubling: 1, doublings: 16 };

const NAMES = [
  ...SHARD_CELLS,
  ...SharedHistogram.slotNames('group_messages', GROUP_MESSAGES_SHAPE),
  ...SharedHistogram.slotNames('store_write', DURATION_SHAPE),
  ...SharedHistogram.slotNames('store_read', DURATION_SHAPE),
];

/** The counters of one shard in shared memory: written by its thread alone, read by the main thread at scrape. */
export class ShardCounters implements PublishCounters, ReadCounters, PeerBatchCounters {
  readonly #block: CounterBlock;
  readonly #at: Record<Cell, number>;
  readonly groupMessages: SharedHistogram;
  /** In microseconds, as is `storeRead`. */
  readonly storeWrite: SharedHistogram;
  readonly storeRead: SharedHistogram;
  #utilization = performance.eventLoopUtilization();
  /** `queue_wait_count` when levels were told last. */
  #waits = 0;

  constructor(buffer?: SharedArrayBuffer) {
    const block = new CounterBlock(NAMES, buffer);
    this.#block = block;
    this.#at = Object.fromEntries(SHARD_CELLS.map((name, index) => [name, index])) as Record<Cell, number>;
    this.groupMessages = new SharedHistogram(block, 'group_messages', GROUP_MESSAGES_SHAPE);
    this.storeWrite = new SharedHistogram(block, 'store_write', DURATION_SHAPE);
    this.storeRead = new SharedHistogram(block, 'store_read', DURATION_SHAPE);
  }

  get buffer(): SharedArrayBuffer {
    return this.#block.buffer;
  }

  get(cell: Cell): number {
    return this.#block.get(this.#at[cell]);
  }

  onGroup(messages: number, batches: number, bytes: number): void {
    this.#block.add(this.#at.groups_total, 1);
    this.#block.add(this.#at.messages_total, messages);
    this.#block.add(this.#at.batches_total, batches);
    this.#block.add(this.#at.bytes_total, bytes);
    this.groupMessages.observe(messages);
  }

  onWritten(microseconds: number): void {
    this.storeWrite.observe(microseconds);
  }

  /** The store refused a write, or left open what became of it. */
  writeFailed(): void {
    this.#block.add(this.#at.write_failures_total, 1);
  }

  /** The store answered a read of messages after so long. */
  readFrom(microseconds: number, bytes: number): void {
    this.storeRead.observe(microseconds);
    this.#block.add(this.#at.read_bytes_total, bytes);
  }

  readFailed(): void {
    this.#block.add(this.#at.read_failures_total, 1);
  }

  queueBytes(bytes: number): void {
    this.#block.set(this.#at.queue_bytes, bytes);
  }

  /** The wait on its ring of the request taken last, in ms. `queue_wait_count` tells a reader whether it is new. */
  queueWait(ms: number): void {
    this.#block.set(this.#at.queue_wait_ms, ms);
    this.#block.add(this.#at.queue_wait_count, 1);
    this.#block.add(this.#at.queue_wait_ms_total, ms);
  }

  /** The store takes no messages, and why; null when it took some, or will be tried with the next. */
  storeRefuses(reason: Reason | null): void {
    this.#block.set(this.#at.store_refusal, reason === null ? 0 : REASON_CODE[reason] + 1);
  }

  get storeRefusal(): Reason | null {
    return REASON_NAMES[this.get('store_refusal') - 1] ?? null;
  }

  damaged(): void {
    this.#block.add(this.#at.damaged_total, 1);
  }

  read(isFromMemory: boolean): void {
    this.#block.add(isFromMemory ? this.#at.memory_reads_total : this.#at.database_reads_total, 1);
  }

  peerBatch(isDropped: boolean): void {
    this.#block.add(isDropped ? this.#at.peer_batches_dropped_total : this.#at.peer_batches_total, 1);
  }

  peerBatchCame(isKept: boolean): void {
    this.#block.add(isKept ? this.#at.peer_batches_kept_total : this.#at.peer_batches_refused_total, 1);
  }

  /** The thread has stopped: what it held is held by nobody. What was counted stays. */
  clearLevels(): void {
    for (const cell of LEVELS) this.#block.set(this.#at[cell], 0);
  }

  /** Levels, about once a second. */
  levels(levels: ShardLevels, store: StoreStats): void {
    const block = this.#block;
    const next = performance.eventLoopUtilization();
    block.set(this.#at.event_loop_utilization, performance.eventLoopUtilization(next, this.#utilization).utilization);
    this.#utilization = next;
    const waits = this.get('queue_wait_count');
    // What came last says nothing of now if nothing has come since and nothing waits.
    if (waits === this.#waits && this.get('queue_bytes') === 0) block.set(this.#at.queue_wait_ms, 0);
    this.#waits = waits;
    block.set(this.#at.active_subjects, levels.activeSubjects);
    block.set(this.#at.subscriptions, levels.subscriptions);
    block.set(this.#at.parked_fetches, levels.parkedFetches);
    block.set(this.#at.catch_up_readers, levels.behind.readers);
    block.set(this.#at.lag_max, levels.behind.lagMax);
    block.set(this.#at.connections_open, levels.connections.open);
    block.set(this.#at.connections_busy, levels.connections.busy);
    block.set(this.#at.connections_waiting, levels.connections.waiting);
    block.set(this.#at.store_bytes, store.bytes);
    block.set(this.#at.store_segments, store.segments);
    block.set(this.#at.store_batches, store.batches);
    block.set(this.#at.store_subjects, store.subjects);
    block.set(this.#at.store_index_bytes, store.indexBytes ?? 0);
  }
}

import { performance } from 'node:perf_hooks';
import { REASON_CODE, REASON_NAMES, type Reason } from '../../base/errors.ts';
import { CounterBlock, Log2Histogram } from '../../shm/counters.ts';
import type { StoreStats } from '../../storage/store.ts';
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
] as const;

type Cell = (typeof SHARD_CELLS)[number];

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
];

/** Messages of a group: 1 to 2^16. */
const GROUP_MESSAGES_SHAPE = { smallest: 1, buckets: 18 };
/** One durable write, from 32 us to 17 s. */
const STORE_WRITE_SHAPE = { smallest: 32, buckets: 20 };

const NAMES = [
  ...SHARD_CELLS,
  ...Log2Histogram.slotNames('group_messages', GROUP_MESSAGES_SHAPE),
  ...Log2Histogram.slotNames('store_write_microseconds', STORE_WRITE_SHAPE),
];

/** The counters of one shard in shared memory: written by its thread alone, read by the main thread at scrape. */
export class ShardCounters implements PublishCounters, ReadCounters, PeerBatchCounters {
  readonly #block: CounterBlock;
  readonly #at: Record<Cell, number>;
  readonly groupMessages: Log2Histogram;
  readonly storeWrite: Log2Histogram;
  #utilization = performance.eventLoopUtilization();

  constructor(buffer?: SharedArrayBuffer) {
    const block = new CounterBlock(NAMES, buffer);
    this.#block = block;
    this.#at = Object.fromEntries(SHARD_CELLS.map((name, index) => [name, index])) as Record<Cell, number>;
    this.groupMessages = new Log2Histogram(block, block.indexOf('group_messages_count'), GROUP_MESSAGES_SHAPE);
    this.storeWrite = new Log2Histogram(block, block.indexOf('store_write_microseconds_count'), STORE_WRITE_SHAPE);
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
  levels(levels: { activeSubjects: number; subscriptions: number; parkedFetches: number }, store: StoreStats): void {
    const block = this.#block;
    const next = performance.eventLoopUtilization();
    block.set(this.#at.event_loop_utilization, performance.eventLoopUtilization(next, this.#utilization).utilization);
    this.#utilization = next;
    block.set(this.#at.active_subjects, levels.activeSubjects);
    block.set(this.#at.subscriptions, levels.subscriptions);
    block.set(this.#at.parked_fetches, levels.parkedFetches);
    block.set(this.#at.store_bytes, store.bytes);
    block.set(this.#at.store_segments, store.segments);
    block.set(this.#at.store_batches, store.batches);
    block.set(this.#at.store_subjects, store.subjects);
    block.set(this.#at.store_index_bytes, store.indexBytes ?? 0);
  }
}

import { performance } from 'node:perf_hooks';
import { CounterBlock, Log2Histogram } from '../../shm/counters.ts';
import { RAFT_SLOTS, type RaftSlot } from '../../telemetry/catalogue.ts';
import type { RaftStatus } from '../messages.ts';

/** One append with its fdatasync, from 32 us to 17 s. */
const SYNC_SHAPE = { smallest: 32, buckets: 20 };
const NAMES = [...RAFT_SLOTS, ...Log2Histogram.slotNames('sync_microseconds', SYNC_SHAPE)];

/** The counters of the Raft thread in shared memory: written by it alone, read by the main thread at scrape. */
export class RaftCounters {
  readonly #block: CounterBlock;
  readonly sync: Log2Histogram;
  #utilization = performance.eventLoopUtilization();

  constructor(buffer?: SharedArrayBuffer) {
    this.#block = new CounterBlock(NAMES, buffer);
    this.sync = new Log2Histogram(this.#block, this.#block.indexOf('sync_microseconds_count'), SYNC_SHAPE);
  }

  get buffer(): SharedArrayBuffer {
    return this.#block.buffer;
  }

  get(slot: RaftSlot): number {
    return this.#block.get(this.#block.indexOf(slot));
  }

  entry(commandBytes: number): void {
    this.#block.add(this.#block.indexOf('entries_total'), 1);
    this.#block.add(this.#block.indexOf('command_bytes_total'), commandBytes);
  }

  /** About once a second. */
  levels(status: RaftStatus, memory: { readonly stateBytes: number; readonly logBytes: number }): void {
    const next = performance.eventLoopUtilization();
    this.#set('event_loop_utilization', performance.eventLoopUtilization(next, this.#utilization).utilization);
    this.#utilization = next;
    this.#set('term', status.term);
    this.#set('applied', status.applied);
    this.#set('last_index', status.lastIndex);
    this.#set('snapshot_index', status.snapshotIndex);
    this.#set('subjects', status.subjects);
    this.#set('producers', status.producers);
    this.#set('state_bytes', memory.stateBytes);
    this.#set('log_memory_bytes', memory.logBytes);
    this.#set('open_allotments', status.openAllotments);
    this.#set('log_time_ms', status.logTime);
  }

  #set(slot: RaftSlot, value: number): void {
    this.#block.set(this.#block.indexOf(slot), value);
  }
}

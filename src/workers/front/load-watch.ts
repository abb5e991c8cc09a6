import type { ShardCounters } from '../shard/shard-counters.ts';
import type { Dispatcher } from './dispatcher.ts';

const OBSERVE_MS = 100;
/** The main thread counts as busy above this share of LOAD_MS. */
const BUSY_UTILIZATION = 0.8;
const LOAD_MS = 50;
const SWEEP_MS = 1_000;

/** Overload and stalled subscribers are judged by time, not by traffic. Returns the timers, for the end. */
export function watchLoad(dispatcher: Dispatcher, shards: readonly ShardCounters[]): NodeJS.Timeout[] {
  const taken = shards.map(() => 0);
  const observe = (): void => {
    let wait: number | null = null;
    let queued = 0;
    shards.forEach((counters, shard) => {
      queued += counters.get('queue_bytes');
      const count = counters.get('queue_wait_count');
      // What an idle shard took last says nothing of now.
      if (count === taken[shard]) return;
      taken[shard] = count;
      wait = Math.max(wait ?? 0, counters.get('queue_wait_ms'));
    });
    dispatcher.observe(wait, queued > 0, performance.now());
  };
  let utilization = performance.eventLoopUtilization();
  const measureLoad = (): void => {
    const next = performance.eventLoopUtilization();
    dispatcher.isBusy = performance.eventLoopUtilization(next, utilization).utilization > BUSY_UTILIZATION;
    utilization = next;
  };
  const { subscriptions, consumers, receiving } = dispatcher;
  const sweep = (): void => {
    receiving.sweep(performance.now(), Date.now());
    subscriptions.sweep(performance.now());
    consumers.sweep(performance.now());
  };
  return [setInterval(measureLoad, LOAD_MS), setInterval(observe, OBSERVE_MS), setInterval(sweep, SWEEP_MS)];
}

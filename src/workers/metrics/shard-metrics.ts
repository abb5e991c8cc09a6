import {
  GROUP_MESSAGES,
  RESIZE_PAUSE,
  SHARD_METRICS,
  SHARD_SUMS,
  STORE_READ,
  STORE_WRITE,
} from '../../telemetry/catalogue.ts';
import type { MetricsRegistry } from '../../telemetry/metrics.ts';
import type { ShardCounters } from '../shard/shard-counters.ts';
import type { MoveCounters } from '../slots/move-counters.ts';
import type { SlotTable } from '../slots/slot-table.ts';

/** What there is to show of the shards. `isThere`: the others are not shown. */
export interface ShardFigures {
  /** One for each shard that there may be. */
  readonly counters: readonly ShardCounters[];
  readonly table: SlotTable;
  readonly moves: MoveCounters;
  readonly isThere: (shard: number) => boolean;
}

/** The store as all shards use it, moves of slots, and then each shard, whose number is without a bound here. `store`: its kind. */
export function addShards(registry: MetricsRegistry, figures: ShardFigures, store: string): void {
  const { counters, table, moves, isThere } = figures;
  const ofStore = { store };
  registry.addHistogram(
    STORE_WRITE,
    ofStore,
    counters.map(({ storeWrite }) => storeWrite),
  );
  registry.addHistogram(
    STORE_READ,
    ofStore,
    counters.map(({ storeRead }) => storeRead),
  );
  registry.addHistogram(
    GROUP_MESSAGES,
    ofStore,
    counters.map(({ groupMessages }) => groupMessages),
  );
  registry.addBlock(SHARD_SUMS, (slot) => counters.reduce((sum, shard) => sum + shard.get(slot), 0), ofStore);
  registry.addGauge(
    'broker_store_refusing_shards',
    'Shards whose store takes no messages; the log and /readyz say why.',
    ofStore,
    () => counters.filter(({ storeRefusal }, shard) => storeRefusal !== null && isThere(shard)).length,
  );
  registry.addHistogram(RESIZE_PAUSE, {}, [moves.pause]);
  registry.addCounter(
    'broker_resize_failed_pieces_total',
    'Moves of slots that were given up.',
    {},
    () => moves.failed,
  );
  registry.addCounter('broker_slots_moved_total', 'Slots that were given to another shard.', {}, () =>
    moves.slotsIn.reduce((sum, slots) => sum + slots, 0),
  );
  registry.addGauge(
    'broker_slots_held',
    'Slots on their way to another shard: their work waits.',
    {},
    () => table.held,
  );
  for (const [number, shard] of counters.entries()) addShard(registry, figures, shard, number);
}

function addShard(registry: MetricsRegistry, figures: ShardFigures, counters: ShardCounters, shard: number): void {
  const { table } = figures;
  const labels = { shard: String(shard) };
  const isThere = (): boolean => figures.isThere(shard);
  registry.addBlock(SHARD_METRICS, (slot) => counters.get(slot), labels, isThere);
  registry.addSumAndCount(
    'broker_shard_store_write_seconds',
    'Time of durable writes; all shards together have a histogram.',
    labels,
    () => ({ sum: counters.storeWrite.sum * STORE_WRITE.scale, count: counters.storeWrite.count }),
    isThere,
  );
  registry.addGauge('broker_shard_slots', 'Slots, of 1024, that it owns.', labels, () => table.count(shard), isThere);
}

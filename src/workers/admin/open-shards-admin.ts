import { availableParallelism } from 'node:os';
import type { Exclusive } from '../../base/exclusive.ts';
import type { Config } from '../../config/schema.ts';
import type { Log } from '../../telemetry/log.ts';
import type { MetricsRegistry } from '../../telemetry/metrics.ts';
import type { Dispatcher } from '../front/dispatcher.ts';
import type { LogLine } from '../messages.ts';
import { TopSubjects } from '../metrics/top-subjects.ts';
import type { ShardCounters } from '../shard/shard-counters.ts';
import type { ShardPool } from '../shard-pool.ts';
import { LoadMonitor } from '../slots/load-monitor.ts';
import type { MoveCounters } from '../slots/move-counters.ts';
import { Resizer } from '../slots/resizer.ts';
import { SlotMover } from '../slots/slot-mover.ts';
import type { SlotTable } from '../slots/slot-table.ts';
import { frontLook } from './front-look.ts';
import { ShardsAdmin } from './shards-admin.ts';

/** How often the load is measured, and with shards.auto judged. */
const LOOK_MS = 1_000;
const ADVICE_MS = 5_000;

export interface ShardsAdminOptions {
  readonly config: Pick<Config, 'shards' | 'metrics'>;
  readonly pool: ShardPool;
  readonly dispatcher: Dispatcher;
  readonly table: SlotTable;
  readonly moves: MoveCounters;
  readonly counters: readonly ShardCounters[];
  readonly turns: Exclusive;
  /** Null: nobody scrapes. */
  readonly metrics: MetricsRegistry | null;
  readonly log: Pick<Log, 'info'>;
  readonly logLine: (line: LogLine) => void;
}

/** What changes the shards while the broker runs. `timers` are to be cleared at the end. */
export function openShardsAdmin(options: ShardsAdminOptions): {
  readonly admin: ShardsAdmin;
  readonly resizer: Resizer;
  readonly timers: readonly NodeJS.Timeout[];
} {
  const { config, pool, dispatcher, table, moves, counters, turns, metrics, log, logLine } = options;
  const { shards } = config;
  const mover = new SlotMover(table, dispatcher.slots, pool, moves);
  const resizer = new Resizer({ table, pool, mover, turns, shardsMax: shards.max, log: logLine });
  const monitor = new LoadMonitor({
    counters,
    front: () => frontLook(dispatcher),
    cores: availableParallelism(),
    shardsMax: shards.max,
  });
  const timers = [setInterval(() => monitor.look(), LOOK_MS)];
  if (metrics !== null) {
    metrics.addGauge(
      'broker_main_event_loop_utilization_ratio',
      'Share of the last ten seconds that the main thread, which carries gRPC, was busy, 0 to 1.',
      {},
      () => monitor.recent().mainUtilization,
    );
    new TopSubjects(pool, monitor, config.metrics.topSubjects).addTo(metrics);
  }
  const { auto: isAuto, autoAfterMs } = shards;
  const admin = new ShardsAdmin({ table, pool, resizer, monitor, moves, isAuto, autoAfterMs });
  if (isAuto) {
    const follow = async (): Promise<void> => {
      const advice = await admin.maybeFollow(performance.now());
      if (advice !== null) log.info('following the advice on the number of shards', { ...advice });
    };
    timers.push(setInterval(() => void follow(), Math.min(ADVICE_MS, autoAfterMs / 2)));
  }
  return { admin, resizer, timers };
}

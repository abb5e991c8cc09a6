import type { Worker } from 'node:worker_threads';
import type { Logger } from '../../telemetry/log.ts';
import type { MetricsRegistry } from '../../telemetry/metrics.ts';
import { DebugInfo } from './debug-info.ts';
import type { SettingsService } from './settings-service.ts';

/** What a process tells of itself, from the parts that it has at the time it is asked. */
export function debugInfoOf(sources: {
  readonly log: Logger;
  readonly settings: SettingsService;
  readonly metrics: () => MetricsRegistry | null;
  readonly raft: Worker;
  readonly shards: () => readonly Worker[];
}): DebugInfo {
  const { log, settings, metrics, raft, shards } = sources;
  return new DebugInfo({
    log: log.recent,
    redactor: settings.redactor,
    metrics: async () => (await metrics()?.text()) ?? '',
    settings: () => settings.listSettings(),
    threads: () => [
      { name: 'raft', worker: raft },
      ...shards().map((worker) => ({ name: `shard-thread-${worker.threadId}`, worker })),
    ],
  });
}

import { join } from 'node:path';
import type { Disk } from '../../storage/disk.ts';
import { sealLanes, sealNews } from '../../storage/embedded/seal-lanes.ts';
import type { Log } from '../../telemetry/log.ts';

/** The segments of a data directory are whole and durable afterwards; the log has what was found on the way. */
export function sealSegments(disk: Disk, path: string, log: Log): void {
  const report = sealLanes(disk, join(path, 'segments'));
  for (const { level, message, fields } of sealNews(report)) log[level](message, fields);
  const counts = { torn: report.torn.length, damages: report.damages.length };
  log.info('segments are whole', { ...report, ...counts });
}

import { statfs } from 'node:fs/promises';
import { within } from '../../base/within.ts';
import type { MetricsRegistry } from '../../telemetry/metrics.ts';

/** A file system that does not answer must not hold a scrape. */
const ASK_MS = 20;

/** Space on the disk of the data directory at `path`. */
export function addDiskSpace(registry: MetricsRegistry, path: string): void {
  const space = { free: 0, size: 0 };
  let isAsking = false;
  const ask = async (): Promise<void> => {
    isAsking = true;
    try {
      const { bavail, blocks, bsize } = await statfs(path);
      space.free = bavail * bsize;
      space.size = blocks * bsize;
    } finally {
      isAsking = false;
    }
  };
  // One question at a time: each that hangs takes a thread of the pool.
  registry.beforeScrape(async () => {
    if (!isAsking) await within(ASK_MS, ask());
  });
  const isKnown = (): boolean => space.size > 0;
  registry.addGauge('broker_disk_free_bytes', 'Free space where the data directory is.', {}, () => space.free, isKnown);
  registry.addGauge('broker_disk_size_bytes', 'Size of that file system.', {}, () => space.size, isKnown);
}

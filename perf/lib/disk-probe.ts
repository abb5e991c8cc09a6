/** Thread entry: times append + fdatasync of small records, at a given rate, on the disk that a folder is on. */
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { loadHistograms, newHistogram, packHistogram, record } from './histogram.ts';

export interface DiskProbeTask {
  readonly folder: string;
  readonly recordBytes: number;
  readonly perSecond: number;
  readonly durationMs: number;
}

const { folder, recordBytes, perSecond, durationMs } = workerData as DiskProbeTask;
await loadHistograms();
const histogram = newHistogram();
const path = join(folder, 'disk-probe');
const file = openSync(path, 'w');
const bytes = Buffer.alloc(recordBytes, 0x55);
const sleeper = new Int32Array(new SharedArrayBuffer(4));
const began = performance.now();
for (let count = 0; performance.now() - began < durationMs; count++) {
  const wait = began + (count * 1_000) / perSecond - performance.now();
  if (wait > 0) Atomics.wait(sleeper, 0, 0, wait);
  const start = performance.now();
  writeSync(file, bytes);
  fdatasyncSync(file);
  record(histogram, (performance.now() - start) * 1_000);
}
closeSync(file);
rmSync(path);
parentPort?.postMessage(packHistogram(histogram));

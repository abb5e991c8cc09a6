/** `Publish` at a steady rate, beside one append + fdatasync on the same disk at the same rate, in turn. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { generatorWarnings } from '../lib/bottleneck.ts';
import type { DiskProbeTask } from '../lib/disk-probe.ts';
import { type Latency, summarize } from '../lib/histogram.ts';
import { type LoadResult, runLoad } from '../lib/load.ts';
import type { Figure } from '../lib/report.ts';
import {
  ECHO_PATH,
  errorNotes,
  histogramsOf,
  loadFigures,
  loadOf,
  modeOf,
  PUBLISH_PATH,
  plotsOf,
  type Scenario,
  withServers,
} from '../lib/scenario.ts';
import { publishFrames } from './unary.ts';

/** The record of a 256 B message with its headers, as the probe appends it. */
const PROBE_OVERHEAD_BYTES = 32;

async function probeDisk(task: DiskProbeTask): Promise<Latency> {
  const worker = new Worker(new URL('../lib/disk-probe.ts', import.meta.url), { workerData: task });
  const [packed] = (await once(worker, 'message')) as [string];
  await worker.terminate();
  return summarize([packed]);
}

export const latency: Scenario = {
  name: 'latency',
  about: 'open loop of 1,000 publishes/s, against one append + fdatasync on the same disk',
  defaults: { inFlight: 10_000, durationMs: 8_000, rate: '1000' },
  takesRate: true,
  async run(options, progress) {
    const frames = publishFrames(options);
    const mode = modeOf(options);
    const perSecond = Number.parseFloat(options.rate ?? '1000');
    return withServers(options, { answerBytes: 4 }, async ({ broker, echo }) => {
      const probe = {
        folder: broker.broker.dataDir,
        recordBytes: options.bodyBytes + PROBE_OVERHEAD_BYTES,
        perSecond,
        durationMs: options.durationMs,
      };
      const publishes: LoadResult[] = [];
      const echoes: LoadResult[] = [];
      const disks: Latency[] = [];
      for (let round = 0; round < options.rounds; round++) {
        progress.say(`round ${round + 1}/${options.rounds}: disk`);
        disks.push(await probeDisk(probe));
        progress.say(`round ${round + 1}/${options.rounds}: broker`);
        publishes.push(await runLoad(loadOf(broker, options, { path: PUBLISH_PATH, frames, mode })));
        progress.say(`round ${round + 1}/${options.rounds}: bare echo`);
        echoes.push(await runLoad(loadOf(echo, options, { path: ECHO_PATH, frames, mode })));
      }
      progress.clear();
      const percentiles = ['p50Ms', 'p99Ms', 'p999Ms', 'maxMs'] as const;
      const figures = percentiles.flatMap((percentile): Figure[] => {
        const name = percentile.replace('Ms', '');
        const subject = publishes.map((it) => it.latency[percentile]);
        const disk = disks.map((it) => it[percentile]);
        const goal = { better: 'lower' as const, must: 10, aim: 5 };
        return [
          {
            name: `${name}, of fdatasync`,
            unit: 'ms',
            subject,
            baseline: disk,
            baselineName: 'fdatasync',
            ...(name === 'p99' ? { goal } : {}),
          },
        ];
      });
      const sides = { broker: publishes, 'bare echo': echoes };
      return {
        scenario: 'latency',
        setting: `open loop of ${options.rate} publishes/s of ${options.bodyBytes} B, from the intended send time`,
        figures: [
          ...figures,
          ...loadFigures({ subject: publishes, baseline: echoes }),
          { name: 'generator sent late by, p99', unit: 'ms', subject: publishes.map((it) => it.sendLag.p99Ms) },
        ],
        notes: [...errorNotes([...publishes, ...echoes]), ...generatorWarnings(sides)],
        plots: plotsOf(sides, 'calls/s'),
        histograms: histogramsOf(sides),
      };
    });
  },
};

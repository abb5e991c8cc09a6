/** One publish stream to 1, 10 and 100 consume streams, against as many bare server streams that one loop feeds with the same frames. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generatorWarnings } from '../lib/bottleneck.ts';
import { type ConsumeResult, type ConsumeTask, runConsume } from '../lib/consume-load.ts';
import { joinFrames } from '../lib/frame-file.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import { type Figure, type Finding, formatNumber } from '../lib/report.ts';
import { alternate, type Scenario, STREAM_PATH, volumePlots } from '../lib/scenario.ts';
import { tailTask } from '../lib/scenario-streams.ts';
import { runStreams } from '../lib/stream-load.ts';
import { type BrokerTarget, startBrokerTarget, startEcho } from '../lib/targets.ts';
import { streamLoad } from './stream.ts';

const SWEEP = [1, 10, 100];
/** Messages that the publisher may be ahead of the slowest consumer, so that delivery is measured and not a pile-up. */
const AHEAD = 20_000;
const CAPTURE_BYTES = 4 << 20;
/** The publisher goes on until the consumers have measured. */
const LONGER_MS = 1_000;

async function fan(
  broker: BrokerTarget,
  options: Options,
  streams: number,
  captureBytes: number,
): Promise<ConsumeResult> {
  const cell = new SharedArrayBuffer(4);
  const started = Promise.withResolvers<void>();
  const task: ConsumeTask = { ...tailTask(broker, options, streams), captureBytes, progress: cell };
  const tail = runConsume(broker.pid, task, started.resolve);
  tail.catch(started.reject);
  await started.promise;
  const publisher = { ...options, streams: 1, connections: 1, threads: 1, durationMs: options.durationMs + LONGER_MS };
  const load = { ...streamLoad({ broker, echo: broker }, publisher, 'broker', null), gate: { cell, window: AHEAD } };
  const [result] = await Promise.all([tail, runStreams(load)]);
  return result;
}

async function measure(
  broker: BrokerTarget,
  options: Options,
  progress: Progress,
  streams: number,
): Promise<{ figures: Figure[]; sides: Record<string, readonly ConsumeResult[]> }> {
  progress.say(`${streams} consumers: a look at the frames`);
  const { captured } = await fan(broker, { ...options, durationMs: 1_000 }, streams, CAPTURE_BYTES);
  const folder = mkdtempSync(join(tmpdir(), 'broker-perf-'));
  const framesFile = join(folder, 'frames');
  writeFileSync(framesFile, joinFrames(captured));
  const bare = await startEcho({ answerBytes: 16, streams, framesFile });
  const bareTask: ConsumeTask = {
    ...tailTask(bare, options, streams),
    path: STREAM_PATH,
    protocol: 'stream',
  };
  try {
    const results = await alternate<ConsumeResult>(options.rounds, progress, {
      subject: () => fan(broker, options, streams, 0),
      baseline: () => runConsume(bare.pid, bareTask),
      show: (result) => `${formatNumber(result.messagesPerSecond)}/s`,
    });
    const figure = (name: string, key: string, unit: string, pick: (result: ConsumeResult) => number): Figure => ({
      name: `${streams} consumers: ${name}`,
      key: `${key}-${streams}`,
      unit,
      subject: results.subject.map(pick),
      baseline: results.baseline.map(pick),
    });
    return {
      figures: [
        figure('deliveries', 'rate', '1/s', (it) => it.messagesPerSecond),
        {
          ...figure('bytes', 'bytes', 'MB/s', (it) => it.bytesPerSecond / 1e6),
          ...(streams === 100 ? { goal: { better: 'higher' as const, must: 0.5, aim: 0.85 } } : {}),
        },
        figure('CPU seconds per million', 'cpu', 's CPU', (it) => it.cost.totalMicrosPerCall),
        figure('RSS', 'rss', 'MiB', (it) => it.cost.rssBytes / 2 ** 20),
        figure('slowest / fastest', 'fairness', '', (it) => it.slowest / it.fastest),
        figure('generator busy', 'generator', '', (it) => it.generatorBusy),
      ],
      sides: { [`${streams} consumers`]: results.subject, [`${streams} bare streams`]: results.baseline },
    };
  } finally {
    await bare.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

export const fanoutBatches: Scenario = {
  name: 'fanout-batches',
  about: '1 publish stream to 1, 10 and 100 consume streams, against bare server streams of the same frames',
  defaults: { streams: 0, rounds: 2, durationMs: 4_000 },
  examples: ['npm run perf -- fanout-batches', 'npm run perf -- fanout-batches --streams 50'],
  async run(options, progress): Promise<Finding> {
    const { shards, cpuProfileDir, serveFlags, streams } = options;
    const broker = await startBrokerTarget({ shards, cpuProfileDir, flags: serveFlags });
    const figures: Figure[] = [];
    let sides: Record<string, readonly ConsumeResult[]> = {};
    try {
      for (const count of streams === 0 ? SWEEP : [streams]) {
        const part = await measure(broker, options, progress, count);
        figures.push(...part.figures);
        sides = { ...sides, ...part.sides };
      }
    } finally {
      await broker.stop();
    }
    return {
      scenario: 'fanout-batches',
      setting: `one publish stream of ${options.bodyBytes} B messages in ${options.subjects} subjects, at most ${AHEAD} messages ahead of the slowest consumer`,
      figures,
      notes: generatorWarnings(sides),
      plots: volumePlots(sides, 'messages/s'),
    };
  },
};

/** One publisher to many `Subscribe` streams, or of batches to many `Consume` streams, against bare server streams that one loop feeds. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConsumeResult } from '../lib/consume-load.ts';
import { type FanoutTask, runFanout } from '../lib/fanout.ts';
import { runBareFanout, runBatchFanout } from '../lib/fanout-batches.ts';
import { joinFrames } from '../lib/frame-file.ts';
import { deliveryBytes } from '../lib/frames.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import { type Finding, formatNumber } from '../lib/report.ts';
import {
  alternate,
  errorNotes,
  PUBLISH_PATH,
  type Scenario,
  STREAM_PATH,
  SUBSCRIBE_PATH,
  volumePlots,
  withServers,
} from '../lib/scenario.ts';
import { type BrokerTarget, startBrokerTarget, startEcho } from '../lib/targets.ts';

const SUBJECT = 'perf.fanout';
/** Messages that a publisher may be ahead of the slowest subscriber. */
const WINDOW = 2_000;

/** What the yardstick repeats. */
const CAPTURE_BYTES = 4 << 20;
const CAPTURE_MS = 1_000;

async function measureBatches(broker: BrokerTarget, options: Options, progress: Progress): Promise<Finding> {
  const { streams, batches, bodyBytes, frameBytes, cpuProfileDir } = options;
  progress.say('taking frames for the yardstick');
  const sample = { ...options, streams: 1, warmupMs: 0, durationMs: CAPTURE_MS };
  const { captured } = (await runBatchFanout(broker, sample, CAPTURE_BYTES)).consumed;
  const folder = mkdtempSync(join(tmpdir(), 'broker-perf-'));
  const framesFile = join(folder, 'frames');
  writeFileSync(framesFile, joinFrames(captured));
  const errors: { readonly errors: Readonly<Record<string, number>> }[] = [];
  const published: number[] = [];
  try {
    const results = await alternate<ConsumeResult>(options.rounds, progress, {
      subject: async () => {
        const result = await runBatchFanout(broker, options, 0);
        errors.push(result.published);
        published.push(result.published.messagesPerSecond);
        return result.consumed;
      },
      // It feeds the first set of streams that is complete, so each round has a server of its own.
      baseline: async () => {
        const bare = await startEcho({ answerBytes: 16, framesFile, streams, cpuProfileDir });
        return runBareFanout(bare, options).finally(() => bare.stop());
      },
      show: (result) => `${formatNumber(result.messagesPerSecond)}/s`,
    });
    const of = (pick: (result: ConsumeResult) => number) => ({
      subject: results.subject.map(pick),
      baseline: results.baseline.map(pick),
    });
    const averageKiB = captured.reduce((sum, frame) => sum + frame.length, 0) / captured.length / 1_024;
    return {
      scenario: 'fanout',
      setting: `1 publisher of frames of ${frameBytes >> 10} KiB with ${batches} batches to ${streams} consume streams, ${bodyBytes} B bodies, in frames of ${averageKiB.toFixed(1)} KiB on the average`,
      figures: [
        { name: 'messages', key: 'rate', unit: '1/s', ...of((it) => it.messagesPerSecond) },
        {
          name: 'bytes',
          key: 'bytes',
          unit: 'MB/s',
          ...of((it) => it.bytesPerSecond / 1e6),
          goal: { better: 'higher', must: 0.5, aim: 0.85 },
        },
        { name: 'published', key: 'published', unit: '1/s', subject: published },
        { name: 'server CPU, seconds per GB', key: 'cpu', unit: 's CPU', ...of(cpuPerGigabyte) },
        { name: 'server cores in use', key: 'cores', unit: '', ...of((it) => it.cost.totalCores) },
        { name: 'generator busy', key: 'generator', unit: '', ...of((it) => it.generatorBusy) },
        { name: 'slowest stream / fastest', unit: '', ...of((it) => it.slowest / it.fastest) },
        { name: 'RSS', key: 'rss', unit: 'MiB', ...of((it) => it.cost.rssBytes / 2 ** 20) },
      ],
      notes: errorNotes(errors),
      plots: volumePlots({ broker: results.subject, 'bare server': results.baseline }, 'messages/s'),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function cpuPerGigabyte({ cost, messages, bytes }: ConsumeResult): number {
  return (cost.totalMicrosPerCall * messages * 1_000) / bytes;
}

export const fanout: Scenario = {
  name: 'fanout',
  about:
    '1 publisher to 20 Subscribe streams (with --batches: of batches to Consume streams), against as many bare server streams fed from one loop',
  defaults: { inFlight: 256 },
  examples: ['npm run perf -- fanout --batches 1 --streams 100 --rounds 3'],
  async run(options, progress) {
    if (options.batches !== null) {
      const { shards, cpuProfileDir, serveFlags } = options;
      const broker = await startBrokerTarget({ shards, cpuProfileDir, flags: serveFlags });
      return measureBatches(broker, options, progress).finally(() => broker.stop());
    }
    const { bodyBytes, streams, connections, client, inFlight, warmupMs, durationMs } = options;
    const name = Buffer.from(`${SUBJECT}.0`);
    const common = { client, connections, streams, warmupMs, durationMs };
    const answerBytes = deliveryBytes(bodyBytes, name.toString(), 100_000);
    return withServers(options, { answerBytes, streams }, async ({ broker, echo }) => {
      const subject: FanoutTask = {
        ...common,
        address: broker.address,
        subscribe: { path: SUBSCRIBE_PATH, request: Buffer.from([0x0a, name.length, ...name]) },
        publish: {
          path: PUBLISH_PATH,
          frames: { kind: 'publish', subjects: 1, prefix: SUBJECT, bodyBytes },
          inFlight,
          window: WINDOW,
        },
      };
      const baseline: FanoutTask = {
        ...common,
        address: echo.address,
        subscribe: { path: STREAM_PATH, request: Buffer.alloc(0) },
        publish: null,
      };
      const results = await alternate(options.rounds, progress, {
        subject: () => runFanout(broker.pid, subject),
        baseline: () => runFanout(echo.pid, baseline),
        show: (result) => `${formatNumber(result.deliveriesPerSecond)}/s`,
      });
      const of = (pick: (result: (typeof results.subject)[number]) => number) => ({
        subject: results.subject.map(pick),
        baseline: results.baseline.map(pick),
      });
      return {
        scenario: 'fanout',
        setting: `1 publisher (${inFlight} in flight) to ${streams} streams on ${connections} connections, ${bodyBytes} B bodies`,
        figures: [
          {
            name: 'deliveries',
            unit: '1/s',
            ...of((it) => it.deliveriesPerSecond),
            goal: { better: 'higher', must: 0.6, aim: 0.85 },
          },
          { name: 'published', unit: '1/s', subject: results.subject.map((it) => it.published / it.seconds) },
          { name: 'main-thread CPU a delivery', unit: 'us', ...of((it) => it.cost.mainMicrosPerCall) },
          { name: 'server CPU a delivery', unit: 'us', ...of((it) => it.cost.totalMicrosPerCall) },
          { name: 'slowest stream / fastest', unit: '', ...of((it) => it.slowest / it.fastest) },
          { name: 'RSS', unit: 'MiB', ...of((it) => it.cost.rssBytes / 2 ** 20) },
        ],
        notes: errorNotes([...results.subject, ...results.baseline]),
      };
    });
  },
};

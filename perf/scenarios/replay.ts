/** Stored messages read from the first to the last over `Consume`, against a bare server stream of the same frames. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generatorWarnings } from '../lib/bottleneck.ts';
import { type ConsumeResult, type ConsumeTask, runConsume } from '../lib/consume-load.ts';
import { joinFrames } from '../lib/frame-file.ts';
import { subjectName } from '../lib/frames.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import { type Finding, formatNumber } from '../lib/report.ts';
import { alternate, CONSUME_PATH, PREFIX, REPLAY_PATH, type Scenario, volumePlots } from '../lib/scenario.ts';
import { fillStreams } from '../lib/stream-fill.ts';
import { type BrokerTarget, startBrokerTarget, startEcho, type Target } from '../lib/targets.ts';

const CREDIT_BYTES = 8 << 20;
/** What the yardstick repeats: enough that it is not one cached buffer. */
const CAPTURE_BYTES = 8 << 20;

function tasksOf(options: Options, broker: Target): ConsumeTask {
  const { subjects, client, warmupMs, durationMs } = options;
  return {
    address: broker.address,
    path: CONSUME_PATH,
    protocol: 'broker',
    subjects: Array.from({ length: subjects }, (_, index) => subjectName(PREFIX, index)),
    start: 'earliest',
    connections: 1,
    streams: 1,
    creditBytes: CREDIT_BYTES,
    messagesPerStream: null,
    warmupMs,
    durationMs,
    client,
    captureBytes: 0,
  };
}

/** Some frames as the broker sends them. */
async function capture(broker: Target, options: Options): Promise<readonly Uint8Array[]> {
  const perMiB = Math.ceil((1 << 20) / (options.bodyBytes + 10));
  const messagesPerStream = Math.min(options.messages, (CAPTURE_BYTES >> 20) * perMiB);
  const task = { ...tasksOf(options, broker), messagesPerStream, captureBytes: CAPTURE_BYTES };
  return (await runConsume(broker.pid, task)).captured;
}

async function measure(broker: BrokerTarget, options: Options, progress: Progress): Promise<Finding> {
  const filled = await fillStreams(broker, options, progress, options.messages);
  const folder = mkdtempSync(join(tmpdir(), 'broker-perf-'));
  const framesFile = join(folder, 'frames');
  const frames = await capture(broker, options);
  writeFileSync(framesFile, joinFrames(frames));
  const bare = await startEcho({ answerBytes: 16, framesFile, cpuProfileDir: options.cpuProfileDir });
  try {
    const task = { ...tasksOf(options, broker), messagesPerStream: filled.messages };
    const bareTask = { ...task, address: bare.address, path: REPLAY_PATH, protocol: 'replay' as const };
    const results = await alternate<ConsumeResult>(options.rounds, progress, {
      subject: () => runConsume(broker.pid, task),
      baseline: () => runConsume(bare.pid, bareTask),
      show: (result) => `${formatNumber(result.messagesPerSecond)}/s`,
    });
    const of = (pick: (result: ConsumeResult) => number) => ({
      subject: results.subject.map(pick),
      baseline: results.baseline.map(pick),
    });
    const sides = { broker: results.subject, 'bare server': results.baseline };
    const averageKiB = frames.reduce((sum, frame) => sum + frame.length, 0) / frames.length / 1_024;
    return {
      scenario: 'replay',
      setting: `${filled.messages} messages of ${options.bodyBytes} B in ${options.subjects} subjects to one consumer, in frames of ${averageKiB.toFixed(1)} KiB on the average`,
      figures: [
        { name: 'messages', key: 'rate', unit: '1/s', ...of((it) => it.messagesPerSecond) },
        {
          name: 'bytes',
          key: 'bytes',
          unit: 'MB/s',
          ...of((it) => it.bytesPerSecond / 1e6),
          goal: { better: 'higher', must: 0.5, aim: 0.85 },
        },
        {
          name: 'server CPU, seconds per million messages',
          key: 'cpu',
          unit: 's CPU',
          ...of((it) => it.cost.totalMicrosPerCall),
        },
        { name: 'server cores in use', key: 'cores', unit: '', ...of((it) => it.cost.totalCores) },
        { name: 'generator busy', key: 'generator', unit: '', ...of((it) => it.generatorBusy) },
        { name: 'RSS', key: 'rss', unit: 'MiB', ...of((it) => it.cost.rssBytes / 2 ** 20) },
        { name: 'filling', key: 'fill-rate', unit: '1/s', subject: [filled.messagesPerSecond] },
      ],
      notes: generatorWarnings(sides),
      plots: volumePlots(sides, 'messages/s'),
    };
  } finally {
    await bare.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

export const replay: Scenario = {
  name: 'replay',
  about: 'stored messages to one consumer over Consume, against a bare server stream of the same frames (--messages)',
  defaults: { rounds: 3 },
  examples: [
    'npm run perf -- replay --messages 10000000',
    "npm run perf -- replay --messages 500000 --assert 'ratio.bytes>=50%'",
  ],
  async run(options, progress) {
    const { shards, cpuProfileDir, serveFlags } = options;
    const broker = await startBrokerTarget({ shards, cpuProfileDir, flags: serveFlags });
    try {
      return await measure(broker, options, progress);
    } finally {
      await broker.stop();
    }
  },
};

/** Durable batches over `PublishStream` against a bare bidirectional server that reads the same frames. */
import { generatorWarnings } from '../lib/bottleneck.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import { parseRates } from '../lib/rates.ts';
import { type Figure, type Finding, formatNumber } from '../lib/report.ts';
import {
  alternate,
  errorNotes,
  histogramsOf,
  INGEST_PATH,
  latencyFigures,
  type Pair,
  PREFIX,
  PUBLISH_STREAM_PATH,
  plotsOf,
  type Rounds,
  type Scenario,
  withServers,
} from '../lib/scenario.ts';
import { searchMaximum } from '../lib/search.ts';
import { BatchFrameWriter, type StreamFrames } from '../lib/stream-frames.ts';
import { runStreams, type StreamLoad, type StreamResult } from '../lib/stream-load.ts';

/** Share of the maximum at which the latency is quoted. */
const HALF = 0.5;

export function streamFrames({ subjects, bodyBytes, frameBytes, batches }: Options): StreamFrames {
  return { prefix: PREFIX, subjects, bodyBytes, frameBytes, batches: batches ?? subjects };
}

/** `messagesPerSecond` as text: `--rate`, or null for a closed loop. */
export function streamLoad(pair: Pair, options: Options, side: 'broker' | 'bare', rate: string | null): StreamLoad {
  const { warmupMs, durationMs, connections, streams, framesInFlight, threads, client } = options;
  const frames = streamFrames(options);
  const target = side === 'broker' ? pair.broker : pair.echo;
  return {
    address: target.address,
    pid: target.pid,
    path: side === 'broker' ? PUBLISH_STREAM_PATH : INGEST_PATH,
    protocol: side,
    frames,
    connections,
    streams,
    framesInFlight,
    schedule: rate === null ? null : inFrames(rate, frames, { warmupMs, durationMs }),
    warmupMs,
    durationMs,
    threads,
    client,
  };
}

/** The user speaks of messages a second, the generator sends frames. */
function inFrames(rate: string, frames: StreamFrames, times: { warmupMs: number; durationMs: number }) {
  const perFrame = new BatchFrameWriter(frames).messagesPerFrame;
  const messages = parseRates(rate, times);
  return {
    segments: messages.segments.map((segment) => ({
      ...segment,
      startRate: segment.startRate / perFrame,
      endRate: segment.endRate / perFrame,
      before: segment.before / perFrame,
    })),
  };
}

export function streamFigures(results: Rounds<StreamResult>, goals: boolean): Figure[] {
  const of = (pick: (result: StreamResult) => number) => ({
    subject: results.subject.map(pick),
    ...(results.baseline.length === 0 ? {} : { baseline: results.baseline.map(pick) }),
  });
  const own = (pick: (result: StreamResult) => number) => ({ subject: results.subject.map(pick) });
  return [
    { name: 'messages', key: 'rate', unit: '1/s', ...of((it) => it.messagesPerSecond) },
    {
      name: 'bytes',
      key: 'bytes',
      unit: 'MB/s',
      ...of((it) => it.bytesPerSecond / 1e6),
      ...(goals ? { goal: { better: 'higher', must: 0.5, aim: 0.75 } } : {}),
    },
    {
      name: 'server CPU, seconds per million messages',
      key: 'cpu',
      unit: 's CPU',
      ...own((it) => it.cost.totalMicrosPerCall),
      ...(goals ? { goal: { better: 'lower', must: 1.9, aim: 1.2 } } : {}),
    },
    { name: 'of it on the main thread', key: 'cpu-main', unit: 's CPU', ...of((it) => it.cost.mainMicrosPerCall) },
    { name: 'server cores in use', key: 'cores', unit: '', ...of((it) => it.cost.totalCores) },
    { name: 'generator busy', key: 'generator', unit: '', ...of((it) => it.generatorBusy) },
    ...latencyFigures(of),
    { name: 'RSS', key: 'rss', unit: 'MiB', ...of((it) => it.cost.rssBytes / 2 ** 20) },
    { name: 'failed', key: 'errors', unit: '', ...own((it) => Object.values(it.errors).reduce((a, b) => a + b, 0)) },
  ];
}

async function atHalf(pair: Pair, options: Options, progress: Progress, maximum: number): Promise<StreamResult[]> {
  const results: StreamResult[] = [];
  for (let round = 0; round < options.rounds; round++) {
    progress.say(`latency at half the maximum, round ${round + 1}/${options.rounds}`);
    results.push(await runStreams(streamLoad(pair, options, 'broker', String(Math.round(maximum * HALF)))));
  }
  progress.clear();
  return results;
}

async function atMaximum(pair: Pair, options: Options, progress: Progress, limitMs: number): Promise<Finding> {
  const search = await searchMaximum<StreamResult>({
    limitMs,
    startRate: 50_000,
    progress,
    what: 'messages',
    run: (rate) => runStreams(streamLoad(pair, options, 'broker', rate)),
    rateOf: (result) => result.messagesPerSecond,
  });
  const best = search.best === null ? [] : [search.best];
  return {
    scenario: 'stream',
    setting: `${settingOf(options)}; highest rate with p99 under ${limitMs} ms`,
    figures: [
      { name: 'highest rate', key: 'max-rate', unit: '1/s', subject: [search.rate] },
      ...(best.length === 0 ? [] : streamFigures({ subject: best, baseline: [] }, false)),
    ],
    notes: [...search.notes, ...errorNotes(search.results), ...generatorWarnings({ broker: best })],
    plots: [search.plot, ...(best.length === 0 ? [] : plotsOf({ broker: best }, 'messages/s'))],
    histograms: histogramsOf({ broker: best }),
  };
}

export function settingOf(options: Options): string {
  const { bodyBytes, frameBytes, subjects, streams, connections, framesInFlight, batches } = options;
  return `${bodyBytes} B bodies, frames of ${frameBytes >> 10} KiB with ${batches ?? subjects} batches, ${subjects} subjects, ${streams} streams on ${connections} connections, ${framesInFlight} frames in flight on each`;
}

async function measure(pair: Pair, options: Options, progress: Progress): Promise<Finding> {
  const { rate } = options;
  const run = (side: 'broker' | 'bare') => () => runStreams(streamLoad(pair, options, side, rate));
  const results = await alternate(options.rounds, progress, {
    subject: run('broker'),
    baseline: run('bare'),
    show: (result) => `${formatNumber(result.messagesPerSecond)}/s`,
  });
  const sides = { broker: results.subject, 'bare server': results.baseline };
  const figures = streamFigures(results, rate === null);
  const half: StreamResult[] = [];
  if (rate === null) {
    const rates = results.subject.map((it) => it.messagesPerSecond).toSorted((a, b) => a - b);
    half.push(...(await atHalf(pair, options, progress, rates[rates.length >> 1] ?? 0)));
    figures.push(
      { name: 'at half the maximum: p50', key: 'half-p50', unit: 'ms', subject: half.map((it) => it.latency.p50Ms) },
      {
        name: 'at half the maximum: p99',
        key: 'half-p99',
        unit: 'ms',
        subject: half.map((it) => it.latency.p99Ms),
        goal: { better: 'lower', must: 20, aim: 5 },
      },
      {
        name: 'at half the maximum: CPU seconds per million',
        key: 'half-cpu',
        unit: 's CPU',
        subject: half.map((it) => it.cost.totalMicrosPerCall),
      },
    );
  }
  const traced = half.length === 0 ? sides : { ...sides, 'broker at half': half };
  return {
    scenario: 'stream',
    setting: `${settingOf(options)}, ${rate === null ? 'closed loop' : `open loop of ${rate} messages/s`}`,
    figures,
    notes: [...errorNotes([...results.subject, ...half]), ...generatorWarnings(traced)],
    plots: plotsOf(traced, 'messages/s'),
    histograms: histogramsOf(traced),
  };
}

export const stream: Scenario = {
  name: 'stream',
  about: 'durable batches over PublishStream, against a bare bidirectional server that reads the same frames',
  defaults: { streams: 4, rounds: 3 },
  takesRate: true,
  findsMaximum: true,
  examples: [
    'npm run perf -- stream --frame 16',
    "npm run perf -- stream --rate 100k --duration 10 --assert 'p99<20ms' --assert 'errors==0'",
    'npm run perf -- stream --rate 50k,100k,200k --duration 15 --rounds 1',
    'npm run perf -- stream --find-max 20ms --duration 3 --warmup 1',
  ],
  run: (options, progress) =>
    withServers(options, { answerBytes: 16 }, (pair) =>
      options.findMaxMs === null
        ? measure(pair, options, progress)
        : atMaximum(pair, options, progress, options.findMaxMs),
    ),
};

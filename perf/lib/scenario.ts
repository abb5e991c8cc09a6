import { type Latency, percentileCurve } from './histogram.ts';
import type { Load, LoadMode, LoadResult } from './load.ts';
import { runLoad } from './load.ts';
import type { Options } from './options.ts';
import type { Plot, Series } from './plot.ts';
import type { ProcessTrace } from './process.ts';
import type { Progress } from './progress.ts';
import { parseRates } from './rates.ts';
import { type Figure, type Finding, formatNumber } from './report.ts';
import { type BrokerTarget, type EchoOptions, startBrokerTarget, startEcho, type Target } from './targets.ts';
import type { Timeline } from './timeline.ts';

export interface Scenario {
  readonly name: string;
  readonly about: string;
  /** What differs from the general defaults. */
  readonly defaults: Partial<Options>;
  /** Knows what to do with `--find-max`. */
  readonly findsMaximum?: boolean;
  /** Knows what to do with `--rate`. */
  readonly takesRate?: boolean;
  /** Command lines that work, with what they are good for. */
  readonly examples?: readonly string[];
  run(options: Options, progress: Progress): Promise<Finding>;
}

export const PUBLISH_PATH = '/broker.Broker/Publish';
export const FETCH_PATH = '/broker.Broker/Fetch';
export const SUBSCRIBE_PATH = '/broker.Broker/Subscribe';
export const ECHO_PATH = '/bench.Bench/Echo';
export const FIXED_PATH = '/bench.Bench/Fixed';
export const PUBLISH_STREAM_PATH = '/broker.v1.Producer/PublishStream';
export const CONSUME_PATH = '/broker.v1.Consumer/Consume';
export const INGEST_PATH = '/bench.Bench/Ingest';
export const REPLAY_PATH = '/bench.Bench/Replay';
export const STREAM_PATH = '/bench.Bench/Stream';

/** Subjects of the loads. */
export const PREFIX = 'perf.subject';

export interface Pair {
  readonly broker: BrokerTarget;
  readonly echo: Target;
}

/** Starts both servers, and stops them whatever happens. */
export async function withServers<T>(
  options: Options,
  echoOptions: EchoOptions,
  use: (pair: Pair) => Promise<T>,
): Promise<T> {
  const { shards, cpuProfileDir, serveFlags } = options;
  const echo = await startEcho({ ...echoOptions, cpuProfileDir });
  try {
    const broker = await startBrokerTarget({ shards, cpuProfileDir, flags: serveFlags });
    try {
      return await use({ broker, echo });
    } finally {
      await broker.stop();
    }
  } finally {
    await echo.stop();
  }
}

export interface Rounds<T> {
  readonly subject: readonly T[];
  readonly baseline: readonly T[];
}

/**
 * Subject and baseline in turn, so that a slow minute of the machine hits both. Every second round begins with the baseline: the first of
 * a pair finds a cooler machine.
 */
export async function alternate<T>(
  rounds: number,
  progress: Progress,
  run: {
    readonly subject: () => Promise<T>;
    readonly baseline: () => Promise<T>;
    readonly show: (result: T) => string;
  },
): Promise<Rounds<T>> {
  const subject: T[] = [];
  const baseline: T[] = [];
  let last = '';
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? (['subject', 'baseline'] as const) : (['baseline', 'subject'] as const);
    for (const which of order) {
      progress.say(`round ${round + 1}/${rounds}: ${which === 'subject' ? 'broker' : 'baseline'}   ${last}`);
      const result = await run[which]();
      (which === 'subject' ? subject : baseline).push(result);
      last = `${which === 'subject' ? 'broker' : 'baseline'} ${run.show(result)}`;
    }
  }
  progress.clear();
  return { subject, baseline };
}

/** The parts of a load that all scenarios take from the options. */
export function loadOf(target: Target, options: Options, rest: Pick<Load, 'path' | 'frames' | 'mode'>): Load {
  const { connections, inFlight, warmupMs, durationMs, threads, client } = options;
  const { address, pid } = target;
  return { ...rest, address, pid, connections, inFlight, warmupMs, durationMs, threads, client };
}

/** Closed loops of the same kind on both servers. */
export async function alternateLoads(
  options: Options,
  progress: Progress,
  loads: {
    readonly subject: Load;
    readonly baseline: Load;
  },
): Promise<Rounds<LoadResult>> {
  return alternate(options.rounds, progress, {
    subject: () => runLoad(loads.subject),
    baseline: () => runLoad(loads.baseline),
    show: (result) => `${formatNumber(result.callsPerSecond)}/s`,
  });
}

/** `--rate` as the mode of unary loads; a closed loop without it. */
export function modeOf({ rate, warmupMs, durationMs }: Options): LoadMode {
  return rate === null ? { kind: 'closed' } : { kind: 'open', schedule: parseRates(rate, { warmupMs, durationMs }) };
}

/** The figures that every closed loop has; `goals` are for calls/s and for main-thread CPU. */
export function loadFigures(
  results: Rounds<LoadResult>,
  goals: { rate?: Figure['goal']; cpu?: Figure['goal'] } = {},
): Figure[] {
  const of = (pick: (result: LoadResult) => number) => ({
    subject: results.subject.map(pick),
    ...(results.baseline.length === 0 ? {} : { baseline: results.baseline.map(pick) }),
  });
  return [
    {
      name: 'calls',
      key: 'rate',
      unit: '1/s',
      ...of((it) => it.callsPerSecond),
      ...(goals.rate ? { goal: goals.rate } : {}),
    },
    {
      name: 'main-thread CPU a call',
      unit: 'us',
      ...of((it) => it.cost.mainMicrosPerCall),
      ...(goals.cpu ? { goal: goals.cpu } : {}),
    },
    { name: 'server CPU a call', key: 'cpu', unit: 'us', ...of((it) => it.cost.totalMicrosPerCall) },
    { name: 'server cores in use', unit: '', ...of((it) => it.cost.totalCores) },
    ...latencyFigures(of),
    { name: 'RSS', key: 'rss', unit: 'MiB', ...of((it) => it.cost.rssBytes / 2 ** 20) },
    {
      name: 'failed',
      key: 'errors',
      unit: '',
      subject: results.subject.map((it) => Object.values(it.errors).reduce((sum, count) => sum + count, 0)),
    },
  ];
}

interface Latencies {
  readonly latency: Latency;
  readonly latencyRaw: Latency;
  readonly latencyCorrected: Latency;
}

/** Raw, and beside it what the same run says without coordinated omission. */
export function latencyFigures<T extends Latencies>(
  of: (pick: (result: T) => number) => Pick<Figure, 'subject' | 'baseline'>,
): Figure[] {
  return [
    { name: 'latency p50', key: 'p50', unit: 'ms', ...of((it) => it.latency.p50Ms) },
    { name: 'latency p99', key: 'p99', unit: 'ms', ...of((it) => it.latency.p99Ms) },
    { name: 'latency p99, from the moment of sending', key: 'p99-raw', unit: 'ms', ...of((it) => it.latencyRaw.p99Ms) },
    { name: 'latency p99, corrected', key: 'p99-corrected', unit: 'ms', ...of((it) => it.latencyCorrected.p99Ms) },
    { name: 'latency p99.9', key: 'p999', unit: 'ms', ...of((it) => it.latency.p999Ms) },
    { name: 'latency max', key: 'max', unit: 'ms', ...of((it) => it.latency.maxMs) },
  ];
}

interface Volume {
  readonly timeline: Timeline;
  readonly watch: ProcessTrace;
}

interface Traced extends Volume {
  readonly histograms: readonly string[];
}

type Sides<T> = Readonly<Record<string, readonly T[]>>;

const TIME = 'seconds of the last round';

/** What happened when, in the last round of each side. */
function overTime<T>(
  sides: Sides<T>,
  pick: (result: T) => { readonly stepMs: number; readonly values: readonly number[] },
): Series[] {
  return Object.entries(sides).flatMap(([name, results]): Series[] => {
    const result = results.at(-1);
    if (result === undefined) return [];
    const { stepMs, values } = pick(result);
    return [{ name, points: values.map((value, step) => [((step + 1) * stepMs) / 1_000, value] as const) }];
  });
}

/** Throughput and what it cost the server. */
export function volumePlots(sides: Sides<Volume>, unit: string): Plot[] {
  return [
    {
      title: 'Throughput',
      xLabel: TIME,
      yLabel: unit,
      // The last step is not a whole one.
      series: overTime(sides, ({ timeline: { stepMs, counts } }) => ({
        stepMs,
        values: counts.slice(0, -1).map((count) => (count * 1_000) / stepMs),
      })),
    },
    {
      title: 'Server CPU',
      xLabel: TIME,
      yLabel: 'cores',
      series: overTime(sides, ({ watch }) => ({ stepMs: watch.stepMs, values: watch.cores })),
    },
    {
      title: 'Server memory (RSS)',
      xLabel: TIME,
      yLabel: 'MiB',
      series: overTime(sides, ({ watch }) => ({ stepMs: watch.stepMs, values: watch.rssMiB })),
    },
  ];
}

/** The same with latencies. */
export function plotsOf(sides: Sides<Traced>, unit: string): Plot[] {
  return [
    {
      title: 'Latency by percentile, all rounds',
      xLabel: 'percentile',
      yLabel: 'ms',
      xScale: 'quantile',
      yScale: 'log',
      series: Object.entries(sides).flatMap(([name, results]) =>
        results.length === 0 ? [] : [{ name, points: percentileCurve(results.flatMap((it) => it.histograms)) }],
      ),
    },
    {
      title: 'Worst latency of each quarter second',
      xLabel: TIME,
      yLabel: 'ms',
      series: overTime(sides, ({ timeline: { stepMs, worstMs } }) => ({ stepMs, values: worstMs })),
    },
    ...volumePlots(sides, unit),
  ];
}

export function histogramsOf(sides: Readonly<Record<string, readonly Traced[]>>): Record<string, readonly string[]> {
  return Object.fromEntries(
    Object.entries(sides).map(([name, results]) => [name, results.flatMap((result) => result.histograms)]),
  );
}

/** Says when calls failed: a server that refuses is fast. */
export function errorNotes(results: readonly { readonly errors: Readonly<Record<string, number>> }[]): string[] {
  const sums = new Map<string, number>();
  for (const { errors } of results) {
    for (const [code, count] of Object.entries(errors)) sums.set(code, (sums.get(code) ?? 0) + count);
  }
  return [...sums].map(
    ([code, count]) => `FAILED CALLS: ${count} with gRPC status ${code}; they are not counted in the rates`,
  );
}

import type { Load, LoadResult } from './load.ts';
import { runLoad } from './load.ts';
import type { Options } from './options.ts';
import type { Progress } from './progress.ts';
import { type Figure, type Finding, formatNumber } from './report.ts';
import { type BrokerTarget, type EchoOptions, startBrokerTarget, startEcho, type Target } from './targets.ts';

export interface Scenario {
  readonly name: string;
  readonly about: string;
  /** What differs from the general defaults. */
  readonly defaults: Partial<Options>;
  run(options: Options, progress: Progress): Promise<Finding>;
}

export const PUBLISH_PATH = '/broker.Broker/Publish';
export const FETCH_PATH = '/broker.Broker/Fetch';
export const SUBSCRIBE_PATH = '/broker.Broker/Subscribe';
export const ECHO_PATH = '/bench.Bench/Echo';
export const FIXED_PATH = '/bench.Bench/Fixed';
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

/** The figures that every closed loop has; `goals` are for calls/s and for main-thread CPU. */
export function loadFigures(
  results: Rounds<LoadResult>,
  goals: { rate?: Figure['goal']; cpu?: Figure['goal'] } = {},
): Figure[] {
  const of = (pick: (result: LoadResult) => number) => ({
    subject: results.subject.map(pick),
    baseline: results.baseline.map(pick),
  });
  return [
    { name: 'calls', unit: '1/s', ...of((it) => it.callsPerSecond), ...(goals.rate ? { goal: goals.rate } : {}) },
    {
      name: 'main-thread CPU a call',
      unit: 'us',
      ...of((it) => it.cost.mainMicrosPerCall),
      ...(goals.cpu ? { goal: goals.cpu } : {}),
    },
    { name: 'server CPU a call', unit: 'us', ...of((it) => it.cost.totalMicrosPerCall) },
    { name: 'server cores in use', unit: '', ...of((it) => it.cost.totalCores) },
    { name: 'latency p50', unit: 'ms', ...of((it) => it.latency.p50Ms) },
    { name: 'latency p99', unit: 'ms', ...of((it) => it.latency.p99Ms) },
    { name: 'latency max', unit: 'ms', ...of((it) => it.latency.maxMs) },
    { name: 'RSS', unit: 'MiB', ...of((it) => it.cost.rssBytes / 2 ** 20) },
  ];
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

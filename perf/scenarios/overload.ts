/** Twice and five times what the broker can take, by publish streams that obey the window and by unary connections. */
import { generatorWarnings } from '../lib/bottleneck.ts';
import { type LoadResult, runLoad } from '../lib/load.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import type { Figure, Finding } from '../lib/report.ts';
import {
  errorNotes,
  histogramsOf,
  loadOf,
  type Pair,
  PUBLISH_PATH,
  plotsOf,
  type Scenario,
  withServers,
} from '../lib/scenario.ts';
import { failures, recoveryMs, withoutWarmup } from '../lib/scenario-streams.ts';
import { runStreams, type StreamResult } from '../lib/stream-load.ts';
import { streamLoad } from './stream.ts';
import { publishFrames } from './unary.ts';

const FACTORS = [2, 5];
/** Of the maximum: the rate that the probe after an overload sends at. */
const PROBE_SHARE = 0.2;
const PROBE_MS = 8_000;
/** What the image and the manifests of Kubernetes ask for (docs/docker.md), in MiB; half of it is the aim. */
const RSS_GOAL = { better: 'lower', must: 1_024, aim: 512 } as const;
/** Normal is a worst latency of up to so many times the p99 that the probe has without an overload. */
const NORMAL_FACTOR = 3;

interface Part {
  readonly figures: Figure[];
  readonly sides: Record<string, StreamResult[]>;
  readonly failed: readonly { readonly errors: Readonly<Record<string, number>> }[];
}

async function streams(pair: Pair, options: Options, progress: Progress): Promise<Part> {
  progress.say('streams: the maximum');
  const most = await runStreams(streamLoad(pair, options, 'broker', null));
  const probeRate = String(Math.round(most.messagesPerSecond * PROBE_SHARE));
  const probeOptions = { ...options, durationMs: Math.min(PROBE_MS, options.durationMs) };
  progress.say('streams: the probe, without an overload');
  const calm = await runStreams(streamLoad(pair, probeOptions, 'broker', probeRate));
  const figures: Figure[] = [
    { name: 'streams: maximum', key: 'stream-max', unit: '1/s', subject: [most.messagesPerSecond] },
  ];
  const sides: Part['sides'] = { maximum: [most] };
  for (const factor of FACTORS) {
    progress.say(`streams: ${factor} times the maximum`);
    const more = { ...options, streams: options.streams * factor, connections: options.connections * factor };
    const rate = String(Math.round(most.messagesPerSecond * factor));
    const loaded = await runStreams(streamLoad(pair, more, 'broker', rate));
    progress.say(`streams: the probe behind ${factor} times the maximum`);
    const after = await withoutWarmup(streamLoad(pair, probeOptions, 'broker', probeRate));
    sides[`${factor} times`] = [loaded];
    const name = `streams, ${factor}x`;
    const key = `stream-${factor}x`;
    const limitMs = Math.max(calm.latency.p99Ms * NORMAL_FACTOR, 5);
    figures.push(
      {
        name: `${name}: goodput, of the maximum`,
        key: `${key}-goodput`,
        unit: '1/s',
        subject: [loaded.messagesPerSecond],
        baseline: [most.messagesPerSecond],
        baselineName: 'maximum',
        goal: { better: 'higher', must: 0.9, aim: 0.95 },
      },
      {
        name: `${name}: p99 of what was accepted, from the moment of sending`,
        key: `${key}-p99`,
        unit: 'ms',
        subject: [loaded.latencyRaw.p99Ms],
        baseline: [calm.latencyRaw.p99Ms],
        baselineName: `at ${PROBE_SHARE * 100} %`,
        goal: { better: 'lower', must: 5, aim: 2 },
      },
      {
        name: `${name}: the same against the maximum`,
        key: `${key}-p99-max`,
        unit: 'ms',
        subject: [loaded.latencyRaw.p99Ms],
        baseline: [most.latencyRaw.p99Ms],
        baselineName: 'maximum',
      },
      {
        name: `${name}: RSS`,
        key: `${key}-rss`,
        unit: 'MiB',
        subject: [loaded.cost.rssBytes / 2 ** 20],
        goal: RSS_GOAL,
      },
      {
        name: `${name}: back to normal after (never: ?)`,
        key: `${key}-recovery`,
        unit: 's',
        subject: [(recoveryMs(after, limitMs) ?? Number.POSITIVE_INFINITY) / 1_000],
        goal: { better: 'lower', must: 5, aim: 1 },
      },
    );
  }
  return { figures, sides, failed: [most, calm, ...Object.values(sides).flat()] };
}

/** A producer that sends whatever the window says, beside one that obeys. */
async function rude(pair: Pair, options: Options, progress: Progress): Promise<Figure[]> {
  progress.say('streams: beside a client that ignores the window');
  const load = streamLoad(pair, options, 'broker', null);
  const alone = await runStreams(load);
  const rudeLoad = { ...load, connections: 1, streams: 1, framesInFlight: 4_000, ignoresWindow: true };
  const [beside, other] = await Promise.all([runStreams(load), runStreams(rudeLoad)]);
  return [
    {
      name: 'beside a client that ignores the window: messages',
      key: 'rude-rate',
      unit: '1/s',
      subject: [beside.messagesPerSecond],
      baseline: [alone.messagesPerSecond],
      baselineName: 'alone',
      goal: { better: 'higher', must: 0.8, aim: 0.95 },
    },
    { name: 'failures of the others meanwhile', key: 'rude-errors', unit: '', subject: [failures([beside])] },
    { name: 'streams that the rude one lost', key: 'rude-lost', unit: '', subject: [failures([other])] },
  ];
}

async function unary(
  pair: Pair,
  options: Options,
  progress: Progress,
): Promise<{ figures: Figure[]; sides: Record<string, LoadResult[]> }> {
  const run = (factor: number): Promise<LoadResult> => {
    progress.say(`unary: ${factor} times the connections`);
    const { connections, inFlight } = options;
    const more = { ...options, connections: connections * factor, inFlight: inFlight * factor };
    const mode = { kind: 'closed' as const };
    return runLoad(loadOf(pair.broker, more, { path: PUBLISH_PATH, frames: publishFrames(options), mode }));
  };
  const most = await run(1);
  const figures: Figure[] = [];
  const sides: Record<string, LoadResult[]> = { 'unary, 1x': [most] };
  for (const factor of FACTORS) {
    const loaded = await run(factor);
    sides[`unary, ${factor}x`] = [loaded];
    figures.push(
      {
        name: `unary, ${factor}x the connections: goodput`,
        key: `unary-${factor}x-goodput`,
        unit: '1/s',
        subject: [loaded.callsPerSecond],
        baseline: [most.callsPerSecond],
        baselineName: '1x',
        goal: { better: 'higher', must: 0.8, aim: 0.9 },
      },
      { name: `unary, ${factor}x: p99`, key: `unary-${factor}x-p99`, unit: 'ms', subject: [loaded.latency.p99Ms] },
      {
        name: `unary, ${factor}x: RSS`,
        key: `unary-${factor}x-rss`,
        unit: 'MiB',
        subject: [loaded.cost.rssBytes / 2 ** 20],
        goal: RSS_GOAL,
      },
      { name: `unary, ${factor}x: refused`, key: `unary-${factor}x-errors`, unit: '', subject: [failures([loaded])] },
    );
  }
  return { figures, sides };
}

export const overload: Scenario = {
  name: 'overload',
  about: '2x and 5x the maximum, by streams and by unary connections: goodput, p99, memory, recovery',
  defaults: { streams: 4, durationMs: 10_000 },
  examples: [
    'npm run perf -- overload --duration 120 -- --retention-max-bytes 8GiB',
    "npm run perf -- overload --duration 20 --assert 'ratio.stream-5x-goodput>=90%'",
  ],
  run: (options, progress) =>
    withServers(options, { answerBytes: 16 }, async (pair): Promise<Finding> => {
      const part = await streams(pair, options, progress);
      const besideRude = await rude(pair, options, progress);
      const calls = await unary(pair, options, progress);
      progress.clear();
      // More than can be taken is due, on purpose: that it waits is what is measured.
      const busy = ({ generatorBusy }: { readonly generatorBusy: number }) => ({ generatorBusy });
      const loads = Object.entries({ ...part.sides, ...calls.sides });
      return {
        scenario: 'overload',
        setting: `${options.durationMs / 1_000} s each; streams: ${options.streams} on ${options.connections} connections and multiples; unary: ${options.inFlight} in flight on ${options.connections} connections and multiples`,
        figures: [...part.figures, ...besideRude, ...calls.figures],
        notes: [
          ...errorNotes([...part.failed, ...Object.values(calls.sides).flat()]),
          ...generatorWarnings(Object.fromEntries(loads.map(([name, results]) => [name, results.map(busy)]))),
        ],
        plots: plotsOf(part.sides, 'messages/s'),
        histograms: histogramsOf({ ...part.sides, ...calls.sides }),
      };
    }),
};

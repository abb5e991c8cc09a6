/** Publishing through any of three nodes, against one lone node on the same PostgreSQL, and against NATS with three replicas. */
import { generatorWarnings } from '../lib/bottleneck.ts';
import { type LoadResult, runLoad } from '../lib/load.ts';
import { Cluster } from '../lib/nodes.ts';
import type { Options } from '../lib/options.ts';
import type { ServerCost } from '../lib/process.ts';
import type { Progress } from '../lib/progress.ts';
import { type Figure, type Finding, formatNumber } from '../lib/report.ts';
import { alternate, errorNotes, loadOf, PUBLISH_PATH, type Rounds, type Scenario } from '../lib/scenario.ts';
import { runStreams, type StreamResult } from '../lib/stream-load.ts';
import { type BrokerTarget, startBrokerTarget } from '../lib/targets.ts';
import { hasNats, startNatsCluster } from '../peers/nats-cluster.ts';
import { startStoreServer } from '../stores/server.ts';
import { settingOf, streamLoad } from './stream.ts';
import { publishFrames } from './unary.ts';

/** For each second that the broker is measured. */
const NATS_MESSAGES = 100_000;

/** What several loads at a time come to, each on a node of its own. */
interface Together {
  readonly rate: number;
  /** Of the slowest. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly costs: readonly ServerCost[];
  readonly count: number;
  readonly failed: number;
}

function together<T extends LoadResult | StreamResult>(
  results: readonly T[],
  rate: (it: T) => number,
  count: (it: T) => number,
): Together {
  return {
    rate: results.reduce((sum, it) => sum + rate(it), 0),
    p50Ms: Math.max(...results.map((it) => it.latency.p50Ms)),
    p99Ms: Math.max(...results.map((it) => it.latency.p99Ms)),
    costs: results.map((it) => it.cost),
    count: results.reduce((sum, it) => sum + count(it), 0),
    failed: results.reduce((sum, it) => sum + Object.values(it.errors).reduce((a, b) => a + b, 0), 0),
  };
}

const coresOf = ({ costs }: Together): number => costs.reduce((sum, { totalCores }) => sum + totalCores, 0);

/** In microseconds, of all nodes together. */
function cpuOf(it: Together, seconds: number): number {
  return (coresOf(it) * seconds * 1e6) / Math.max(1, it.count);
}

async function unaryOn(targets: readonly BrokerTarget[], options: Options): Promise<[Together, LoadResult[]]> {
  const frames = publishFrames(options);
  // As many generator threads and connections for the lone node as for three.
  const parts = targets.length;
  const share = {
    ...options,
    inFlight: Math.ceil(options.inFlight / parts),
    connections: Math.ceil(options.connections / parts),
    threads: Math.max(1, Math.ceil(options.threads / parts)),
  };
  const results = await Promise.all(
    targets.map((target) => runLoad(loadOf(target, share, { path: PUBLISH_PATH, frames, mode: { kind: 'closed' } }))),
  );
  return [
    together(
      results,
      (it) => it.callsPerSecond,
      (it) => it.calls,
    ),
    results,
  ];
}

async function streamsOn(targets: readonly BrokerTarget[], options: Options): Promise<[Together, StreamResult[]]> {
  const parts = targets.length;
  const share = {
    ...options,
    streams: Math.ceil(options.streams / parts),
    connections: Math.ceil(options.connections / parts),
    threads: Math.max(1, Math.ceil(options.threads / parts)),
  };
  const results = await Promise.all(
    targets.map((broker) => runStreams(streamLoad({ broker, echo: broker }, share, 'broker', null))),
  );
  return [
    together(
      results,
      (it) => it.messagesPerSecond,
      (it) => it.messages,
    ),
    results,
  ];
}

function figuresOf(what: string, key: string, unit: string, rounds: Rounds<Together>, options: Options): Figure[] {
  const seconds = options.durationMs / 1_000;
  const of = (pick: (it: Together) => number) => ({
    subject: rounds.subject.map(pick),
    baseline: rounds.baseline.map(pick),
    baselineName: 'one lone node',
  });
  return [
    {
      name: `${what}: ${unit}`,
      key,
      unit: '1/s',
      ...of((it) => it.rate),
      ...(key === 'unary' ? { goal: { better: 'higher' as const, must: 0.5, aim: 0.8 } } : {}),
    },
    { name: `${what}: p50`, key: `${key}-p50`, unit: 'ms', ...of((it) => it.p50Ms) },
    { name: `${what}: p99`, key: `${key}-p99`, unit: 'ms', ...of((it) => it.p99Ms) },
    { name: `${what}: CPU of all nodes`, key: `${key}-cpu`, unit: 'us', ...of((it) => cpuOf(it, seconds)) },
    { name: `${what}: cores of all nodes`, key: `${key}-cores`, unit: '', ...of(coresOf) },
    { name: `${what}: failed`, key: `${key}-errors`, unit: '', ...of((it) => it.failed) },
  ];
}

async function natsRates(options: Options, progress: Progress): Promise<number[] | null> {
  if (!hasNats()) return null;
  progress.say('NATS, three servers');
  const nats = await startNatsCluster();
  try {
    const messages = Math.ceil((NATS_MESSAGES * options.durationMs) / 1_000);
    await nats.publish('fast', Math.ceil(messages / 4), options.bodyBytes);
    const rates: number[] = [];
    for (let round = 0; round < options.rounds; round++) {
      rates.push(await nats.publish('fast', messages, options.bodyBytes));
    }
    return rates;
  } finally {
    await nats.stop();
  }
}

async function measure(options: Options, progress: Progress): Promise<Finding> {
  progress.say(`starting ${options.store}`);
  const server = await startStoreServer(options.store);
  const results: (LoadResult | StreamResult)[] = [];
  try {
    const { shards, cpuProfileDir, serveFlags } = options;
    const lone = await startBrokerTarget({
      shards,
      cpuProfileDir: null,
      flags: [...server.moreFlags(), ...serveFlags],
    });
    try {
      progress.say('starting three nodes');
      const flags = [...server.flags, ...serveFlags];
      const cluster = await Cluster.start({ shards, cpuProfileDir, flags });
      try {
        const termBefore = await cluster.term();
        const run = async <T>(what: (targets: readonly BrokerTarget[], options: Options) => Promise<[Together, T[]]>) =>
          await alternate<Together>(options.rounds, progress, {
            subject: async () => {
              const [all, each] = await what(cluster.nodes, options);
              results.push(...(each as unknown as LoadResult[]));
              return all;
            },
            baseline: async () => (await what([lone], options))[0],
            show: ({ rate }) => `${formatNumber(rate)}/s`,
          });
        const unary = await run(unaryOn);
        const streams = await run(streamsOn);
        const terms = (await cluster.term()) - termBefore;
        await cluster.stop();
        await lone.stop();
        const nats = await natsRates(options, progress);
        const figures: Figure[] = [
          ...figuresOf('unary', 'unary', 'calls', unary, options),
          ...figuresOf('streams', 'streams', 'messages', streams, options),
          { name: 'changes of term', key: 'terms', unit: '', subject: [terms] },
        ];
        if (nats !== null) {
          figures.push({
            name: 'streams: messages',
            key: 'streams-nats',
            unit: '1/s',
            subject: streams.subject.map(({ rate }) => rate),
            baseline: nats,
            baselineName: 'NATS R3, sync_interval always, fast ingest',
            goal: { better: 'higher', must: 1, aim: 2 },
          });
        }
        return {
          scenario: 'cluster',
          setting: `three nodes on one ${options.store}, load spread over them; unary: ${options.inFlight} in flight; ${settingOf(options)}`,
          figures,
          notes: [
            ...errorNotes(results),
            ...generatorWarnings({ broker: results }),
            ...(nats === null ? ['NATS is not installed: npm run perf -- peers --install nats-always'] : []),
          ],
        };
      } finally {
        await cluster.stop();
      }
    } finally {
      await lone.stop();
    }
  } finally {
    await server.stop();
    progress.clear();
  }
}

export const cluster: Scenario = {
  name: 'cluster',
  about:
    'publishes through any of three nodes, against one lone node on the same PostgreSQL, and NATS R3 where it is installed',
  defaults: { rounds: 3, inFlight: 256, connections: 6, streams: 6, threads: 3 },
  examples: ['npm run perf -- cluster', 'npm run perf -- cluster --rounds 2 --duration 4 --cpu-prof profiles'],
  run: measure,
};

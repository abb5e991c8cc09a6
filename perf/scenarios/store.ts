/** Durable batches on a store, against the bare way to it; and with a database, unary publishes against the embedded store. */
import { generatorWarnings } from '../lib/bottleneck.ts';
import { type LoadResult, runLoad } from '../lib/load.ts';
import { scrape } from '../lib/metrics.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import { type Figure, type Finding, formatNumber } from '../lib/report.ts';
import { alternate, errorNotes, histogramsOf, loadOf, PUBLISH_PATH, plotsOf, type Scenario } from '../lib/scenario.ts';
import { runStreams, type StreamResult } from '../lib/stream-load.ts';
import { type BrokerTarget, startBrokerTarget } from '../lib/targets.ts';
import { type BareTarget, type GroupShape, runBare } from '../stores/bare.ts';
import { startStoreServer } from '../stores/server.ts';
import { settingOf, streamLoad } from './stream.ts';
import { publishFrames } from './unary.ts';

/** What the fastest bare way is looked for among: groups on their way at a time. */
const BARE_IN_FLIGHT: Readonly<Record<BareTarget['kind'], readonly number[]>> = {
  postgres: [1, 2, 4, 8],
  cassandra: [1, 2, 4, 8],
  embedded: [1, 2],
};
/** Of what the bare way is calibrated with, ms. */
const CALIBRATION = { warmupMs: 500, durationMs: 1_500 };

interface Measured {
  readonly messagesPerSecond: number;
  readonly stream: StreamResult | null;
}

/** What the shards have given to the store. */
async function written(
  broker: BrokerTarget,
): Promise<[groups: number, batches: number, bytes: number, messages: number]> {
  const names = ['groups', 'batches', 'bytes', 'messages'].map((name) => `broker_shard_${name}_total`);
  return (await scrape(broker.broker.adminAddress, names)) as [number, number, number, number];
}

/** The bare way, in the one of its forms that turned out to be the fastest. */
class Bare {
  readonly #target: BareTarget;
  readonly #shape: GroupShape;
  readonly #options: Options;
  #nextBase = 1;
  inFlight = 1;

  constructor(target: BareTarget, shape: GroupShape, options: Options) {
    this.#target = target;
    this.#shape = shape;
    this.#options = options;
  }

  async calibrate(progress: Progress): Promise<string> {
    const tried: { readonly inFlight: number; readonly rate: number }[] = [];
    for (const inFlight of BARE_IN_FLIGHT[this.#target.kind]) {
      progress.say(`the bare way with ${inFlight} groups in flight`);
      tried.push({ inFlight, rate: (await this.#run(inFlight, CALIBRATION)).messagesPerSecond });
    }
    this.inFlight = tried.toSorted((a, b) => b.rate - a.rate)[0]?.inFlight ?? 1;
    return tried.map(({ inFlight, rate }) => `${inFlight}: ${formatNumber(rate)}/s`).join(', ');
  }

  run(): Promise<Measured> {
    return this.#run(this.inFlight, this.#options);
  }

  async #run(inFlight: number, times: Pick<Options, 'warmupMs' | 'durationMs'>): Promise<Measured> {
    const { warmupMs, durationMs } = times;
    const { subjects } = this.#options;
    const base = { target: this.#target, shape: this.#shape, subjects, firstBase: this.#nextBase };
    const result = await runBare({ ...base, inFlight, warmupMs, durationMs });
    this.#nextBase = result.nextBase;
    return { messagesPerSecond: result.messagesPerSecond, stream: null };
  }
}

function figuresOf(streams: readonly StreamResult[], bare: readonly Measured[]): Figure[] {
  const own = (pick: (result: StreamResult) => number) => ({ subject: streams.map(pick) });
  return [
    {
      name: 'streams: messages',
      key: 'rate',
      unit: '1/s',
      ...own((it) => it.messagesPerSecond),
      baseline: bare.map((it) => it.messagesPerSecond),
      baselineName: 'bare writes',
      goal: { better: 'higher', must: 0.6, aim: 0.9 },
    },
    { name: 'streams: bytes', key: 'bytes', unit: 'MB/s', ...own((it) => it.bytesPerSecond / 1e6) },
    {
      name: 'broker CPU, seconds per million messages',
      key: 'cpu',
      unit: 's CPU',
      ...own((it) => it.cost.totalMicrosPerCall),
    },
    { name: 'of it on the main thread', key: 'cpu-main', unit: 's CPU', ...own((it) => it.cost.mainMicrosPerCall) },
    { name: 'broker cores in use', key: 'cores', unit: '', ...own((it) => it.cost.totalCores) },
    { name: 'generator busy', key: 'generator', unit: '', ...own((it) => it.generatorBusy) },
    { name: 'latency of a frame p50', key: 'p50', unit: 'ms', ...own((it) => it.latency.p50Ms) },
    { name: 'latency of a frame p99', key: 'p99', unit: 'ms', ...own((it) => it.latency.p99Ms) },
    { name: 'RSS', key: 'rss', unit: 'MiB', ...own((it) => it.cost.rssBytes / 2 ** 20) },
    { name: 'failed', key: 'errors', unit: '', ...own((it) => Object.values(it.errors).reduce((a, b) => a + b, 0)) },
  ];
}

/** Same load on a broker of its own with the embedded store. */
async function unaryFigures(
  broker: BrokerTarget,
  options: Options,
  progress: Progress,
): Promise<{ figures: Figure[]; results: LoadResult[] }> {
  const embedded = await startBrokerTarget({ shards: options.shards, cpuProfileDir: null, flags: options.serveFlags });
  try {
    const frames = publishFrames(options);
    const load = (target: BrokerTarget) =>
      loadOf(target, options, { path: PUBLISH_PATH, frames, mode: { kind: 'closed' } });
    const rounds = await alternate<LoadResult>(options.rounds, progress, {
      subject: () => runLoad(load(broker)),
      baseline: () => runLoad(load(embedded)),
      show: (result) => `${formatNumber(result.callsPerSecond)} calls/s`,
    });
    const of = (pick: (result: LoadResult) => number) => ({
      subject: rounds.subject.map(pick),
      baseline: rounds.baseline.map(pick),
      baselineName: 'embedded store',
    });
    const figures: Figure[] = [
      {
        name: 'unary: calls',
        key: 'unary',
        unit: '1/s',
        ...of((it) => it.callsPerSecond),
        ...(options.store === 'postgres' ? { goal: { better: 'higher', must: 0.5, aim: 0.7 } as const } : {}),
      },
      { name: 'unary: latency p99', key: 'unary-p99', unit: 'ms', ...of((it) => it.latency.p99Ms) },
      { name: 'unary: broker CPU a call', key: 'unary-cpu', unit: 'us', ...of((it) => it.cost.totalMicrosPerCall) },
    ];
    return { figures, results: [...rounds.subject, ...rounds.baseline] };
  } finally {
    await embedded.stop();
  }
}

async function measure(options: Options, progress: Progress): Promise<Finding> {
  progress.say(`starting ${options.store}`);
  const server = await startStoreServer(options.store);
  try {
    const { shards, cpuProfileDir, serveFlags } = options;
    const broker = await startBrokerTarget({ shards, cpuProfileDir, flags: [...server.flags, ...serveFlags] });
    try {
      const pair = { broker, echo: broker };
      const load = streamLoad(pair, options, 'broker', null);
      progress.say('which groups the broker writes');
      await runStreams({ ...load, warmupMs: 0, durationMs: options.warmupMs });
      const before = await written(broker);
      await runStreams({ ...load, warmupMs: 0, durationMs: options.durationMs });
      const [groups, batches, bytes, messages] = (await written(broker)).map(
        (after, i) => after - (before[i] ?? 0),
      ) as [number, number, number, number];
      const shape = {
        batches: batches / groups,
        batchBytes: Math.round(bytes / batches),
        messagesPerBatch: messages / batches,
      };
      const bare = new Bare(await server.bareTarget(broker.broker.dataDir), shape, options);
      const tried = await bare.calibrate(progress);
      const rounds = await alternate<Measured>(options.rounds, progress, {
        subject: async () => {
          const stream = await runStreams(load);
          return { messagesPerSecond: stream.messagesPerSecond, stream };
        },
        baseline: () => bare.run(),
        show: (result) => `${formatNumber(result.messagesPerSecond)} messages/s`,
      });
      const streams = rounds.subject.flatMap(({ stream }) => stream ?? []);
      const unary =
        options.store === 'embedded' ? { figures: [], results: [] } : await unaryFigures(broker, options, progress);
      return {
        scenario: 'store',
        setting: `${options.store}; ${settingOf(options)}; unary: ${options.inFlight} in flight`,
        figures: [...figuresOf(streams, rounds.baseline), ...unary.figures],
        notes: [
          `a group of the broker: ${shape.batches.toFixed(1)} batches of ${formatNumber(shape.batchBytes)} B and ${shape.messagesPerBatch.toFixed(1)} messages; the bare way writes the same`,
          `the bare way by groups in flight: ${tried}; compared with ${bare.inFlight}`,
          ...errorNotes([...streams, ...unary.results]),
          ...generatorWarnings({ broker: streams }),
        ],
        plots: plotsOf({ broker: streams }, 'messages/s'),
        histograms: histogramsOf({ broker: streams }),
      };
    } finally {
      await broker.stop();
    }
  } finally {
    await server.stop();
    progress.clear();
  }
}

export const store: Scenario = {
  name: 'store',
  about:
    'durable batches on --store postgres, cassandra or embedded, against its driver (or the disk) writing the same groups barely',
  defaults: { streams: 4, rounds: 3, inFlight: 512 },
  examples: ['npm run perf -- store --store postgres', 'npm run perf -- store --store cassandra --duration 10'],
  run: measure,
};

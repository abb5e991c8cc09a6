/** What gossip does for a first start, what it costs at rest, and what a flood of its packets does to publishers. */
import { Worker } from 'node:worker_threads';
import { connect } from '../../src/client/index.ts';
import { encodeMessage } from '../../src/net/gossip/wire/messages.ts';
import { freePorts } from '../../test/support/ports.ts';
import { type LoadResult, runLoad } from '../lib/load.ts';
import { Cluster } from '../lib/nodes.ts';
import type { Options } from '../lib/options.ts';
import type { PacketFlood } from '../lib/packet-flood.ts';
import { sampleProcess, threadPercentages } from '../lib/process.ts';
import type { Progress } from '../lib/progress.ts';
import type { Finding } from '../lib/report.ts';
import { alternate, errorNotes, loadOf, modeOf, PUBLISH_PATH, type Rounds, type Scenario } from '../lib/scenario.ts';
import { startBrokerTarget } from '../lib/targets.ts';
import { startStoreServer } from '../stores/server.ts';
import { publishFrames } from './unary.ts';

const FLOOD_PER_SECOND = 10_000;
/** Start-up work is over by then. */
const SETTLE_MS = 5_000;

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** From the start of three processes to the first acknowledged publish, in s. */
async function firstPublish(
  options: Options,
  flags: readonly string[],
): Promise<{ seconds: number; cluster: Cluster }> {
  const began = performance.now();
  const { shards } = options;
  const cluster = await Cluster.startByGossip({ shards, cpuProfileDir: null, flags });
  const client = connect(cluster.addresses);
  try {
    await client.publish('perf.first', Buffer.from('first'));
    return { seconds: (performance.now() - began) / 1_000, cluster };
  } finally {
    await client.close();
  }
}

/** CPU of the main threads, in % of a core, the mean of all. */
async function mainAtRest(pids: readonly number[], ms: number): Promise<number> {
  const before = pids.map(sampleProcess);
  await pause(ms);
  const percents = pids.map((pid, index) => {
    const sample = before[index];
    if (sample === undefined) return 0;
    return threadPercentages(sample, sampleProcess(pid)).find(({ id }) => id === pid)?.percent ?? 0;
  });
  return percents.reduce((sum, percent) => sum + percent, 0) / pids.length;
}

async function withFlood<T>(task: PacketFlood, work: () => Promise<T>): Promise<T> {
  const worker = new Worker(new URL('../lib/packet-flood.ts', import.meta.url), { workerData: task });
  try {
    return await work();
  } finally {
    await worker.terminate();
  }
}

/** Publishing at a steady rate on a lone node, with pings of a stranger coming in and without. */
async function underFlood(options: Options, progress: Progress): Promise<Rounds<LoadResult>> {
  const [port] = (await freePorts(1)) as [number];
  const own = ['--gossip', 'true', '--gossip-listen', `127.0.0.1:${port}`, '--node-id', 'flooded'];
  const broker = await startBrokerTarget({ shards: options.shards, cpuProfileDir: options.cpuProfileDir, flags: own });
  try {
    const frames = publishFrames(options);
    const run = (): Promise<LoadResult> =>
      runLoad(loadOf(broker, options, { path: PUBLISH_PATH, frames, mode: modeOf(options) }));
    // Each is answered: nothing costs the flooded node more.
    const packet = encodeMessage({ kind: 'ping', seq: 1, node: 'flooded', source: null });
    const flood: PacketFlood = { host: '127.0.0.1', port, packet, perSecond: FLOOD_PER_SECOND };
    return await alternate(options.rounds, progress, {
      subject: () => withFlood(flood, run),
      baseline: run,
      show: ({ latency }) => `p99 ${latency.p99Ms.toFixed(2)} ms`,
    });
  } finally {
    await broker.stop();
  }
}

async function measure(options: Options, progress: Progress): Promise<Finding> {
  const first: number[] = [];
  const rest: number[] = [];
  const silent: number[] = [];
  progress.say(`starting ${options.store}`);
  const server = await startStoreServer(options.store);
  try {
    for (let round = 0; round < options.rounds; round += 1) {
      progress.say(`round ${round + 1}/${options.rounds}: three fresh nodes`);
      const { seconds, cluster } = await firstPublish(options, [...server.moreFlags(), ...options.serveFlags]);
      first.push(seconds);
      try {
        await cluster.untilWhole();
        progress.say(`round ${round + 1}/${options.rounds}: at rest with gossip`);
        await pause(SETTLE_MS);
        rest.push(
          await mainAtRest(
            cluster.nodes.map(({ pid }) => pid),
            options.durationMs,
          ),
        );
      } finally {
        await cluster.stop();
      }
      const flags = [...server.moreFlags(), ...options.serveFlags];
      const told = await Cluster.start({ shards: options.shards, cpuProfileDir: null, flags });
      try {
        progress.say(`round ${round + 1}/${options.rounds}: at rest without`);
        await pause(SETTLE_MS);
        silent.push(
          await mainAtRest(
            told.nodes.map(({ pid }) => pid),
            options.durationMs,
          ),
        );
      } finally {
        await told.stop();
      }
    }
  } finally {
    await server.stop();
  }
  const flooded = await underFlood(options, progress);
  progress.clear();
  const of = (pick: (it: LoadResult) => number) => ({
    subject: flooded.subject.map(pick),
    baseline: flooded.baseline.map(pick),
    baselineName: 'quiet',
  });
  return {
    scenario: 'gossip',
    setting: `${options.store}; at rest for ${options.durationMs / 1_000} s; publishes at ${options.rate}/s while ${FLOOD_PER_SECOND} pings a second come in, each of which is answered`,
    figures: [
      {
        name: 'three fresh nodes to the first acknowledged publish',
        key: 'first',
        unit: 's',
        subject: first,
        goal: { better: 'lower', must: 5, aim: 2 },
      },
      {
        name: 'main thread at rest, three nodes, what gossip adds',
        key: 'rest',
        unit: '% of a core',
        subject: rest.map((percent, round) => Math.max(0, percent - (silent[round] ?? 0))),
        goal: { better: 'lower', must: 0.5, aim: 0.5 },
      },
      {
        name: 'main thread at rest, with gossip',
        unit: '% of a core',
        subject: rest,
        baseline: silent,
        baselineName: 'without',
      },
      {
        name: 'publish p99 under the flood',
        key: 'flood-p99',
        unit: 'ms',
        ...of((it) => it.latency.p99Ms),
        goal: { better: 'lower', must: 1.5, aim: 1.1 },
      },
      { name: 'publish p50 under the flood', key: 'flood-p50', unit: 'ms', ...of((it) => it.latency.p50Ms) },
      { name: 'server cores under the flood', unit: '', ...of((it) => it.cost.totalCores) },
    ],
    notes: errorNotes([...flooded.subject, ...flooded.baseline]),
  };
}

export const gossip: Scenario = {
  name: 'gossip',
  about:
    'three fresh nodes that find each other, what gossip costs at rest, and publishing under a flood of its packets',
  defaults: { rate: '1000', inFlight: 10_000, durationMs: 10_000, store: 'postgres' },
  takesRate: true,
  examples: ['npm run perf -- gossip --rounds 5', 'npm run perf -- gossip --store cassandra'],
  run: measure,
};

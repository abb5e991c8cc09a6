/** Allotments of three Raft nodes, without a store, against puts of etcd. */

import type { RaftCounts } from '../cluster/messages.ts';
import { RaftTrio } from '../cluster/raft-trio.ts';
import { type Load, runLoad } from '../lib/load.ts';
import type { Options } from '../lib/options.ts';
import { sampleProcess } from '../lib/process.ts';
import type { Progress } from '../lib/progress.ts';
import { type Figure, type Finding, formatNumber } from '../lib/report.ts';
import { alternate, type Scenario } from '../lib/scenario.ts';
import { etcdBinary } from '../peers/etcd.ts';
import { startEtcdCluster } from '../peers/etcd-cluster.ts';

/** What etcd is asked by, whatever the Raft nodes are: the clients of the goal. */
const ETCD_CLIENTS = 1_000;
const ETCD_CONNECTIONS = 100;

interface Round {
  readonly rate: number;
  readonly entries: number;
  readonly perEntry: number;
  readonly bytes: number;
  readonly syncs: number;
  readonly busy: readonly number[];
  readonly cores: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly terms: number;
}

const NONE: Round = {
  rate: 0,
  entries: 0,
  perEntry: 0,
  bytes: 0,
  syncs: 0,
  busy: [],
  cores: 0,
  p50Ms: 0,
  p99Ms: 0,
  terms: 0,
};

function between(before: readonly RaftCounts[], after: readonly RaftCounts[], cpuSeconds: number): Round {
  const first = before[0] as RaftCounts;
  const last = after[0] as RaftCounts;
  const seconds = (last.atMs - first.atMs) / 1_000;
  const sum = (pick: (counts: RaftCounts) => number): number =>
    after.reduce((total, counts, i) => total + pick(counts) - pick(before[i] as RaftCounts), 0);
  const done = sum((it) => it.done);
  const entries = last.entries - first.entries;
  return {
    rate: done / seconds,
    entries: entries / seconds,
    perEntry: done / Math.max(1, entries),
    bytes: (last.bytes - first.bytes) / Math.max(1, done),
    syncs: sum((it) => it.syncs) / after.length / seconds,
    busy: after.map((it) => it.busy),
    cores: cpuSeconds / seconds,
    p50Ms: Math.max(...after.map((it) => it.p50Ms)),
    p99Ms: Math.max(...after.map((it) => it.p99Ms)),
    terms: last.term - first.term,
  };
}

async function allot(options: Options): Promise<Round> {
  const { inFlight, subjects, warmupMs, durationMs } = options;
  const trio = await RaftTrio.start({ inFlight, subjects });
  try {
    await trio.run();
    await sleep(warmupMs);
    const before = await trio.measure();
    const cpuBefore = sampleProcess(process.pid).cpuSeconds;
    await sleep(durationMs);
    const after = await trio.measure();
    const cpu = sampleProcess(process.pid).cpuSeconds - cpuBefore;
    await trio.end();
    return between(before, after, cpu);
  } finally {
    await trio.stop();
  }
}

/** Puts a second, spread over the nodes. */
async function puts(nodes: 1 | 3, options: Options): Promise<number> {
  const cluster = await startEtcdCluster(nodes);
  try {
    const { bodyBytes, warmupMs, durationMs } = options;
    const results = await Promise.all(
      cluster.addresses.map((address) => {
        const load: Load = {
          address,
          pid: cluster.pid,
          path: '/etcdserverpb.KV/Put',
          frames: { kind: 'put', keys: 10_000, valueBytes: bodyBytes },
          mode: { kind: 'closed' },
          connections: Math.ceil(ETCD_CONNECTIONS / nodes),
          inFlight: Math.ceil(ETCD_CLIENTS / nodes),
          warmupMs,
          durationMs,
          threads: 1,
          client: 'raw',
        };
        return runLoad(load);
      }),
    );
    return results.reduce((sum, { callsPerSecond }) => sum + callsPerSecond, 0);
  } finally {
    await cluster.stop();
  }
}

function figuresOf(rounds: readonly Round[], etcd: readonly Round[], single: readonly number[]): Figure[] {
  const own = (pick: (it: Round) => number) => ({ subject: rounds.map(pick) });
  const against = (values: readonly number[], baselineName: string) =>
    values.length === 0 ? {} : { baseline: values, baselineName };
  const goal = { better: 'higher' as const, must: 10, aim: 30 };
  const three = etcd.map(({ rate }) => rate).filter((rate) => rate > 0);
  return [
    {
      name: 'allotments',
      key: 'rate',
      unit: '1/s',
      ...own((it) => it.rate),
      ...against(three, 'etcd on three nodes'),
      ...(three.length === 0 ? {} : { goal }),
    },
    ...(single.length === 0
      ? []
      : [
          {
            name: 'allotments',
            key: 'rate-one',
            unit: '1/s',
            ...own((it) => it.rate),
            ...against(single, 'etcd on one node'),
          },
        ]),
    { name: 'entries', key: 'entries', unit: '1/s', ...own((it) => it.entries) },
    { name: 'allotments of an entry', key: 'per-entry', unit: '', ...own((it) => it.perEntry) },
    { name: 'log bytes of an allotment', key: 'bytes', unit: 'B', ...own((it) => it.bytes) },
    { name: 'fdatasyncs of a node', key: 'syncs', unit: '1/s', ...own((it) => it.syncs) },
    { name: 'open to closed: p50', key: 'p50', unit: 'ms', ...own((it) => it.p50Ms) },
    { name: 'open to closed: p99', key: 'p99', unit: 'ms', ...own((it) => it.p99Ms) },
    { name: 'leader busy', key: 'busy-leader', unit: '', ...own((it) => it.busy[0] ?? 0) },
    { name: 'busiest follower', key: 'busy-follower', unit: '', ...own((it) => Math.max(...it.busy.slice(1))) },
    {
      name: 'CPU of an allotment, all nodes and the load',
      key: 'cpu',
      unit: 'us',
      ...own((it) => (it.cores * 1e6) / Math.max(1, it.rate)),
    },
    { name: 'cores in use', key: 'cores', unit: '', ...own((it) => it.cores) },
    { name: 'changes of term', key: 'terms', unit: '', ...own((it) => it.terms) },
  ];
}

async function measure(options: Options, progress: Progress): Promise<Finding> {
  const hasEtcd = etcdBinary() !== null;
  const rounds = await alternate<Round>(options.rounds, progress, {
    subject: () => allot(options),
    baseline: async () => (hasEtcd ? { ...NONE, rate: await puts(3, options) } : NONE),
    show: ({ rate }) => `${formatNumber(rate)}/s`,
  });
  const single: number[] = [];
  if (hasEtcd) {
    for (let round = 0; round < options.rounds; round++) {
      progress.say('etcd on one node');
      single.push(await puts(1, options));
    }
  }
  progress.clear();
  return {
    scenario: 'allotments',
    setting: `three Raft nodes in one process, ${options.inFlight} requests under way, each of a producer of its own, ${options.subjects} subjects; etcd: ${ETCD_CLIENTS} puts of ${options.bodyBytes} B in flight on ${ETCD_CONNECTIONS} connections`,
    figures: figuresOf(rounds.subject, rounds.baseline, single),
    notes: [
      'an allotment counts when its close is applied on the node that asked; at the end of each round all three had applied the same log and had the same state',
      ...(hasEtcd ? [] : ['etcd is not installed: npm run perf -- peers --install etcd']),
    ],
  };
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export const allotments: Scenario = {
  name: 'allotments',
  about:
    'open and close on three Raft nodes, every entry synced and applied on all, against puts of etcd on three nodes and one',
  defaults: { rounds: 3, inFlight: 3_000, subjects: 1_000 },
  examples: ['npm run perf -- allotments', 'npm run perf -- allotments --in-flight 1000 --rounds 2'],
  run: measure,
};

/** What an allotment costs each node of clusters of several sizes: the pure parts in one process, in virtual time. */
import { runVirtual, type VirtualResult } from '../cluster/virtual-cluster.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import type { Figure, Finding } from '../lib/report.ts';
import type { Scenario } from '../lib/scenario.ts';

const SIZES = [
  { key: '3', voters: 3, learners: 0 },
  { key: '5', voters: 5, learners: 0 },
  { key: '15', voters: 3, learners: 12 },
  { key: '15-5', voters: 5, learners: 10 },
] as const;

const NETWORK_MS = 0.2;
const SYNC_MS = 1;
const STORE_MS = 3;
/** Allotments a second of the whole cluster, unless `--rate` says another. */
const RATE = 15_000;

function figuresOf(size: (typeof SIZES)[number], it: VirtualResult): Figure[] {
  const { key, voters, learners } = size;
  const name = `${voters + learners} nodes, ${voters} vote`;
  const figure = (what: string, short: string, unit: string, value: number): Figure => ({
    name: `${name}: ${what}`,
    key: `${short}-${key}`,
    unit,
    subject: [value],
  });
  const { entries, allotments, leader, voter, learner, logBytes } = it;
  const other = learner ?? voter;
  return [
    figure('allotments of an entry', 'per-entry', '', allotments / entries),
    figure('log bytes of an allotment', 'log', 'B', logBytes / allotments),
    figure('frames of the leader out, an entry', 'leader-frames-out', '', leader.framesOut / entries),
    figure('frames of the leader in, an entry', 'leader-frames-in', '', leader.framesIn / entries),
    figure('bytes of the leader out, an allotment', 'leader-out', 'B', leader.bytesOut / allotments),
    figure('bytes of the leader in, an allotment', 'leader-in', 'B', leader.bytesIn / allotments),
    figure('frames of another node out, an entry', 'other-frames-out', '', other.framesOut / entries),
    figure('bytes of another node out, an allotment', 'other-out', 'B', other.bytesOut / allotments),
    figure('bytes of another node in, an allotment', 'other-in', 'B', other.bytesIn / allotments),
    figure('CPU of the leader, an allotment', 'leader-cpu', 'us', (leader.cpuMs * 1_000) / allotments),
    figure('CPU of another node, an allotment', 'other-cpu', 'us', (other.cpuMs * 1_000) / allotments),
    figure('open to closed, virtual: p50', 'p50', 'ms', it.p50Ms),
    figure('open to closed, virtual: p99', 'p99', 'ms', it.p99Ms),
    figure('changes of term', 'terms', '', it.terms),
  ];
}

async function measure(options: Options, progress: Progress): Promise<Finding> {
  const rate = options.rate === null ? RATE : Number(options.rate.replace(/k$/, '000'));
  const figures: Figure[] = [];
  for (const size of SIZES) {
    const nodes = size.voters + size.learners;
    progress.say(`${nodes} nodes`);
    await new Promise((resolve) => setImmediate(resolve));
    const load = { rate: Math.ceil(rate / nodes), subjects: options.subjects, seconds: options.durationMs / 1_000 };
    const disk = { networkMs: NETWORK_MS, syncMs: SYNC_MS, storeMs: STORE_MS };
    figures.push(...figuresOf(size, runVirtual({ ...size, ...disk, ...load })));
  }
  progress.clear();
  return {
    scenario: 'scale',
    setting: `virtual time: ${rate} allotments a second spread over all nodes, ${options.subjects} subjects, ${NETWORK_MS} ms one way, ${SYNC_MS} ms a sync, ${STORE_MS} ms a store's write`,
    figures,
    notes: [
      'frames and bytes are exact; CPU is of the real clock, of the pure parts and the frame codec, without disk and sockets',
    ],
  };
}

export const scale: Scenario = {
  name: 'scale',
  about: 'messages, bytes and CPU of an allotment on each node of 3, 5 and 15, in virtual time',
  defaults: { durationMs: 2_000, subjects: 1_000 },
  takesRate: true,
  examples: ['npm run perf -- scale', 'npm run perf -- scale --rate 60k'],
  run: measure,
};

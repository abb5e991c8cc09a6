/** Many subjects with one message each: what they cost, and whether 16 hot ones beside them are as fast as in a broker without the many. */
import { fill } from '../lib/fill.ts';
import { scrape } from '../lib/metrics.ts';
import type { Options } from '../lib/options.ts';
import { sampleProcess } from '../lib/process.ts';
import type { Progress } from '../lib/progress.ts';
import type { Figure } from '../lib/report.ts';
import {
  alternateLoads,
  errorNotes,
  FETCH_PATH,
  loadFigures,
  loadOf,
  PREFIX,
  PUBLISH_PATH,
  type Rounds,
  type Scenario,
} from '../lib/scenario.ts';
import { type BrokerTarget, startBrokerTarget } from '../lib/targets.ts';
import { publishFrames } from './unary.ts';

const MANY_PREFIX = 'perf.many.subject';
const HOT_SUBJECTS = 16;
/** Fills the caches that are bounded by configuration (store.cache_bytes), and lets the heaps of all threads grow to what this load needs. */
const WARM_UP_MESSAGES = 120_000;
/** Fills of `--messages` each, one after another: a heap grows in steps of tens of MiB, and the median is what stays. */
const FILLS = 3;
/** What collections free is given back to the system by then. */
const SETTLE_MS = 3_000;
const WITHIN = { better: 'higher' as const, must: 0.75, aim: 0.95 };
/** What a broker says that its tables of subjects hold. */
const TABLE_BYTES = ['broker_raft_state_bytes', 'broker_raft_log_memory_bytes', 'broker_store_index_bytes'];

/** What a process holds, in bytes. */
interface Held {
  readonly rss: number;
  readonly tables: number;
}

async function held(target: BrokerTarget): Promise<Held> {
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const tables = await scrape(target.broker.adminAddress, TABLE_BYTES);
  return { rss: sampleProcess(target.pid).rssBytes, tables: tables.reduce((sum, bytes) => sum + bytes) };
}

/** What each fill of both brokers in turn leaves behind, in bytes: in the one to new subjects, in the other to few. */
async function growths(
  options: Options,
  progress: Progress,
  many: BrokerTarget,
  few: BrokerTarget,
): Promise<Rounds<Held>> {
  const warm = publishFrames({ ...options, subjects: HOT_SUBJECTS });
  const last = new Map<BrokerTarget, Held>();
  for (const target of [few, many]) {
    await fill(target, options, progress, { frames: warm, calls: WARM_UP_MESSAGES });
    last.set(target, await held(target));
  }
  const { messages: calls, bodyBytes } = options;
  let firstCall = 0;
  const grow = async (target: BrokerTarget, subjects: number): Promise<Held> => {
    const frames = { kind: 'publish' as const, subjects, prefix: MANY_PREFIX, bodyBytes };
    await fill(target, options, progress, { frames, calls, firstCall });
    const before = last.get(target) as Held;
    const after = await held(target);
    last.set(target, after);
    return { rss: after.rss - before.rss, tables: after.tables - before.tables };
  };
  const subject: Held[] = [];
  const baseline: Held[] = [];
  for (let round = 0; round < FILLS; round++) {
    baseline.push(await grow(few, HOT_SUBJECTS));
    subject.push(await grow(many, calls * FILLS));
    firstCall += calls;
  }
  return { subject, baseline };
}

/** The figures of the hot subjects; the names of both brokers' figures begin with `prefix`. */
function hotFigures(figures: readonly Figure[], prefix: string): Figure[] {
  return figures.map((figure) => ({
    ...figure,
    name: `${prefix}: ${figure.name}`,
    key: `${prefix}.${figure.key ?? figure.name}`,
    baselineName: 'few subjects',
  }));
}

async function measure(
  options: Options,
  progress: Progress,
  many: BrokerTarget,
  few: BrokerTarget,
): Promise<{ figures: Figure[]; notes: string[] }> {
  const grown = await growths(options, progress, many, few);
  const mode = { kind: 'closed' as const };
  const publish = { path: PUBLISH_PATH, frames: publishFrames({ ...options, subjects: HOT_SUBJECTS }), mode };
  const idsPerSubject = WARM_UP_MESSAGES / HOT_SUBJECTS;
  const frames = { kind: 'fetch' as const, subjects: HOT_SUBJECTS, prefix: PREFIX, idsPerSubject, seed: 1 };
  const fetch = { path: FETCH_PATH, frames, mode };
  const published = await alternateLoads(options, progress, {
    subject: loadOf(many, options, publish),
    baseline: loadOf(few, options, publish),
  });
  const fetched = await alternateLoads(options, progress, {
    subject: loadOf(many, options, fetch),
    baseline: loadOf(few, options, fetch),
  });
  const more = (pick: (held: Held) => number): number[] =>
    grown.subject.map((held, round) => (pick(held) - pick(grown.baseline[round] as Held)) / options.messages);
  const mebibytes = (rounds: readonly Held[]): number[] => rounds.map(({ rss }) => rss / 2 ** 20);
  return {
    figures: [
      {
        name: 'memory of a subject, by RSS',
        unit: 'B',
        subject: more(({ rss }) => rss),
        goal: { better: 'lower', must: 400, aim: 200 },
      },
      { name: 'memory of a subject, in tables', unit: 'B', subject: more(({ tables }) => tables) },
      {
        name: 'RSS growth of a fill',
        unit: 'MiB',
        subject: mebibytes(grown.subject),
        baseline: mebibytes(grown.baseline),
        baselineName: 'few subjects',
      },
      ...hotFigures(loadFigures(published, { rate: WITHIN }), 'unary'),
      ...hotFigures(loadFigures(fetched, { rate: WITHIN }), 'fetch'),
    ],
    notes: errorNotes([...published.subject, ...published.baseline, ...fetched.subject, ...fetched.baseline]),
  };
}

export const subjects: Scenario = {
  name: 'subjects',
  about:
    '100,000 subjects with one message each: memory of each; unary and fetch on 16 hot ones, against a broker without the many',
  defaults: { messages: 100_000 },
  async run(options, progress) {
    const { shards, serveFlags, cpuProfileDir, bodyBytes } = options;
    const few = await startBrokerTarget({ shards, cpuProfileDir: null, flags: serveFlags });
    try {
      const many = await startBrokerTarget({ shards, cpuProfileDir, flags: serveFlags });
      try {
        const setting = `${FILLS} times ${options.messages} subjects with one message of ${bodyBytes} B each, then ${HOT_SUBJECTS} hot ones; baseline: as many messages in ${HOT_SUBJECTS} subjects`;
        return { scenario: 'subjects', setting, ...(await measure(options, progress, many, few)) };
      } finally {
        await many.stop();
      }
    } finally {
      await few.stop();
    }
  },
};

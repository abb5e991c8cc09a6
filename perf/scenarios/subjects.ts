/** Many subjects with one message each: what they cost, and whether 16 hot ones beside them are as fast as in a broker without the many. */
import { fill } from '../lib/fill.ts';
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
  type Scenario,
} from '../lib/scenario.ts';
import { type BrokerTarget, startBrokerTarget, type Target } from '../lib/targets.ts';
import { publishFrames } from './unary.ts';

const MANY_PREFIX = 'perf.many.subject';
const HOT_SUBJECTS = 16;
const WARM_UP_MESSAGES = 20_000;
/** What collections free is given back to the system by then. */
const SETTLE_MS = 3_000;
const WITHIN = { better: 'higher' as const, must: 0.75, aim: 0.95 };

/** RSS that the messages leave behind when they go to so many subjects, in bytes. */
async function growth(target: Target, options: Options, progress: Progress, subjects: number): Promise<number> {
  const warm = publishFrames({ ...options, subjects: HOT_SUBJECTS });
  await fill(target, options, progress, { frames: warm, calls: WARM_UP_MESSAGES });
  const before = sampleProcess(target.pid).rssBytes;
  const frames = { kind: 'publish' as const, subjects, prefix: MANY_PREFIX, bodyBytes: options.bodyBytes };
  await fill(target, options, progress, { frames, calls: options.messages });
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  return sampleProcess(target.pid).rssBytes - before;
}

/** The figures of the hot subjects; the names of both brokers' figures begin with `prefix`. */
function hotFigures(figures: readonly Figure[], prefix: string): Figure[] {
  return figures.map((figure) => ({ ...figure, name: `${prefix}: ${figure.name}`, baselineName: 'few subjects' }));
}

async function measure(
  options: Options,
  progress: Progress,
  many: BrokerTarget,
  few: BrokerTarget,
): Promise<{ figures: Figure[]; notes: string[] }> {
  const fewBytes = await growth(few, options, progress, HOT_SUBJECTS);
  const manyBytes = await growth(many, options, progress, options.messages);
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
  const perSubject = (manyBytes - fewBytes) / options.messages;
  return {
    figures: [
      { name: 'memory of a subject', unit: 'B', subject: [perSubject], goal: { better: 'lower', must: 400, aim: 200 } },
      {
        name: 'RSS growth',
        unit: 'MiB',
        subject: [manyBytes / 2 ** 20],
        baseline: [fewBytes / 2 ** 20],
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
        const setting = `${options.messages} subjects with one message of ${bodyBytes} B each, then ${HOT_SUBJECTS} hot ones; baseline: as many messages in ${HOT_SUBJECTS} subjects`;
        return { scenario: 'subjects', setting, ...(await measure(options, progress, many, few)) };
      } finally {
        await many.stop();
      }
    } finally {
      await few.stop();
    }
  },
};

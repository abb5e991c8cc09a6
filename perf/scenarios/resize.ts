/** The number of shards changes under publish streams at a steady rate, against the same without a change. */
import { connect } from '../../src/client/index.ts';
import type { Answers, Stretch, StretchFigures } from '../lib/answers.ts';
import { figuresWithin } from '../lib/answers.ts';
import { generatorWarnings } from '../lib/bottleneck.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import { type Figure, formatNumber } from '../lib/report.ts';
import {
  alternate,
  errorNotes,
  histogramsOf,
  latencyFigures,
  type Pair,
  plotsOf,
  type Scenario,
  withServers,
} from '../lib/scenario.ts';
import { failures } from '../lib/scenario-streams.ts';
import { searchMaximum } from '../lib/search.ts';
import { runStreams, type StreamResult } from '../lib/stream-load.ts';
import { settingOf, streamLoad } from './stream.ts';

const SHARDS_AT_FIRST = 1;
/** Each of these in turn. */
const COUNTS = [4, 2];
/** Of the maximum: the lower one of those at the first number of shards and at the highest, so that the load is one that all of them can carry. */
const SHARE = 0.7;
/** When a change begins, as a share of the measured time; the later one waits for the end of the earlier. */
const BEGIN_AT = [0.2, 0.6];
/** Of the search for the maximum: beyond it the load is more than the broker carries. */
const P99_MAX_MS = 100;
/** The goal: the longest that a stream is without an answer. What came due meanwhile is worked off behind it, which the latencies show. */
const PAUSE_MAX_MS = 100;
const TOLERANCE = 0.15;
const PROBES_MAX = 8;
const PROBE_MS = 1_500;
const PROBE_WARMUP_MS = 500;
const POLL_MS = 20;
/** What a change does is felt for so long behind it. */
const AFTER_MS = 50;

interface Change {
  readonly stretch: Stretch;
  /** Longest time that slots were held, by the broker's own clock. */
  readonly heldMs: number;
  readonly error: string;
}

interface Round {
  readonly load: StreamResult;
  readonly changes: readonly Change[];
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Changes the number of shards and waits for the end. Times count from `beganAt`, of `performance.now()`. */
async function changeTo(pair: Pair, shards: number, beganAt: number): Promise<Change> {
  await using client = connect(pair.broker.address);
  // The connection is no part of the change.
  await client.shards();
  const fromMs = performance.now() - beganAt;
  let change = await client.resizeShards(shards);
  const begunMs = performance.now() - beganAt;
  while (change.running) {
    await sleep(POLL_MS);
    change = (await client.shards()).change ?? change;
  }
  const toMs = begunMs + change.durationMs + AFTER_MS;
  return { stretch: { fromMs, toMs }, heldMs: change.pauseMsMax, error: change.error };
}

/**
 * The highest rate of an open loop that is kept with a p99 under what a change may cost, at a number of shards. A closed loop says more than that: what
 * comes in bursts makes larger groups.
 */
async function maximum(pair: Pair, options: Options, progress: Progress, shards: number): Promise<number> {
  await changeTo(pair, shards, performance.now());
  const short = { ...options, durationMs: PROBE_MS, warmupMs: PROBE_WARMUP_MS };
  progress.say(`the maximum with ${shards} shards: closed loop`);
  const closed = await runStreams(streamLoad(pair, short, 'broker', null));
  const search = await searchMaximum<StreamResult>({
    limitMs: P99_MAX_MS,
    startRate: closed.messagesPerSecond * SHARE,
    progress,
    tolerance: TOLERANCE,
    probesMax: PROBES_MAX,
    what: `messages, ${shards} shards`,
    run: (rate) => runStreams(streamLoad(pair, short, 'broker', rate)),
    rateOf: (result) => result.messagesPerSecond,
  });
  if (search.best === null) {
    throw new Error(
      `with ${shards} shards no rate has a p99 under ${P99_MAX_MS} ms: the machine is too busy, or give --rate`,
    );
  }
  return search.rate;
}

async function undisturbed(pair: Pair, options: Options, rate: string): Promise<Round> {
  const load = { ...streamLoad(pair, options, 'broker', rate), keepsAnswers: true };
  return { load: await runStreams(load), changes: [] };
}

async function resized(pair: Pair, options: Options, rate: string): Promise<Round> {
  const load = { ...streamLoad(pair, options, 'broker', rate), keepsAnswers: true };
  const measuring = Promise.withResolvers<number>();
  const running = runStreams(load, () => measuring.resolve(performance.now()));
  running.catch(measuring.reject);
  const beganAt = await measuring.promise;
  const changes: Change[] = [];
  for (const [index, count] of COUNTS.entries()) {
    const dueMs = (BEGIN_AT[index] as number) * options.durationMs;
    await sleep(Math.max(0, beganAt + dueMs - performance.now()));
    changes.push(await changeTo(pair, count, beganAt));
  }
  const result = await running;
  await changeTo(pair, SHARDS_AT_FIRST, performance.now());
  return { load: result, changes };
}

function maximumFigure(shards: number, key: string, rate: number | null): Figure[] {
  return rate === null ? [] : [{ name: `maximum, shards: ${shards}`, key, unit: '1/s', subject: [rate] }];
}

/** Of the changes of each round, beside the same stretches of the neighbouring round without them. */
function within(subject: readonly Round[], of: readonly Round[]): StretchFigures[] {
  return subject.map(({ changes }, index) => {
    const answers: readonly Answers[] = of[index]?.load.answers ?? [];
    return figuresWithin(
      answers,
      changes.map(({ stretch }) => stretch),
    );
  });
}

export const resize: Scenario = {
  name: 'resize',
  about: '1 -> 4 -> 2 shards under publish streams at 70 % of the maximum, against the same without a change',
  defaults: { streams: 4, rounds: 3, durationMs: 10_000 },
  takesRate: true,
  examples: [
    'npm run perf -- resize --rate 100k',
    "npm run perf -- resize --assert 'errors==0' --assert 'pause<100ms'",
  ],
  run: (options, progress) =>
    withServers({ ...options, shards: SHARDS_AT_FIRST }, { answerBytes: 16 }, async (pair) => {
      const highest = options.rate === null ? await maximum(pair, options, progress, Math.max(...COUNTS)) : null;
      const first = options.rate === null ? await maximum(pair, options, progress, SHARDS_AT_FIRST) : null;
      const rate = options.rate ?? String(Math.round(Math.min(first ?? 0, highest ?? 0) * SHARE));
      const rounds = await alternate<Round>(options.rounds, progress, {
        subject: () => resized(pair, options, rate),
        baseline: () => undisturbed(pair, options, rate),
        show: ({ load }) => `${formatNumber(load.messagesPerSecond)}/s`,
      });
      const sides = {
        'with changes': rounds.subject.map(({ load }) => load),
        without: rounds.baseline.map(({ load }) => load),
      };
      const changed = within(rounds.subject, rounds.subject);
      const same = within(rounds.subject, rounds.baseline);
      const both = (pick: (figures: StretchFigures) => number) => ({
        subject: changed.map(pick),
        baseline: same.map(pick),
        baselineName: 'without',
      });
      const of = (pick: (result: StreamResult) => number) => ({
        subject: sides['with changes'].map(pick),
        baseline: sides.without.map(pick),
        baselineName: 'without',
      });
      const own = (pick: (round: Round) => number) => ({ subject: rounds.subject.map(pick) });
      const troubles = rounds.subject.flatMap(({ changes }) => changes.map(({ error }) => error)).filter(Boolean);
      const lasted = ({ changes }: Round): number =>
        changes.reduce((sum, { stretch }) => sum + stretch.toMs - stretch.fromMs, 0);
      return {
        scenario: 'resize',
        setting: `${SHARDS_AT_FIRST} -> ${COUNTS.join(' -> ')} shards at ${rate} messages/s; ${settingOf(options)}`,
        figures: [
          ...maximumFigure(SHARDS_AT_FIRST, 'max-first', first),
          ...maximumFigure(Math.max(...COUNTS), 'max-highest', highest),
          { name: 'messages', key: 'rate', unit: '1/s', ...of((it) => it.messagesPerSecond) },
          {
            name: 'failed, batches and changes',
            key: 'errors',
            unit: '',
            ...own(({ load, changes }) => failures([load]) + changes.filter(({ error }) => error !== '').length),
            goal: { better: 'lower', must: 0, aim: 0 },
          },
          {
            name: 'latency p99 while shards change',
            key: 'resize-p99',
            unit: 'ms',
            subject: changed.map(({ p99Ms }) => p99Ms),
          },
          {
            name: 'the same, beside the same stretch without',
            key: 'resize-p99-both',
            unit: 'ms',
            ...both((it) => it.p99Ms),
          },
          { name: 'latency max while shards change', key: 'resize-max', unit: 'ms', ...both((it) => it.worstMs) },
          {
            name: 'longest pause of a stream meanwhile',
            key: 'pause',
            unit: 'ms',
            subject: changed.map(({ longestGapMs }) => longestGapMs),
            goal: { better: 'lower', must: PAUSE_MAX_MS, aim: 20 },
          },
          {
            name: 'the same, beside the same stretch without',
            key: 'pause-both',
            unit: 'ms',
            ...both((it) => it.longestGapMs),
          },
          {
            name: 'longest time that slots were held',
            key: 'held',
            unit: 'ms',
            ...own(({ changes }) => Math.max(...changes.map(({ heldMs }) => heldMs))),
          },
          { name: 'the changes took', key: 'took', unit: 'ms', ...own(lasted) },
          ...latencyFigures<StreamResult>(of),
          { name: 'server cores in use', key: 'cores', unit: '', ...of((it) => it.cost.totalCores) },
          { name: 'RSS', key: 'rss', unit: 'MiB', ...of((it) => it.cost.rssBytes / 2 ** 20) },
        ],
        notes: [
          ...(rounds.subject.some(({ changes }) => changes.some(({ stretch }) => stretch.toMs > options.durationMs))
            ? ['A CHANGE OUTLASTED THE LOAD: measure for longer (--duration)']
            : []),
          ...troubles.map((error) => `A CHANGE ENDED EARLY: ${error}`),
          ...errorNotes(Object.values(sides).flat()),
          ...generatorWarnings(sides),
        ],
        plots: plotsOf(sides, 'messages/s'),
        histograms: histogramsOf(sides),
      };
    }),
};

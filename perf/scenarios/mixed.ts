/** Publish streams, a consumer at the tail and random fetches at one time, beside the publish streams alone. */
import { generatorWarnings } from '../lib/bottleneck.ts';
import { type ConsumeResult, runConsume } from '../lib/consume-load.ts';
import { type LoadResult, runLoad } from '../lib/load.ts';
import type { Options } from '../lib/options.ts';
import { parseRates } from '../lib/rates.ts';
import { formatNumber } from '../lib/report.ts';
import {
  alternate,
  errorNotes,
  FETCH_PATH,
  histogramsOf,
  latencyFigures,
  loadOf,
  type Pair,
  PREFIX,
  plotsOf,
  type Scenario,
  withServers,
} from '../lib/scenario.ts';
import { failures, tailTask } from '../lib/scenario-streams.ts';
import { fillStreams } from '../lib/stream-fill.ts';
import { runStreams, type StreamResult } from '../lib/stream-load.ts';
import { streamLoad } from './stream.ts';

const FETCHES_PER_SECOND = '1000';
const FETCHES_IN_FLIGHT = 2_000;
const STORED = 200_000;

interface Round {
  readonly published: StreamResult;
  readonly delivered: ConsumeResult | null;
  readonly fetched: LoadResult | null;
}

async function together(pair: Pair, options: Options): Promise<Round> {
  const { subjects, warmupMs, durationMs } = options;
  const started = Promise.withResolvers<void>();
  const tail = runConsume(pair.broker.pid, tailTask(pair.broker, options, 1), started.resolve);
  tail.catch(started.reject);
  await started.promise;
  const frames = {
    kind: 'fetch' as const,
    subjects,
    prefix: PREFIX,
    idsPerSubject: Math.floor(STORED / subjects),
    seed: 1,
  };
  const mode = { kind: 'open' as const, schedule: parseRates(FETCHES_PER_SECOND, { warmupMs, durationMs }) };
  const fetchOptions = { ...options, inFlight: FETCHES_IN_FLIGHT };
  const [published, delivered, fetched] = await Promise.all([
    runStreams(streamLoad(pair, options, 'broker', options.rate)),
    tail,
    runLoad(loadOf(pair.broker, fetchOptions, { path: FETCH_PATH, frames, mode })),
  ]);
  return { published, delivered, fetched };
}

export const mixed: Scenario = {
  name: 'mixed',
  about: 'publish streams, a consumer at the tail and 1,000 fetches/s at one time, against the publish streams alone',
  defaults: { streams: 4, rounds: 3, rate: '100k' },
  takesRate: true,
  examples: ["npm run perf -- mixed --rate 50k --assert 'fetch-p99<50ms' --assert 'errors==0'"],
  run: (options, progress) =>
    withServers(options, { answerBytes: 16 }, async (pair) => {
      await fillStreams(pair.broker, options, progress, STORED);
      const rounds = await alternate<Round>(options.rounds, progress, {
        subject: () => together(pair, options),
        baseline: async () => ({
          published: await runStreams(streamLoad(pair, options, 'broker', options.rate)),
          delivered: null,
          fetched: null,
        }),
        show: ({ published }) => `${formatNumber(published.messagesPerSecond)}/s`,
      });
      const of = (pick: (result: StreamResult) => number) => ({
        subject: rounds.subject.map(({ published }) => pick(published)),
        baseline: rounds.baseline.map(({ published }) => pick(published)),
        baselineName: 'alone',
      });
      const own = (pick: (round: Round) => number) => ({ subject: rounds.subject.map(pick) });
      const sides = {
        'publish, mixed': rounds.subject.map(({ published }) => published),
        'publish, alone': rounds.baseline.map(({ published }) => published),
        fetch: rounds.subject.flatMap(({ fetched }) => (fetched === null ? [] : [fetched])),
      };
      return {
        scenario: 'mixed',
        setting: `${options.rate} messages/s of ${options.bodyBytes} B on ${options.streams} publish streams, one consumer of all of them, ${FETCHES_PER_SECOND} fetches/s`,
        figures: [
          { name: 'messages', key: 'rate', unit: '1/s', ...of((it) => it.messagesPerSecond) },
          ...latencyFigures<StreamResult>(of),
          { name: 'delivered', key: 'delivered', unit: '1/s', ...own((it) => it.delivered?.messagesPerSecond ?? 0) },
          { name: 'fetches', key: 'fetch-rate', unit: '1/s', ...own((it) => it.fetched?.callsPerSecond ?? 0) },
          { name: 'fetch p50', key: 'fetch-p50', unit: 'ms', ...own((it) => it.fetched?.latency.p50Ms ?? 0) },
          { name: 'fetch p99', key: 'fetch-p99', unit: 'ms', ...own((it) => it.fetched?.latency.p99Ms ?? 0) },
          { name: 'server cores in use', key: 'cores', unit: '', ...of((it) => it.cost.totalCores) },
          { name: 'RSS', key: 'rss', unit: 'MiB', ...of((it) => it.cost.rssBytes / 2 ** 20) },
          { name: 'failed', key: 'errors', unit: '', ...own((it) => failures([it.published, ...sides.fetch])) },
        ],
        notes: [...errorNotes(Object.values(sides).flat()), ...generatorWarnings(sides)],
        plots: plotsOf(sides, '1/s'),
        histograms: histogramsOf(sides),
      };
    }),
};

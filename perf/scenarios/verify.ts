/** Publish streams beside a verification of the store that never ends, against the publish streams alone. */
import { connect } from '../../src/client/index.ts';
import { generatorWarnings } from '../lib/bottleneck.ts';
import { formatNumber } from '../lib/report.ts';
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
import { fillStreams } from '../lib/stream-fill.ts';
import { runStreams, type StreamResult } from '../lib/stream-load.ts';
import { streamLoad } from './stream.ts';

/** So that even the first verification has something to read. */
const STORED = 500_000;

interface Round {
  readonly load: StreamResult;
  /** Bytes that were verified meanwhile, and findings. */
  readonly bytes: number;
  readonly findings: number;
}

/** One verification after another until `load` has ended. */
async function beside(pair: Pair, load: Promise<StreamResult>): Promise<Round> {
  await using client = connect(pair.broker.address);
  const ended = new AbortController();
  const abort = (): void => ended.abort();
  load.then(abort, abort);
  let [bytes, findings] = [0, 0];
  while (!ended.signal.aborted) {
    let last = 0;
    try {
      for await (const progress of client.verify({}, { signal: ended.signal })) {
        last = progress.bytes;
        findings += progress.findings.length;
      }
    } catch (error) {
      if (!ended.signal.aborted) throw error;
    }
    bytes += last;
  }
  return { load: await load, bytes, findings };
}

export const verify: Scenario = {
  name: 'verify',
  about: 'publish streams beside verifications of the store, one after another, against the publish streams alone',
  defaults: { streams: 4, rounds: 5 },
  takesRate: true,
  examples: ["npm run perf -- verify --assert 'ratio.rate>=80%' --assert 'findings==0'"],
  run: (options, progress) =>
    withServers(options, { answerBytes: 16 }, async (pair) => {
      await fillStreams(pair.broker, options, progress, STORED);
      const load = () => runStreams(streamLoad(pair, options, 'broker', options.rate));
      const rounds = await alternate<Round>(options.rounds, progress, {
        subject: () => beside(pair, load()),
        baseline: async () => ({ load: await load(), bytes: 0, findings: 0 }),
        show: (round) => `${formatNumber(round.load.messagesPerSecond)}/s`,
      });
      const of = (pick: (result: StreamResult) => number) => ({
        subject: rounds.subject.map((round) => pick(round.load)),
        baseline: rounds.baseline.map((round) => pick(round.load)),
        baselineName: 'alone',
      });
      const own = (pick: (round: Round) => number) => ({ subject: rounds.subject.map(pick) });
      const sides = {
        'publish, beside': rounds.subject.map((round) => round.load),
        'publish, alone': rounds.baseline.map((round) => round.load),
      };
      const seconds = (options.durationMs + options.warmupMs) / 1_000;
      return {
        scenario: 'verify',
        setting: `${options.bodyBytes} B on ${options.streams} publish streams, beside verifications of everything that is stored`,
        figures: [
          { name: 'messages', key: 'rate', unit: '1/s', ...of((it) => it.messagesPerSecond) },
          ...latencyFigures<StreamResult>(of),
          { name: 'verified', key: 'verified', unit: 'MiB/s', ...own(({ bytes }) => bytes / 2 ** 20 / seconds) },
          { name: 'findings', key: 'findings', unit: '', ...own(({ findings }) => findings) },
          { name: 'server cores in use', key: 'cores', unit: '', ...of((it) => it.cost.totalCores) },
          { name: 'RSS', key: 'rss', unit: 'MiB', ...of((it) => it.cost.rssBytes / 2 ** 20) },
          { name: 'failed', key: 'errors', unit: '', ...own(({ load: it }) => failures([it])) },
        ],
        notes: [...errorNotes(Object.values(sides).flat()), ...generatorWarnings(sides)],
        plots: plotsOf(sides, '1/s'),
        histograms: histogramsOf(sides),
      };
    }),
};

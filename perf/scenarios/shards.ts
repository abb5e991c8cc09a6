/** `stream` at several shard counts, each on a broker of its own. */
import { generatorWarnings } from '../lib/bottleneck.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import { type Figure, type Finding, formatNumber } from '../lib/report.ts';
import { errorNotes, histogramsOf, type Scenario, withServers } from '../lib/scenario.ts';
import { spread } from '../lib/stats.ts';
import { runStreams, type StreamResult } from '../lib/stream-load.ts';
import { streamLoad } from './stream.ts';

const COUNTS = [1, 2, 4, 8];

async function sweep(options: Options, progress: Progress): Promise<Map<number, StreamResult[]>> {
  const results = new Map<number, StreamResult[]>(COUNTS.map((count) => [count, []]));
  for (let round = 0; round < options.rounds; round++) {
    for (const [count, list] of results) {
      progress.say(`round ${round + 1}/${options.rounds}: ${count} shards`);
      const result = await withServers({ ...options, shards: count }, { answerBytes: 16 }, (pair) =>
        runStreams(streamLoad(pair, options, 'broker', options.rate)),
      );
      list.push(result);
      progress.say(`${count} shards: ${formatNumber(result.messagesPerSecond)}/s`);
    }
  }
  progress.clear();
  return results;
}

function curve(results: Map<number, StreamResult[]>, pick: (result: StreamResult) => number): [number, number][] {
  return [...results].map(([count, list]) => [count, spread(list.map(pick)).median]);
}

export const shards: Scenario = {
  name: 'shards',
  about: `publish streams at ${COUNTS.join(', ')} shards: rate, latency and CPU, plotted`,
  defaults: { streams: 4, rounds: 2, durationMs: 4_000 },
  takesRate: true,
  examples: ['npm run perf -- shards --rounds 3', 'npm run perf -- shards --rate 100k'],
  async run(options, progress): Promise<Finding> {
    const results = await sweep(options, progress);
    const one = results.get(1) ?? [];
    const figures = [...results].flatMap(([count, list]): Figure[] => [
      {
        name: `${count} shards: messages`,
        key: `rate-${count}`,
        unit: '1/s',
        subject: list.map((it) => it.messagesPerSecond),
        ...(count === 1 ? {} : { baseline: one.map((it) => it.messagesPerSecond), baselineName: '1 shard' }),
      },
      { name: `${count} shards: p99`, key: `p99-${count}`, unit: 'ms', subject: list.map((it) => it.latency.p99Ms) },
      {
        name: `${count} shards: CPU seconds per million`,
        key: `cpu-${count}`,
        unit: 's CPU',
        subject: list.map((it) => it.cost.totalMicrosPerCall),
      },
      {
        name: `${count} shards: RSS`,
        key: `rss-${count}`,
        unit: 'MiB',
        subject: list.map((it) => it.cost.rssBytes / 2 ** 20),
      },
    ]);
    const sides = Object.fromEntries([...results].map(([count, list]) => [`${count} shards`, list]));
    const plot = (title: string, yLabel: string, pick: (result: StreamResult) => number) => ({
      title,
      xLabel: 'shards',
      yLabel,
      series: [{ name: 'median of the rounds', points: curve(results, pick) }],
    });
    return {
      scenario: 'shards',
      setting: `${options.streams} publish streams, ${options.subjects} subjects, ${options.rate === null ? 'closed loop' : `${options.rate} messages/s`}`,
      figures,
      notes: [...errorNotes([...results.values()].flat()), ...generatorWarnings(sides)],
      histograms: histogramsOf(sides),
      plots: [
        plot('Throughput by shard count', 'messages/s', (it) => it.messagesPerSecond),
        plot('p99 by shard count', 'ms', (it) => it.latency.p99Ms),
        plot('CPU by shard count', 'CPU seconds per million', (it) => it.cost.totalMicrosPerCall),
        plot('Memory by shard count', 'MiB', (it) => it.cost.rssBytes / 2 ** 20),
      ],
    };
  },
};

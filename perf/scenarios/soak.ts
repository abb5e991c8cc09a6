/** A steady load for a long time: does anything grow, slow down or fail? */
import { generatorWarnings } from '../lib/bottleneck.ts';
import { runConsume } from '../lib/consume-load.ts';
import type { Finding } from '../lib/report.ts';
import { errorNotes, histogramsOf, latencyFigures, plotsOf, type Scenario, withServers } from '../lib/scenario.ts';
import { failures, tailTask } from '../lib/scenario-streams.ts';
import { runStreams } from '../lib/stream-load.ts';
import { streamLoad } from './stream.ts';

/** Steps that are compared at either end, as a share of all. */
const END_SHARE = 0.2;

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}

/** Means of the beginning (behind the first such part, which still warms up) and of the end. */
export function bothEnds(values: readonly number[]): { readonly early: number; readonly late: number } {
  const part = Math.max(1, Math.floor(values.length * END_SHARE));
  return { early: mean(values.slice(part, 2 * part)), late: mean(values.slice(-part)) };
}

export const soak: Scenario = {
  name: 'soak',
  about:
    'publish streams and a consumer at a steady rate for long (--duration): memory, latency and failures over time',
  defaults: { streams: 4, rate: '50k', durationMs: 600_000, warmupMs: 10_000 },
  takesRate: true,
  examples: ["npm run perf -- soak --duration 3600 --rate 100k --assert 'errors==0' --assert 'ratio.rss-late<1.1'"],
  run: (options, progress) =>
    withServers(options, { answerBytes: 16 }, async (pair): Promise<Finding> => {
      const started = Promise.withResolvers<void>();
      const tail = runConsume(pair.broker.pid, tailTask(pair.broker, options, 1), started.resolve);
      tail.catch(started.reject);
      await started.promise;
      progress.say(`${options.durationMs / 1_000} s at ${options.rate} messages/s`);
      const [published, delivered] = await Promise.all([
        runStreams(streamLoad(pair, options, 'broker', options.rate)),
        tail,
      ]);
      progress.clear();
      const rss = bothEnds(published.watch.rssMiB);
      const worst = bothEnds(published.timeline.worstMs);
      const of = (pick: (result: typeof published) => number) => ({ subject: [pick(published)] });
      return {
        scenario: 'soak',
        setting: `${options.rate} messages/s of ${options.bodyBytes} B for ${options.durationMs / 1_000} s, one consumer`,
        figures: [
          { name: 'messages', key: 'rate', unit: '1/s', ...of((it) => it.messagesPerSecond) },
          { name: 'delivered', key: 'delivered', unit: '1/s', subject: [delivered.messagesPerSecond] },
          ...latencyFigures(of),
          {
            name: 'RSS, last fifth against the second',
            key: 'rss-late',
            unit: 'MiB',
            subject: [rss.late],
            baseline: [rss.early],
            baselineName: 'second fifth',
            goal: { better: 'lower', must: 1.1, aim: 1.02 },
          },
          {
            name: 'worst latency of a step, last fifth against the second',
            key: 'worst-late',
            unit: 'ms',
            subject: [worst.late],
            baseline: [worst.early],
            baselineName: 'second fifth',
          },
          { name: 'failed', key: 'errors', unit: '', subject: [failures([published])] },
        ],
        notes: [
          ...errorNotes([published]),
          ...generatorWarnings({ 'publish streams': [published], consumer: [delivered] }),
        ],
        plots: plotsOf({ broker: [published] }, 'messages/s'),
        histograms: histogramsOf({ broker: [published] }),
      };
    }),
};

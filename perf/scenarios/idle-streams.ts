/** A thousand consume streams of which nothing comes, beside a hundred busy publish streams: memory, and whether it grows. */
import { generatorWarnings } from '../lib/bottleneck.ts';
import { runConsume } from '../lib/consume-load.ts';
import { errorNotes, histogramsOf, plotsOf, type Scenario, withServers } from '../lib/scenario.ts';
import { failures, tailTask } from '../lib/scenario-streams.ts';
import { runStreams } from '../lib/stream-load.ts';
import { streamLoad } from './stream.ts';

const IDLE = 1_000;
const IDLE_CONNECTIONS = 10;

export const idleStreams: Scenario = {
  name: 'idle-streams',
  about: '1,000 idle consume streams and 100 busy publish streams: memory, and whether it grows',
  defaults: { streams: 100, connections: 10, rate: '50k', frameBytes: 16 << 10, durationMs: 60_000, warmupMs: 5_000 },
  takesRate: true,
  examples: ['npm run perf -- idle-streams --duration 600', "npm run perf -- idle-streams --assert 'rss<600MiB'"],
  run: (options, progress) =>
    withServers(options, { answerBytes: 16 }, async (pair) => {
      progress.say(`${options.durationMs / 1_000} s of ${IDLE} idle and ${options.streams} busy streams`);
      const started = Promise.withResolvers<void>();
      const nobody = tailTask(pair.broker, { ...options, connections: IDLE_CONNECTIONS }, IDLE);
      const idle = runConsume(pair.broker.pid, { ...nobody, subjects: ['perf.silent'] }, started.resolve);
      idle.catch(started.reject);
      await started.promise;
      const [busy, quiet] = await Promise.all([runStreams(streamLoad(pair, options, 'broker', options.rate)), idle]);
      progress.clear();
      const { rssMiB } = busy.watch;
      const third = Math.max(1, Math.floor(rssMiB.length / 3));
      const highest = (values: readonly number[]): number => values.reduce((a, b) => Math.max(a, b), 0);
      return {
        scenario: 'idle-streams',
        setting: `${IDLE} idle consume streams on ${IDLE_CONNECTIONS} connections, ${options.streams} publish streams on ${options.connections} at ${options.rate} messages/s for ${options.durationMs / 1_000} s`,
        figures: [
          {
            name: 'RSS, highest',
            key: 'rss',
            unit: 'MiB',
            subject: [highest(rssMiB)],
            goal: { better: 'lower', must: 600, aim: 300 },
          },
          {
            name: 'RSS, highest of the last third against the second',
            key: 'rss-growth',
            unit: 'MiB',
            subject: [highest(rssMiB.slice(-third))],
            baseline: [highest(rssMiB.slice(third, 2 * third))],
            baselineName: 'second third',
            goal: { better: 'lower', must: 1.05, aim: 1.01 },
          },
          { name: 'messages', key: 'rate', unit: '1/s', subject: [busy.messagesPerSecond] },
          { name: 'latency p99', key: 'p99', unit: 'ms', subject: [busy.latency.p99Ms] },
          { name: 'server cores in use', key: 'cores', unit: '', subject: [busy.cost.totalCores] },
          { name: 'messages on idle streams', key: 'idle-messages', unit: '', subject: [quiet.messages] },
          { name: 'failed', key: 'errors', unit: '', subject: [failures([busy])] },
        ],
        notes: [...errorNotes([busy]), ...generatorWarnings({ 'publish streams': [busy] })],
        plots: plotsOf({ broker: [busy] }, 'messages/s'),
        histograms: histogramsOf({ broker: [busy] }),
      };
    }),
};

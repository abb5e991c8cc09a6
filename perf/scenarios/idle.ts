/** What a broker uses that nobody uses. */
import { sampleProcess, threadPercentages } from '../lib/process.ts';
import type { Scenario } from '../lib/scenario.ts';
import { startBrokerTarget } from '../lib/targets.ts';

/** Start-up work (compiling, first collections) is over by then. */
const SETTLE_MS = 5_000;

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export const idle: Scenario = {
  name: 'idle',
  about: 'CPU of each thread over 10 s, and RSS, of a broker without clients',
  defaults: { durationMs: 10_000, rounds: 1 },
  async run(options, progress) {
    const { shards, cpuProfileDir, serveFlags } = options;
    const broker = await startBrokerTarget({ shards, cpuProfileDir, flags: serveFlags });
    try {
      progress.say('waiting for the start to be over');
      await pause(SETTLE_MS);
      const busiest: number[] = [];
      const total: number[] = [];
      const rss: number[] = [];
      let threads = '';
      for (let round = 0; round < options.rounds; round++) {
        progress.say(`measuring for ${options.durationMs / 1_000} s`);
        const before = sampleProcess(broker.pid);
        await pause(options.durationMs);
        const after = sampleProcess(broker.pid);
        const percents = threadPercentages(before, after);
        busiest.push(Math.max(...percents.map(({ percent }) => percent)));
        total.push(percents.reduce((sum, { percent }) => sum + percent, 0));
        rss.push(after.rssBytes / 2 ** 20);
        const busy = percents.filter(({ percent }) => percent > 0).toSorted((a, b) => b.percent - a.percent);
        threads = busy.map(({ id, name, percent }) => `${name}/${id} ${percent.toFixed(1)} %`).join(', ');
      }
      progress.clear();
      return {
        scenario: 'idle',
        setting: `no clients, ${options.durationMs / 1_000} s after ${SETTLE_MS / 1_000} s of rest`,
        figures: [
          { name: 'busiest thread', unit: '% of a core', subject: busiest, goal: { better: 'lower', must: 1, aim: 1 } },
          { name: 'all threads', unit: '% of a core', subject: total },
          { name: 'RSS', unit: 'MiB', subject: rss, goal: { better: 'lower', must: 250, aim: 120 } },
        ],
        notes: [`threads with CPU time: ${threads || 'none'}`],
      };
    } finally {
      await broker.stop();
    }
  },
};

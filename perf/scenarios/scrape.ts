/** What a look of Prometheus at /metrics costs with many subjects, against a broker with few. */
import { fill } from '../lib/fill.ts';
import { costBetween, sampleProcess } from '../lib/process.ts';
import type { Scenario } from '../lib/scenario.ts';
import { type BrokerTarget, startBrokerTarget } from '../lib/targets.ts';

const FEW_SUBJECTS = 16;
const SCRAPES_A_ROUND = 100;
/** Start-up work, and that of the fill, is over by then. */
const SETTLE_MS = 3_000;

interface Cost {
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** CPU of the main thread for a scrape, HTTP included. */
  readonly mainMs: number;
  readonly lines: number;
}

async function scrapes(target: BrokerTarget): Promise<Cost> {
  const times: number[] = [];
  let lines = 0;
  const before = sampleProcess(target.pid);
  for (let i = 0; i < SCRAPES_A_ROUND; i++) {
    const startedAt = performance.now();
    const answer = await fetch(`http://${target.broker.adminAddress}/metrics`);
    const text = await answer.text();
    times.push(performance.now() - startedAt);
    lines = text.match(/^[^#\n]/gm)?.length ?? 0;
  }
  const { mainMicrosPerCall } = costBetween(before, sampleProcess(target.pid), SCRAPES_A_ROUND);
  times.sort((a, b) => a - b);
  const at = (share: number): number => times[Math.ceil(times.length * share) - 1] ?? Number.NaN;
  return { p50Ms: at(0.5), p99Ms: at(0.99), mainMs: mainMicrosPerCall / 1_000, lines };
}

export const scrape: Scenario = {
  name: 'scrape',
  about: '/metrics of a broker with 100,000 subjects: time and main thread of a scrape, against one with 16 subjects',
  defaults: { messages: 100_000 },
  async run(options, progress) {
    const { shards, serveFlags, cpuProfileDir, bodyBytes, messages: calls } = options;
    const few = await startBrokerTarget({ shards, cpuProfileDir: null, flags: serveFlags });
    try {
      const many = await startBrokerTarget({ shards, cpuProfileDir, flags: serveFlags });
      try {
        for (const [target, subjects] of [
          [few, FEW_SUBJECTS],
          [many, calls],
        ] as const) {
          const frames = { kind: 'publish' as const, subjects, prefix: 'perf.scrape', bodyBytes };
          await fill(target, options, progress, { frames, calls });
        }
        await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
        const rounds: { subject: Cost; baseline: Cost }[] = [];
        for (let round = 0; round < options.rounds; round++) {
          progress.say(`scraping, round ${round + 1} of ${options.rounds}`);
          rounds.push({ baseline: await scrapes(few), subject: await scrapes(many) });
        }
        progress.clear();
        const both = (pick: (cost: Cost) => number) => ({
          subject: rounds.map(({ subject }) => pick(subject)),
          baseline: rounds.map(({ baseline }) => pick(baseline)),
          baselineName: 'few subjects',
        });
        return {
          scenario: 'scrape',
          setting: `${calls} messages of ${bodyBytes} B in as many subjects, then ${SCRAPES_A_ROUND} scrapes a round; baseline: as many messages in ${FEW_SUBJECTS} subjects`,
          figures: [
            {
              name: 'scrape p99',
              unit: 'ms',
              ...both(({ p99Ms }) => p99Ms),
              goal: { better: 'lower', must: 50, aim: 10 },
            },
            { name: 'scrape p50', unit: 'ms', ...both(({ p50Ms }) => p50Ms) },
            { name: 'main thread of a scrape', unit: 'ms', ...both(({ mainMs }) => mainMs) },
            { name: 'series', unit: '', ...both(({ lines }) => lines) },
          ],
          notes: [],
        };
      } finally {
        await many.stop();
      }
    } finally {
      await few.stop();
    }
  },
};

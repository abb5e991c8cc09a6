/** What `broker top` costs the broker that it looks at, once a second. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Client, connect } from '../../src/client/index.ts';
import { sampleProcess } from '../lib/process.ts';
import type { Progress } from '../lib/progress.ts';
import { alternate, type Scenario } from '../lib/scenario.ts';
import { startBrokerTarget } from '../lib/targets.ts';

const LAUNCHER = fileURLToPath(new URL('../../bin/broker.mjs', import.meta.url));
/** Start-up work (compiling, first collections) is over by then; the first looks of `top` too. */
const SETTLE_MS = 5_000;
const WARM_MS = 3_000;
/** Subjects of one stream. */
const STREAM_SUBJECTS = 1_000;
/** A call that does next to nothing: what it waits for is the event loop. */
const PROBE_MS = 50;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Stretch {
  /** Of a core, all threads of the broker. */
  readonly cpuPercent: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

async function subscribe(client: Client, subjects: number): Promise<void> {
  for (let from = 0; from < subjects; from += STREAM_SUBJECTS) {
    const names = Array.from({ length: Math.min(STREAM_SUBJECTS, subjects - from) }, (_, i) => `top.${from + i}`);
    await client.subscribe(names, { start: 'new' }).started;
  }
}

async function measure(client: Client, pid: number, durationMs: number): Promise<Stretch> {
  const took: number[] = [];
  const before = sampleProcess(pid);
  for (const begun = performance.now(); performance.now() - begun < durationMs; ) {
    const sentAt = performance.now();
    await client.health();
    took.push(performance.now() - sentAt);
    await pause(PROBE_MS);
  }
  const after = sampleProcess(pid);
  took.sort((a, b) => a - b);
  const seconds = after.atSeconds - before.atSeconds;
  return {
    cpuPercent: ((after.cpuSeconds - before.cpuSeconds) / seconds) * 100,
    p99Ms: took[Math.floor(took.length * 0.99)] ?? 0,
    maxMs: took.at(-1) ?? 0,
  };
}

async function watched(address: string, use: () => Promise<Stretch>): Promise<Stretch> {
  const flags = ['--address', address, '--pane', 'subscriptions', '--limit', '200', '--interval', '1s', '-o', 'json'];
  const top = spawn(process.execPath, [LAUNCHER, 'top', ...flags], { stdio: 'ignore' });
  try {
    await pause(WARM_MS);
    return await use();
  } finally {
    top.kill();
  }
}

export const top: Scenario = {
  name: 'top',
  about:
    '`broker top` once a second on a broker with --subjects subscriptions, against the same broker without it: CPU',
  defaults: { subjects: 1_000, durationMs: 20_000, rounds: 3 },
  examples: ['npm run perf -- top', 'npm run perf -- top --subjects 100000 -- --limits-subscriptions 100k'],
  async run(options, progress: Progress) {
    const { shards, cpuProfileDir, serveFlags, subjects, durationMs, rounds } = options;
    const broker = await startBrokerTarget({ shards, cpuProfileDir, flags: serveFlags });
    const client = connect(broker.address);
    try {
      progress.say(`${subjects} subscriptions`);
      await subscribe(client, subjects);
      await pause(SETTLE_MS);
      const alone = (): Promise<Stretch> => measure(client, broker.pid, durationMs);
      const results = await alternate(rounds, progress, {
        subject: () => watched(broker.address, alone),
        baseline: alone,
        show: ({ cpuPercent }) => `${cpuPercent.toFixed(2)} % of a core`,
      });
      const of = (pick: (stretch: Stretch) => number) => ({
        subject: results.subject.map(pick),
        baseline: results.baseline.map(pick),
        baselineName: 'without top',
      });
      const more = results.subject.map(({ cpuPercent }, i) => cpuPercent - (results.baseline[i]?.cpuPercent ?? 0));
      return {
        scenario: 'top',
        setting: `${subjects} subscriptions, nothing published, \`broker top --pane subscriptions\` at 1 Hz, ${durationMs / 1_000} s`,
        figures: [
          {
            name: 'CPU of the broker for top',
            key: 'cost',
            unit: '% of a core',
            subject: more,
            goal: { better: 'lower', must: 1, aim: 0.5 },
          },
          { name: 'CPU of the broker', key: 'cpu', unit: '% of a core', ...of(({ cpuPercent }) => cpuPercent) },
          { name: 'health call beside it, p99', key: 'p99', unit: 'ms', ...of(({ p99Ms }) => p99Ms) },
          { name: 'health call beside it, max', key: 'max', unit: 'ms', ...of(({ maxMs }) => maxMs) },
        ],
        notes: [],
      };
    } finally {
      await client.close();
      await broker.stop();
    }
  },
};

/** A million subjects: what the state machine alone costs, and how long a broker takes to start with them. */
import { fill } from '../lib/fill.ts';
import { subjectName } from '../lib/frames.ts';
import { scrape } from '../lib/metrics.ts';
import { sampleProcess } from '../lib/process.ts';
import type { Scenario } from '../lib/scenario.ts';
import { fillMachine, measureSnapshot } from '../lib/state-fill.ts';
import { startBrokerTarget } from '../lib/targets.ts';

const PREFIX = 'perf.many.subject';
/** The first levels are counted by then. */
const SETTLE_MS = 2_000;

export const state: Scenario = {
  name: 'state',
  about:
    '1,000,000 subjects: memory, snapshot and restore of the state machine; kill -9 and start of a broker with them',
  defaults: { messages: 1_000_000, rounds: 1 },
  async run(options, progress) {
    const { messages: subjects, bodyBytes, shards, serveFlags } = options;
    const limits = { subjectsMax: subjects, producersMax: 0, openPerNodeMax: 1_000 };
    progress.say('filling a state machine');
    const machine = fillMachine(limits, subjects, (index) => subjectName(PREFIX, index));
    const bytes = machine.counts().bytes / subjects;
    const snapshot = await measureSnapshot(machine, limits);

    const flags = ['--subjects-max', String(subjects), ...serveFlags];
    const broker = await startBrokerTarget({ shards, cpuProfileDir: null, flags });
    try {
      const frames = { kind: 'publish' as const, subjects, prefix: PREFIX, bodyBytes };
      await fill(broker, options, progress, { frames, calls: subjects });
      const readyMs: number[] = [];
      const rss: number[] = [];
      for (let round = 0; round < options.rounds; round++) {
        progress.say(`round ${round + 1}/${options.rounds}: kill -9 and start`);
        readyMs.push(await broker.broker.restart());
        await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
        rss.push(sampleProcess(broker.broker.pid).rssBytes / 2 ** 20);
      }
      const [found = 0] = await scrape(broker.broker.adminAddress, ['broker_raft_subjects']);
      if (found !== subjects) throw new Error(`${found} of ${subjects} subjects are there after the start`);
      progress.clear();
      return {
        scenario: 'state',
        setting: `${subjects} subjects with one message of ${bodyBytes} B each`,
        figures: [
          {
            name: 'state machine, of a subject',
            unit: 'B',
            subject: [bytes],
            goal: { better: 'lower', must: 200, aim: 200 },
          },
          {
            name: 'snapshot and restore of it',
            unit: 's',
            subject: [snapshot.takeSeconds + snapshot.restoreSeconds],
            goal: { better: 'lower', must: 10, aim: 10 },
          },
          { name: 'snapshot', unit: 's', subject: [snapshot.takeSeconds] },
          { name: 'longest chunk', unit: 'ms', subject: [snapshot.longestChunkMs] },
          { name: 'restore', unit: 's', subject: [snapshot.restoreSeconds] },
          { name: 'snapshot file', unit: 'MiB', subject: [snapshot.fileBytes / 2 ** 20] },
          {
            name: 'broker ready after kill -9',
            unit: 's',
            subject: readyMs.map((ms) => ms / 1_000),
            goal: { better: 'lower', must: 10, aim: 10 },
          },
          { name: 'RSS of the broker then', unit: 'MiB', subject: rss },
        ],
        notes: [],
      };
    } finally {
      await broker.stop();
    }
  },
};

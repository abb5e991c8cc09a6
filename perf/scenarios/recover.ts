/** kill -9 with 1 GiB of log, and how long until it is ready again, with how much memory. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fill } from '../lib/fill.ts';
import { sampleProcess } from '../lib/process.ts';
import { PREFIX, type Scenario } from '../lib/scenario.ts';
import { startBrokerTarget } from '../lib/targets.ts';

function folderBytes(folder: string): number {
  let bytes = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) bytes += statSync(join(entry.parentPath, entry.name)).size;
  }
  return bytes;
}

export const recover: Scenario = {
  name: 'recover',
  about: 'kill -9 with 1 GiB of log: time until ready, and memory (--fill-mib, --body, --rounds)',
  defaults: { bodyBytes: 4_096, rounds: 3 },
  async run(options, progress) {
    const { bodyBytes, subjects, shards, serveFlags } = options;
    const calls = Math.ceil(options.fillBytes / bodyBytes);
    const broker = await startBrokerTarget({ shards, cpuProfileDir: null, flags: serveFlags });
    try {
      const emptyMs = broker.readyMs;
      const frames = { kind: 'publish' as const, subjects, prefix: PREFIX, bodyBytes };
      const filled = await fill(broker, options, progress, { frames, calls });
      const readyMs: number[] = [];
      const peakBytes: number[] = [];
      let firstCall = calls;
      for (let round = 0; round < options.rounds; round++) {
        progress.say(`round ${round + 1}/${options.rounds}: kill -9 and start`);
        readyMs.push(await broker.broker.restart());
        peakBytes.push(sampleProcess(broker.broker.pid).peakRssBytes);
        // A restart of a broker that has written nothing since would find everything in order.
        const target = { ...broker, pid: broker.broker.pid };
        await fill(target, options, progress, { frames, calls: 1_000, firstCall });
        firstCall += 1_000;
      }
      progress.clear();
      const storedMiB = folderBytes(broker.broker.dataDir) / 2 ** 20;
      return {
        scenario: 'recover',
        setting: `${Math.round(storedMiB)} MiB in the data folder: ${calls} messages of ${bodyBytes} B in ${subjects} subjects`,
        figures: [
          {
            name: 'time to ready after kill -9',
            unit: 's',
            subject: readyMs.map((ms) => ms / 1_000),
            goal: { better: 'lower', must: 10, aim: 2 },
          },
          {
            name: 'highest RSS until ready',
            unit: 'MiB',
            subject: peakBytes.map((bytes) => bytes / 2 ** 20),
            goal: { better: 'lower', must: 512, aim: 512 },
          },
          { name: 'time to ready with an empty folder', unit: 's', subject: [emptyMs / 1_000] },
          { name: 'filling', unit: 'MiB/s', subject: [(filled.callsPerSecond * bodyBytes) / 2 ** 20] },
        ],
        notes: ['the log was written a moment before, so it is read from the page cache'],
      };
    } finally {
      await broker.stop();
    }
  },
};

import { setImmediate as nextTurn } from 'node:timers/promises';
import { readOptions } from '../support/read-options.ts';
import { endWithReader } from '../support/reader-gone.ts';
import { simulateRaft } from './raft-sim.ts';

const HELP = `usage: npm run sim -- [options]

The long form of the simulation: a group of Raft nodes, with crashes, lost messages and changes of members, one run for each seed.

  --seeds N    how many (1000)
  --from S     the first one (1)
  -h, --help   this text

Exit code: 0 every run kept what is promised, 1 one did not, 2 wrong usage.
`;

const { values } = readOptions('sim', {
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
endWithReader();
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
if (![values.seeds, values.from].every((text) => /^[1-9]\d*$/.test(text))) {
  process.stderr.write('sim: --seeds and --from take whole numbers from 1\n');
  process.exit(2);
}
const count = Number(values.seeds);
const from = Number(values.from);
const REPORT_EVERY = 50;

const failures: string[] = [];
const sums = { committed: 0, leaderTerms: 0, crashes: 0, reads: 0 };
const startedAt = performance.now();
for (let i = 0; i < count; i += 1) {
  const seed = from + i;
  try {
    const result = simulateRaft(seed);
    sums.committed += result.committed;
    sums.leaderTerms += result.leaderTerms;
    sums.crashes += result.crashes;
    sums.reads += result.reads;
  } catch (error) {
    failures.push(error instanceof Error ? error.message : String(error));
    process.stdout.write(`\n${failures.at(-1)}\n`);
  }
  if ((i + 1) % REPORT_EVERY === 0 || i + 1 === count) {
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
    process.stdout.write(
      `\r${i + 1}/${count} seeds, ${seconds} s, ${sums.committed} committed, ${sums.leaderTerms} leader terms, ` +
        `${sums.crashes} crashes, ${sums.reads} reads, ${failures.length} failed`,
    );
    // The loop never waits: a closed output or a signal would be noticed only at its end.
    await nextTurn();
  }
}
process.stdout.write('\n');
process.exitCode = failures.length === 0 ? 0 : 1;

import { setImmediate as nextTurn } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { endWithReader } from '../support/reader-gone.ts';
import { simulateRaft } from './raft-sim.ts';

/** The long form of the simulation: npm run sim -- --seeds N --from S */
const { values } = parseArgs({
  options: { seeds: { type: 'string', default: '1000' }, from: { type: 'string', default: '1' } },
});
endWithReader();
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

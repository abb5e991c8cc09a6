import { setImmediate as nextTurn } from 'node:timers/promises';
import { readOptions } from '../support/read-options.ts';
import { endWithReader } from '../support/reader-gone.ts';
import { simulateCluster } from './cluster-sim.ts';
import { findingOf, PLANTED, SEEDS_MAX } from './planted-bugs.ts';
import { simulateRaft } from './raft-sim.ts';

const HELP = `usage: npm run sim -- [options]

The long form of the simulation: a group of Raft nodes, then a cluster of whole nodes with clients and a store, with crashes, lost messages, cut
networks, stopped processes and changes of members; one run of each for each seed.

  --seeds N    how many (1000)
  --from S     the first one (1). With --seeds 1: that run again, to the last bit
  --only NAME  raft or cluster only
  --planted    plant known bugs one by one instead, and say after how many seeds each is found
  -h, --help   this text

Exit code: 0 every run kept what is promised (--planted: each bug was found within ${SEEDS_MAX} seeds), 1 one did not, 2 wrong usage.
`;

const { values } = readOptions('sim', {
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    only: { type: 'string', default: '' },
    planted: { type: 'boolean', default: false },
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
if (!['', 'raft', 'cluster'].includes(values.only)) {
  process.stderr.write('sim: --only takes raft or cluster\n');
  process.exit(2);
}
const count = Number(values.seeds);
const from = Number(values.from);
const REPORT_EVERY_MS = 500;

process.exitCode = (values.planted ? await searchPlanted() : await simulateAll()) ? 0 : 1;

async function simulateAll(): Promise<boolean> {
  const isRaft = values.only !== 'cluster';
  const isCluster = values.only !== 'raft';
  const raft = isRaft ? await simulate('raft', simulateRaft) : 0;
  const cluster = isCluster ? await simulate('cluster', simulateCluster) : 0;
  return raft + cluster === 0;
}

/** Runs all seeds; how many failed. */
async function simulate(name: string, run: (seed: number) => object): Promise<number> {
  let failed = 0;
  const sums = new Map<string, number>();
  const startedAt = performance.now();
  let reportAt = startedAt;
  for (let i = 0; i < count; i += 1) {
    try {
      for (const [key, value] of Object.entries(run(from + i))) {
        if (key !== 'seed' && key !== 'trace') sums.set(key, (sums.get(key) ?? 0) + Number(value));
      }
    } catch (error) {
      failed += 1;
      const message = error instanceof Error ? error.message : String(error);
      process.stdout.write(
        `\n${name}: ${message}\n  again: npm run sim -- --only ${name} --from ${from + i} --seeds 1\n`,
      );
    }
    if (performance.now() >= reportAt || i + 1 === count) {
      reportAt = performance.now() + REPORT_EVERY_MS;
      const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
      const figures = [...sums].map(([key, value]) => `${value} ${key}`).join(', ');
      process.stdout.write(`\r${name}: ${i + 1}/${count} seeds, ${seconds} s, ${figures}, ${failed} failed`);
      // The loop never waits: a closed output or a signal would be noticed only at its end.
      await nextTurn();
    }
  }
  process.stdout.write('\n');
  return failed;
}

/** True if each bug was found. */
async function searchPlanted(): Promise<boolean> {
  let isAllFound = true;
  for (const planted of PLANTED) {
    let found: string | null = null;
    let seed = 0;
    while (found === null && seed < SEEDS_MAX) {
      seed += 1;
      found = findingOf(planted, seed);
      await nextTurn();
    }
    isAllFound &&= found !== null;
    const what = found === null ? `NOT FOUND in ${SEEDS_MAX} seeds` : found.split('\n')[0];
    process.stdout.write(`${planted.simulator} ${planted.bug}: ${what}\n`);
  }
  return isAllFound;
}

import { setImmediate as nextTurn } from 'node:timers/promises';
import { readOptions } from '../support/read-options.ts';
import { endWithReader } from '../support/reader-gone.ts';
import { simulateBroker } from './broker-sim.ts';
import { simulateCluster } from './cluster-sim.ts';
import { compareKills } from './gossip-compare.ts';
import { simulateGossip } from './gossip-sim.ts';
import { findingOf, PLANTED, SEEDS_MAX } from './planted-bugs.ts';
import { simulateRaft } from './raft-sim.ts';

const HELP = `usage: npm run sim -- [options]

The long form of the simulation: a group of Raft nodes, then a cluster of whole nodes with clients and a store, then nodes that gossip, with crashes,
lost messages, cut networks, stopped processes and changes of members; at last one broker, inside, with its clients; one run of each for each seed.

  --seeds N    how many (1000)
  --from S     the first one (1). With --seeds 1: that run again, to the last bit
  --only NAME  raft, cluster, gossip or broker only
  --planted    plant known bugs one by one instead, and say after how many seeds each is found
  --kills N    instead: kill one of --nodes members of a gossip cluster, N times, and say when the others see it, beside
               HashiCorp's memberlist (which needs Go 1.25, and some seconds a kill)
  --nodes N    how many (100)
  --loss N     percent of the packets that are lost meanwhile (0)
  -h, --help   this text

Exit code: 0 every run kept what is promised (--planted: each bug was found within ${SEEDS_MAX} seeds), 1 one did not, 2 wrong usage.
`;

const { values } = readOptions('sim', {
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    only: { type: 'string', default: '' },
    planted: { type: 'boolean', default: false },
    kills: { type: 'string' },
    nodes: { type: 'string', default: '100' },
    loss: { type: 'string', default: '0' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
endWithReader();
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
if (![values.seeds, values.from, values.nodes, values.kills ?? '1'].every((text) => /^[1-9]\d*$/.test(text))) {
  process.stderr.write('sim: --seeds, --from, --kills and --nodes take whole numbers from 1\n');
  process.exit(2);
}
if (!/^\d\d?$/.test(values.loss) || Number(values.nodes) < 3) {
  process.stderr.write('sim: --loss takes 0 to 99, --nodes 3 and more\n');
  process.exit(2);
}
if (!['', 'raft', 'cluster', 'gossip', 'broker'].includes(values.only)) {
  process.stderr.write('sim: --only takes raft, cluster, gossip or broker\n');
  process.exit(2);
}
const count = Number(values.seeds);
const from = Number(values.from);
const REPORT_EVERY_MS = 500;

if (values.kills !== undefined) {
  const run = { nodes: Number(values.nodes), kills: Number(values.kills), lossPercent: Number(values.loss) };
  process.stdout.write(await compareKills(run));
} else {
  process.exitCode = (values.planted ? await searchPlanted() : await simulateAll()) ? 0 : 1;
}

async function simulateAll(): Promise<boolean> {
  const isWanted = (name: string): boolean => values.only === '' || values.only === name;
  const raft = isWanted('raft') ? await simulate('raft', simulateRaft) : 0;
  const cluster = isWanted('cluster') ? await simulate('cluster', simulateCluster) : 0;
  const gossip = isWanted('gossip') ? await simulate('gossip', simulateGossip) : 0;
  const broker = isWanted('broker') ? await simulate('broker', simulateBroker) : 0;
  return raft + cluster + gossip + broker === 0;
}

/** Runs all seeds; how many failed. */
async function simulate(name: string, run: (seed: number) => object | Promise<object>): Promise<number> {
  let failed = 0;
  const sums = new Map<string, number>();
  const startedAt = performance.now();
  let reportAt = startedAt;
  for (let i = 0; i < count; i += 1) {
    try {
      for (const [key, value] of Object.entries(await run(from + i))) {
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
  for (const planted of PLANTED.filter(({ simulator }) => values.only === '' || values.only === simulator)) {
    let found: string | null = null;
    let seed = 0;
    while (found === null && seed < SEEDS_MAX) {
      seed += 1;
      found = await findingOf(planted, seed);
      await nextTurn();
    }
    isAllFound &&= found !== null;
    const what = found === null ? `NOT FOUND in ${SEEDS_MAX} seeds` : found.split('\n')[0];
    process.stdout.write(`${planted.simulator} ${planted.bug}: ${what}\n`);
  }
  return isAllFound;
}

/** `npm run faults -- NAME`: fault campaigns in their long form, with progress and a table at the end. */
import { randomInt } from 'node:crypto';
import { bar, terminalProgress } from '../../perf/lib/progress.ts';
import { table } from '../../perf/lib/report.ts';
import { readOptions } from '../support/read-options.ts';
import { endWithReader } from '../support/reader-gone.ts';
import type { Campaign, CampaignResult, CampaignStore } from './campaign.ts';
import { clusterKill } from './cluster-kill-campaign.ts';
import { clusterPartition } from './cluster-partition-campaign.ts';
import { clusterPause } from './cluster-pause-campaign.ts';
import { clusterRestart } from './cluster-restart-campaign.ts';
import { commit } from './commit-campaign.ts';
import { kill } from './kill-campaign.ts';
import { power } from './power-campaign.ts';
import { producers } from './producer-campaign.ts';
import { recover } from './recover-campaign.ts';
import { resize } from './resize-campaign.ts';
import { shards } from './shard-campaign.ts';
import { standstill } from './standstill-campaign.ts';

const CAMPAIGNS: readonly Campaign[] = [
  kill,
  shards,
  resize,
  producers,
  power,
  standstill,
  commit,
  recover,
  clusterKill,
  clusterPause,
  clusterPartition,
  clusterRestart,
];

const STORES: readonly CampaignStore[] = ['postgres', 'cassandra'];

const HELP = `usage: npm run faults -- NAME… [options]

${CAMPAIGNS.map(({ name, about, defaultRuns }) => `  ${name.padEnd(17)} ${about} (${defaultRuns} runs)`).join('\n')}
  all               all of them, one after the other

  --runs N    how often
  --store S   postgres (default) or cassandra: of ${CAMPAIGNS.filter(({ hasStores }) => hasStores)
    .map(({ name }) => name)
    .join(', ')}
  --seed N    the same faults at the same places as another run with this seed
  -o json     the result as one JSON object on standard output

Exit code: 0 every promise was kept, 1 a violation or a failure, 2 wrong usage.
Example: npm run faults -- kill --runs 20 --seed 42
`;

interface Outcome extends CampaignResult {
  readonly campaign: string;
  readonly seed: number;
  readonly seconds: number;
}

async function main(): Promise<number> {
  const { values, positionals } = readOptions('faults', {
    options: {
      runs: { type: 'string' },
      seed: { type: 'string' },
      store: { type: 'string' },
      output: { type: 'string', short: 'o', default: 'table' },
      help: { type: 'boolean', short: 'h', default: false },
    },
    allowPositionals: true,
  });
  if (values.help || positionals.length === 0) {
    process.stdout.write(HELP);
    return 0;
  }
  const chosen = positionals.flatMap((name) =>
    name === 'all' ? CAMPAIGNS : CAMPAIGNS.filter((one) => one.name === name),
  );
  const unknown = positionals.find((name) => name !== 'all' && !CAMPAIGNS.some((one) => one.name === name));
  const numbers = [values.runs, values.seed].filter((text) => text !== undefined);
  if (unknown !== undefined || numbers.some((text) => !/^[1-9]\d*$/.test(text))) {
    process.stderr.write(
      `${unknown === undefined ? '--runs and --seed take whole numbers from 1' : `no campaign is named ${unknown}`}\n`,
    );
    return 2;
  }
  const store = STORES.find((name) => name === values.store);
  if (values.store !== undefined && (store === undefined || !chosen.every(({ hasStores }) => hasStores))) {
    process.stderr.write('--store takes postgres or cassandra, and the campaigns that --help names with it\n');
    return 2;
  }
  const outcomes: Outcome[] = [];
  for (const campaign of chosen) outcomes.push(await run(campaign, values, store));
  if (values.output === 'json') process.stdout.write(`${JSON.stringify({ outcomes }, null, 2)}\n`);
  else for (const outcome of outcomes) print(outcome);
  return outcomes.some((outcome) => outcome.violations.length > 0) ? 1 : 0;
}

async function run(
  campaign: Campaign,
  { runs, seed: seedText }: { readonly runs?: string | undefined; readonly seed?: string | undefined },
  store: CampaignStore | undefined,
): Promise<Outcome> {
  const seed = seedText === undefined ? randomInt(1, 2 ** 31) : Number(seedText);
  // Printed before anything can go wrong: a campaign that dies must be repeatable.
  process.stderr.write(`${campaign.name}: seed ${seed}\n`);
  const progress = terminalProgress();
  const began = performance.now();
  const result = await campaign.run({
    runs: runs === undefined ? campaign.defaultRuns : Number(runs),
    seed,
    ...(store === undefined ? {} : { store }),
    onProgress: (done, total, text) => progress.say(`${bar(done, total)} ${done}/${total} ${text}`),
  });
  progress.clear();
  return { ...result, campaign: campaign.name, seed, seconds: (performance.now() - began) / 1_000 };
}

function print({ campaign, seconds, rows, notes, violations }: Outcome): void {
  const columns = Object.keys(rows[0] ?? {});
  const cells = rows.map((row) => columns.map((column) => String(row[column] ?? '')));
  process.stdout.write(`${campaign}, ${seconds.toFixed(0)} s\n\n${table([columns, ...cells])}\n\n`);
  for (const note of notes) process.stdout.write(`- ${note}\n`);
  for (const violation of violations) process.stdout.write(`VIOLATION ${violation}\n`);
}

endWithReader();
process.exitCode = await main().catch((error: unknown) => {
  process.stderr.write(`faults: ${error instanceof Error ? error.stack : String(error)}\n`);
  if (error instanceof Error && error.cause instanceof Error) process.stderr.write(`${error.cause.message}\n`);
  return 1;
});

/** `npm run faults -- NAME`: fault campaigns in their long form, with progress and a table at the end. */
import { randomInt } from 'node:crypto';
import { bar, terminalProgress } from '../../perf/lib/progress.ts';
import { table } from '../../perf/lib/report.ts';
import { readOptions } from '../support/read-options.ts';
import { endWithReader } from '../support/reader-gone.ts';
import { abuse } from './abuse-campaign.ts';
import type { Campaign, CampaignResult, CampaignStore } from './campaign.ts';
import { clocks } from './clock-campaign.ts';
import { clusterKill } from './cluster-kill-campaign.ts';
import { clusterPartition } from './cluster-partition-campaign.ts';
import { clusterPause } from './cluster-pause-campaign.ts';
import { clusterPower } from './cluster-power-campaign.ts';
import { clusterRestart } from './cluster-restart-campaign.ts';
import { commit } from './commit-campaign.ts';
import { DAMAGES } from './damage-campaign.ts';
import { firstStarts } from './first-start-campaign.ts';
import { FUZZ_DEFAULTS, type FuzzSettings, fuzz, unknownTarget } from './fuzz-campaign.ts';
import { gossip } from './gossip-campaign.ts';
import { gossipFlaps } from './gossip-flap-campaign.ts';
import { IO_ERRORS } from './io-error-campaign.ts';
import { kill, killBare } from './kill-campaign.ts';
import { overload } from './overload-campaign.ts';
import { power } from './power-campaign.ts';
import { processes } from './process-campaign.ts';
import { producers } from './producer-campaign.ts';
import { recover } from './recover-campaign.ts';
import { resize } from './resize-campaign.ts';
import { shards } from './shard-campaign.ts';
import { soakCampaign } from './soak-campaign.ts';
import { standstill } from './standstill-campaign.ts';

const CAMPAIGNS: readonly Campaign[] = [
  kill,
  killBare,
  shards,
  resize,
  processes,
  producers,
  power,
  standstill,
  commit,
  recover,
  clusterKill,
  clusterPause,
  clusterPower,
  clocks,
  clusterPartition,
  clusterRestart,
  firstStarts,
  gossip,
  gossipFlaps,
  soakCampaign,
  fuzz,
  ...DAMAGES,
  abuse,
  overload,
  ...IO_ERRORS,
];

const STORES: readonly CampaignStore[] = ['postgres', 'cassandra'];

const HELP = `usage: npm run faults -- NAME… [options]

${CAMPAIGNS.map(({ name, about, defaultRuns }) => `  ${name.padEnd(17)} ${about} (${defaultRuns} runs)`).join('\n')}
  all               all of them, one after the other

  --runs N    how often
  --store S   postgres (default) or cassandra: of ${CAMPAIGNS.filter(({ hasStores }) => hasStores)
    .map(({ name }) => name)
    .join(', ')}
  --first N   goes on at run N, of: ${CAMPAIGNS.filter(({ goesOn }) => goesOn)
    .map(({ name }) => name)
    .join(', ')}
  --schedule S  ${CAMPAIGNS.flatMap(({ name, schedules = [] }) => schedules.map((one) => `${one} (of ${name})`)).join(', ')}
  --unsynced  syncs of the brokers only say that they were done, so messages must be lost: of ${CAMPAIGNS.filter(
    ({ canBeUnsynced }) => canBeUnsynced,
  )
    .map(({ name }) => name)
    .join(', ')}
  --seed N    the same faults at the same places as another run with this seed
  of fuzz, where --runs is of each target:
  --target A,B     these targets (test/fuzz/targets)
  --workers N      targets at one time (1)
  --seconds N      of each target at most
  --corpus DIR     goes on with what earlier runs found, and adds to it
  --failures DIR   where inputs that fail are written to (a new temporary folder)
  --input FILE     that input again, on one target
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
      first: { type: 'string' },
      store: { type: 'string' },
      target: { type: 'string' },
      workers: { type: 'string' },
      seconds: { type: 'string' },
      corpus: { type: 'string' },
      failures: { type: 'string' },
      input: { type: 'string' },
      schedule: { type: 'string' },
      unsynced: { type: 'boolean', default: false },
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
  const { runs, seed, first, workers, seconds, schedule, unsynced } = values;
  const numbers = [runs, seed, first, workers, seconds].filter((text) => text !== undefined);
  if (unknown !== undefined || numbers.some((text) => !/^[1-9]\d*$/.test(text))) {
    process.stderr.write(
      `${unknown === undefined ? '--runs, --seed, --first, --workers and --seconds take whole numbers from 1' : `no campaign is named ${unknown}`}\n`,
    );
    return 2;
  }
  const store = STORES.find((name) => name === values.store);
  if (values.store !== undefined && (store === undefined || !chosen.every(({ hasStores }) => hasStores))) {
    process.stderr.write('--store takes postgres or cassandra, and the campaigns that --help names with it\n');
    return 2;
  }
  const ofFuzz = [values.target, workers, seconds, values.corpus, values.failures, values.input];
  if (ofFuzz.some((value) => value !== undefined) && !chosen.every((one) => one === fuzz)) {
    process.stderr.write('--target, --workers, --seconds, --corpus, --failures and --input are for fuzz\n');
    return 2;
  }
  const settings: FuzzSettings = {
    targets: values.target?.split(',') ?? FUZZ_DEFAULTS.targets,
    workers: Number(workers ?? FUZZ_DEFAULTS.workers),
    secondsMax: Number(seconds ?? FUZZ_DEFAULTS.secondsMax),
    failures: values.failures ?? FUZZ_DEFAULTS.failures,
    corpus: values.corpus ?? FUZZ_DEFAULTS.corpus,
    input: values.input ?? FUZZ_DEFAULTS.input,
  };
  if (schedule !== undefined && !chosen.every(({ schedules = [] }) => schedules.includes(schedule))) {
    process.stderr.write('--schedule takes what --help names, with its campaign\n');
    return 2;
  }
  if (values.unsynced && !chosen.every(({ canBeUnsynced }) => canBeUnsynced)) {
    process.stderr.write('--unsynced is of the campaigns that --help names with it\n');
    return 2;
  }
  const stranger = chosen.includes(fuzz) ? await unknownTarget(settings) : null;
  if (stranger !== null) {
    process.stderr.write(`${stranger}\n`);
    return 2;
  }
  const outcomes: Outcome[] = [];
  for (const campaign of chosen) {
    outcomes.push(await run(campaign, { runs, seed, first, schedule, unsynced }, store, settings));
  }
  if (values.output === 'json') process.stdout.write(`${JSON.stringify({ outcomes }, null, 2)}\n`);
  else for (const outcome of outcomes) print(outcome);
  return outcomes.some((outcome) => outcome.violations.length > 0) ? 1 : 0;
}

async function run(
  campaign: Campaign,
  given: { readonly [name in 'runs' | 'seed' | 'first' | 'schedule']: string | undefined } & {
    readonly unsynced: boolean;
  },
  store: CampaignStore | undefined,
  settings: FuzzSettings,
): Promise<Outcome> {
  const { runs, first, schedule, unsynced } = given;
  const seed = given.seed === undefined ? randomInt(1, 2 ** 31) : Number(given.seed);
  // Printed before anything can go wrong: a campaign that dies must be repeatable.
  process.stderr.write(`${campaign.name}: seed ${seed}\n`);
  const progress = terminalProgress();
  const began = performance.now();
  const result = await campaign.run({
    runs: runs === undefined ? campaign.defaultRuns : Number(runs),
    seed,
    first: Number(first ?? 1) - 1,
    ...(store === undefined ? {} : { store }),
    ...(campaign === fuzz ? { fuzz: settings } : {}),
    ...(schedule === undefined ? {} : { schedule }),
    isUnsynced: unsynced,
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

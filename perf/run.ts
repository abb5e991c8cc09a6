/** `npm run perf -- NAME [flags]`: runs scenarios on a real broker beside a yardstick and prints figures with their spread. */

import { readFileSync } from 'node:fs';
import { endWithReader } from '../test/support/reader-gone.ts';
import { formatComparison } from './lib/compare.ts';
import { formatProfiles } from './lib/cpu-profile.ts';
import { loadHistograms } from './lib/histogram.ts';
import { flagsHelp, type Options, readCommandLine, UsageError } from './lib/options.ts';
import { terminalProgress } from './lib/progress.ts';
import { describeMachine, formatMachine, formatReport, makeReport, type Report } from './lib/report.ts';
import { fileOfPart, savePage, saveReport } from './lib/save.ts';
import type { Scenario } from './lib/scenario.ts';
import { access } from './scenarios/access.ts';
import { allotments } from './scenarios/allotments.ts';
import { cluster } from './scenarios/cluster.ts';
import { elections } from './scenarios/elections.ts';
import { envoy } from './scenarios/envoy.ts';
import { etcd } from './scenarios/etcd.ts';
import { failover } from './scenarios/failover.ts';
import { fanout } from './scenarios/fanout.ts';
import { fanoutBatches } from './scenarios/fanout-batches.ts';
import { fetch } from './scenarios/fetch.ts';
import { gossip } from './scenarios/gossip.ts';
import { idle } from './scenarios/idle.ts';
import { idleStreams } from './scenarios/idle-streams.ts';
import { latency } from './scenarios/latency.ts';
import { mixed } from './scenarios/mixed.ts';
import { operate } from './scenarios/operate.ts';
import { overload } from './scenarios/overload.ts';
import { installPeers, peers } from './scenarios/peers.ts';
import { recover } from './scenarios/recover.ts';
import { replay } from './scenarios/replay.ts';
import { resize } from './scenarios/resize.ts';
import { scale } from './scenarios/scale.ts';
import { scrape } from './scenarios/scrape.ts';
import { shards } from './scenarios/shards.ts';
import { soak } from './scenarios/soak.ts';
import { state } from './scenarios/state.ts';
import { store } from './scenarios/store.ts';
import { stream } from './scenarios/stream.ts';
import { subjects } from './scenarios/subjects.ts';
import { tls } from './scenarios/tls.ts';
import { top } from './scenarios/top.ts';
import { tracing } from './scenarios/tracing.ts';
import { unary } from './scenarios/unary.ts';
import { verify } from './scenarios/verify.ts';

const SCENARIOS: readonly Scenario[] = [
  unary,
  stream,
  fetch,
  fanout,
  fanoutBatches,
  replay,
  latency,
  mixed,
  verify,
  shards,
  resize,
  soak,
  overload,
  idleStreams,
  recover,
  idle,
  subjects,
  scrape,
  state,
  store,
  peers,
  etcd,
  cluster,
  allotments,
  failover,
  elections,
  scale,
  gossip,
  tracing,
  tls,
  operate,
  access,
  envoy,
  top,
];

interface Planned {
  readonly scenario: Scenario;
  readonly defaults: Partial<Options>;
}

/** The table of docs/performance.md, row by row; etcd has to be installed first and is asked for by name. */
const ALL: readonly Planned[] = [
  { scenario: unary, defaults: {} },
  { scenario: unary, defaults: { inFlight: 64 } },
  ...[stream, fetch, fanout, fanoutBatches, replay, mixed, resize, latency, recover, idle, subjects, scrape, state].map(
    (scenario) => ({
      scenario,
      defaults: {},
    }),
  ),
];

const EXIT_ASSERTION = 3;

function help(): string {
  const list = SCENARIOS.map(({ name, about }) => `  ${name.padEnd(14)} ${about}`).join('\n');
  return [
    'usage: npm run perf -- NAME… [flags] [-- flags of `broker serve`]',
    '       npm run perf -- compare A.json B.json',
    '       npm run perf -- profile FOLDER',
    '       npm run perf -- NAME --help',
    '',
    list,
    '  all            the table of docs/performance.md: all but soak, overload, idle-streams, shards, store, peers, etcd, top and those of clusters',
    '  compare        what changed between two results',
    '  profile        where the time of each thread went, from what --cpu-prof FOLDER wrote',
    '',
    flagsHelp(),
    '',
    CLOSING,
    'Example: npm run perf -- unary --in-flight 64 --rounds 3',
    '',
  ].join('\n');
}

const CLOSING = [
  'Figures are ratios to a bare @grpc/grpc-js server measured in turn in the same run (docs/performance.md says how to read them).',
  'Exit code: 0 measured, 1 failed, 2 wrong usage, 3 an --assert does not hold.',
].join('\n');

/** Of what is no scenario. */
const TOOLS_HELP: Readonly<Record<string, string>> = {
  compare: `usage: npm run perf -- compare A.json B.json

  what changed between two results: ratios where both have a baseline, and whether a change is clear of the spread

Example: npm run perf -- compare perf/results/before.json perf/results/after.json
`,
  profile: `usage: npm run perf -- profile FOLDER

  where the time of each thread went, from the profiles that --cpu-prof FOLDER wrote

Example: npm run perf -- stream --rounds 1 --cpu-prof profiles && npm run perf -- profile profiles
`,
};

function scenarioHelp({ name, about, defaults, examples = [`npm run perf -- ${name}`] }: Scenario): string {
  const differs = Object.entries(defaults).map(([option, value]) => `${option} ${value}`);
  return [
    `usage: npm run perf -- ${name} [flags] [-- flags of \`broker serve\`]`,
    '',
    `  ${about}`,
    ...(differs.length === 0 ? [] : [`  its own defaults: ${differs.join(', ')}`]),
    '',
    flagsHelp(),
    '',
    CLOSING,
    'Examples:',
    ...examples.map((example) => `  ${example}`),
    '',
  ].join('\n');
}

function compare(paths: readonly string[]): string {
  const [a, b, ...more] = paths;
  if (a === undefined || b === undefined || more.length > 0) throw new UsageError('compare takes two files');
  return formatComparison(readReport(a), readReport(b));
}

function readReport(path: string): Report {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Report;
  } catch (error) {
    throw new UsageError(`${path}: ${(error as Error).message}`);
  }
}

function find(name: string): readonly Planned[] {
  if (name === 'all') return ALL;
  const scenario = SCENARIOS.find((one) => one.name === name);
  if (scenario === undefined) throw new UsageError(`no scenario is named ${name}`);
  return [{ scenario, defaults: {} }];
}

/** A flag without effect would make the figures those of another question than was asked. */
function refuseUnread(planned: readonly Planned[], { findMaxMs, rate }: Options): void {
  const refuse = (flag: string, isGiven: boolean, reads: (scenario: Scenario) => boolean): void => {
    const unable = planned.find(({ scenario }) => !reads(scenario));
    if (!isGiven || unable === undefined) return;
    const able = SCENARIOS.filter(reads).map(({ name }) => name);
    throw new UsageError(`${flag}: not for ${unable.scenario.name}; it is for ${able.join(', ')}`);
  };
  refuse('--find-max', findMaxMs !== null, ({ findsMaximum }) => findsMaximum === true);
  refuse('--rate', rate !== null, ({ takesRate }) => takesRate === true);
}

async function main(argv: readonly string[]): Promise<number> {
  const wantsHelp = argv.includes('--help') || argv.includes('-h');
  const commandLine = readCommandLine(argv.filter((word) => word !== '--help' && word !== '-h'));
  if (commandLine.names[0] === 'compare' && !wantsHelp) {
    process.stdout.write(compare(commandLine.names.slice(1)));
    return 0;
  }
  if (commandLine.names[0] === 'profile' && !wantsHelp) {
    const [folder, ...more] = commandLine.names.slice(1);
    if (folder === undefined || more.length > 0) throw new UsageError('profile takes one folder');
    process.stdout.write(`${formatMachine(describeMachine())}\n\n${formatProfiles(folder)}`);
    return 0;
  }
  const [name = ''] = commandLine.names;
  if (Object.hasOwn(TOOLS_HELP, name)) {
    process.stdout.write(TOOLS_HELP[name] as string);
    return 0;
  }
  const isPeers = commandLine.names[0] === 'peers';
  const peerNames = isPeers ? commandLine.names.slice(1) : [];
  if (isPeers && commandLine.wantsInstall) {
    installPeers(peerNames);
    return 0;
  }
  const planned = isPeers ? find('peers') : commandLine.names.flatMap(find);
  const [only] = planned;
  if (only === undefined || wantsHelp) {
    process.stdout.write(only === undefined || planned.length > 1 ? help() : scenarioHelp(only.scenario));
    return 0;
  }
  refuseUnread(planned, commandLine.options({}));
  await loadHistograms();
  const progress = terminalProgress();
  const { json } = commandLine.options({});
  const reports: Report[] = [];
  for (const [index, { scenario, defaults }] of planned.entries()) {
    const options = commandLine.options({ ...scenario.defaults, ...defaults, peers: peerNames });
    const startedAt = new Date();
    const finding = await scenario.run(options, progress);
    const report = makeReport(finding, startedAt, options.assertions);
    const file = planned.length === 1 ? json : fileOfPart(json, `${index + 1}.${report.scenario}`);
    const path = saveReport(report, finding.histograms, file);
    reports.push(report);
    process.stdout.write(`${formatReport(report)}${path}\n\n`);
  }
  const [first, ...others] = reports;
  if (first !== undefined && others.length > 0) {
    process.stdout.write(`all of them on one page: ${savePage([first, ...others], json)}\n`);
  }
  const holds = reports.every(({ assertions }) => assertions.every(({ isTrue }) => isTrue));
  return holds ? 0 : EXIT_ASSERTION;
}

endWithReader();
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const usage = error instanceof UsageError;
  process.stderr.write(`perf: ${usage ? error.message : (error as Error).stack}\n`);
  if (usage) process.stderr.write('`npm run perf` lists scenarios and flags\n');
  process.exitCode = usage ? 2 : 1;
}

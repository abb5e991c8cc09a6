/** `npm run perf -- NAME [flags]`: runs scenarios on a real broker beside a yardstick and prints figures with their spread. */

import { loadHistograms } from './lib/histogram.ts';
import { flagsHelp, type Options, readCommandLine, UsageError } from './lib/options.ts';
import { terminalProgress } from './lib/progress.ts';
import { formatReport, makeReport, saveReport } from './lib/report.ts';
import type { Scenario } from './lib/scenario.ts';
import { etcd } from './scenarios/etcd.ts';
import { fanout } from './scenarios/fanout.ts';
import { fetch } from './scenarios/fetch.ts';
import { idle } from './scenarios/idle.ts';
import { latency } from './scenarios/latency.ts';
import { recover } from './scenarios/recover.ts';
import { state } from './scenarios/state.ts';
import { subjects } from './scenarios/subjects.ts';
import { unary } from './scenarios/unary.ts';

const SCENARIOS: readonly Scenario[] = [unary, fetch, fanout, latency, recover, idle, subjects, state, etcd];

interface Planned {
  readonly scenario: Scenario;
  readonly defaults: Partial<Options>;
}

/** The table of docs/performance.md, row by row; etcd has to be installed first and is asked for by name. */
const ALL: readonly Planned[] = [
  { scenario: unary, defaults: {} },
  { scenario: unary, defaults: { inFlight: 64 } },
  ...[fetch, fanout, latency, recover, idle, subjects, state].map((scenario) => ({ scenario, defaults: {} })),
];

function help(): string {
  const list = SCENARIOS.map(({ name, about }) => `  ${name.padEnd(10)} ${about}`).join('\n');
  return [
    'usage: npm run perf -- NAME… [flags] [-- flags of `broker serve`]',
    '',
    list,
    '  all        all of them but etcd, unary with 256 and with 64 in flight',
    '',
    flagsHelp(),
    '',
    'Figures are ratios to a bare @grpc/grpc-js server measured in turn in the same run (docs/performance.md says how to read them).',
    'Exit code: 0 measured, 1 failed, 2 wrong usage. No figure makes a run fail.',
    'Example: npm run perf -- unary --in-flight 64 --rounds 3',
    '',
  ].join('\n');
}

function find(name: string): readonly Planned[] {
  if (name === 'all') return ALL;
  const scenario = SCENARIOS.find((one) => one.name === name);
  if (scenario === undefined) throw new UsageError(`no scenario is named ${name}`);
  return [{ scenario, defaults: {} }];
}

async function main(argv: readonly string[]): Promise<number> {
  const commandLine = readCommandLine(argv.filter((word) => word !== '--help' && word !== '-h'));
  const planned = commandLine.names.flatMap(find);
  if (planned.length === 0 || argv.includes('--help') || argv.includes('-h')) {
    process.stdout.write(help());
    return 0;
  }
  await loadHistograms();
  const progress = terminalProgress();
  for (const { scenario, defaults } of planned) {
    const options = commandLine.options({ ...scenario.defaults, ...defaults });
    const startedAt = new Date();
    const report = makeReport(await scenario.run(options, progress), startedAt);
    const path = saveReport(report, options.json);
    process.stdout.write(`${formatReport(report)}${path}\n\n`);
  }
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const usage = error instanceof UsageError;
  process.stderr.write(`perf: ${usage ? error.message : (error as Error).stack}\n`);
  if (usage) process.stderr.write('`npm run perf` lists scenarios and flags\n');
  process.exitCode = usage ? 2 : 1;
}

/** `npm test`: lint and types, then every suite, cheapest first. See HELP below. */
import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { styleText } from 'node:util';
import { readOptions } from './support/read-options.ts';
import { endWithReader } from './support/reader-gone.ts';
import type { ReportedTest } from './support/reporter.ts';
import { coverage, formatCoverage } from './support/rows.ts';
import { type Skipped, skipLines } from './support/skips.ts';
import { type FileResult, killGroup, runTestFile } from './support/test-file.ts';

interface Suite {
  readonly name: string;
  readonly about: string;
  readonly files: readonly string[];
  /** Those of them that run one after another, behind the others: they measure time, or fill the machine themselves. */
  readonly alone: ReadonlySet<string>;
  /** Files of it that run at one time, at most. */
  readonly width: number;
  /** Runs at one time with the suites beside it in the list that have this too: while one waits for a server, another has the cores. */
  readonly isPooled: boolean;
  readonly fileTimeoutMs: number;
}

/** A suite while it runs. */
interface Run {
  readonly suite: Suite;
  readonly shared: string[];
  readonly alone: string[];
  readonly results: FileResult[];
  running: number;
  began: number | null;
}

/** A suite as it is written down below: what may be left out is. */
interface Row {
  readonly name: string;
  readonly about: string;
  readonly files: string;
  readonly not?: string;
  readonly alone?: string;
  readonly width: number;
  readonly pooled?: boolean;
  readonly minutes: number;
}

interface Totals {
  passed: number;
  failed: number;
  readonly skipped: Skipped[];
}

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const CORES = availableParallelism();

/** Tests that wait for processes, disks and timers: two files keep two cores busy, and leave what they wait for its share. */
const PAIR = 2;

/** File globs under test/ (and what to leave out, and what runs alone). Wide suites share the cores; the others measure time or fill the machine themselves. */
const SUITES: readonly Row[] = [
  { name: 'tidy', about: 'house rules over the source tree', files: 'unit/tidy*', width: CORES, minutes: 2 },
  {
    name: 'unit',
    about: 'pure parts, tables and properties',
    files: 'unit/**/*',
    not: 'unit/tidy*',
    width: CORES,
    minutes: 3,
  },
  { name: 'threads', about: 'rings and doorbells with real threads', files: 'threads/**/*', width: 1, minutes: 10 },
  { name: 'wire', about: 'bytes on the wire and what bad ones get', files: 'wire/**/*', width: CORES, minutes: 3 },
  { name: 'sim', about: 'deterministic simulation from seeds', files: 'sim/**/*', width: CORES, minutes: 5 },
  {
    name: 'contract',
    about: 'one suite for every store',
    files: 'contract/**/*',
    width: PAIR,
    pooled: true,
    minutes: 12,
  },
  {
    name: 'e2e',
    about: 'a real broker process',
    files: 'e2e/**/*',
    alone: 'e2e/{bounds,cluster-pauses,consume-bounds,flow-*,perf-harness}',
    width: PAIR,
    pooled: true,
    minutes: 20,
  },
  {
    name: 'operate',
    about: 'what operators hold in their hands, on real brokers: commands, pages, metrics, limits',
    files: 'operate/**/*',
    width: PAIR,
    pooled: true,
    minutes: 10,
  },
  {
    name: 'image',
    about: 'the image, built and run by an engine of its own',
    files: 'image/**/*',
    width: 1,
    pooled: true,
    minutes: 8,
  },
  {
    name: 'manifests',
    about: 'those of Kubernetes, strictly',
    files: 'kubernetes/**/*',
    width: 1,
    pooled: true,
    minutes: 5,
  },
  {
    name: 'faults',
    about: 'kills, disk errors, power cuts',
    files: 'faults/**/*',
    alone: 'faults/{abuse,embedded,fuzz,soak,standstill,store-failure,wal-syscalls}',
    width: PAIR,
    pooled: true,
    minutes: 20,
  },
];

const HELP = `usage: npm test -- [options]

  --suite NAME   run one suite only, may be repeated: lint, ${SUITES.map((suite) => suite.name).join(', ')}
  --grep REGEX   run only tests whose name matches
  --verbose      name every test
  --bail         stop after the first suite that fails
  --rows         print which test covers which known trap, and run nothing
  -h, --help     this text

BROKER_TEST_NO_SKIP=1 makes every skipped test a failure.
Exit code: 0 all passed, 1 something failed, 2 wrong usage.
Example: npm test -- --suite unit --grep 'duration'
`;

const { values: options } = readOptions('test', {
  options: {
    suite: { type: 'string', multiple: true },
    grep: { type: 'string' },
    verbose: { type: 'boolean', default: false },
    bail: { type: 'boolean', default: false },
    rows: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
const isStrict = process.env.BROKER_TEST_NO_SKIP === '1';
const groups = new Set<number>();

process.on('exit', () => {
  for (const group of groups) killGroup(group);
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(130));
endWithReader();
process.exitCode = await main();

async function main(): Promise<number> {
  if (options.help) {
    print(HELP);
    return 0;
  }
  if (options.rows) {
    print(formatCoverage(coverage(ROOT)));
    return 0;
  }
  const names = ['lint', ...SUITES.map((suite) => suite.name)];
  const unknown = options.suite?.find((name) => !names.includes(name));
  if (unknown !== undefined) {
    process.stderr.write(`unknown suite "${unknown}": there are ${names.join(', ')}\n`);
    return 2;
  }
  const totals: Totals = { passed: 0, failed: 0, skipped: [] };
  const isChosen = (name: string): boolean => options.suite?.includes(name) ?? true;
  if (isChosen('lint') && options.grep === undefined) await runChecks(totals);
  for (const suites of together(SUITES.filter((row) => isChosen(row.name)).map(toSuite))) {
    if (hasBailed(totals)) break;
    await runSuites(suites, totals);
  }
  return conclude(totals);
}

function hasBailed(totals: Totals): boolean {
  return options.bail && totals.failed > 0;
}

/** Suites that run at one time, in order. */
function together(suites: readonly Suite[]): Suite[][] {
  const lists: Suite[][] = [];
  for (const suite of suites) {
    const last = lists.at(-1);
    if (suite.isPooled && last?.[0]?.isPooled) last.push(suite);
    else lists.push([suite]);
  }
  return lists;
}

function toSuite(row: Row): Suite {
  const filesOf = (pattern: string): string[] => globSync(`test/${pattern}.test.ts`, { cwd: ROOT });
  const exclude = row.not === undefined ? [] : filesOf(row.not);
  return {
    name: row.name,
    about: row.about,
    files: filesOf(row.files)
      .filter((file) => !exclude.includes(file))
      .sort(),
    alone: new Set(row.alone === undefined ? [] : filesOf(row.alone)),
    width: row.width,
    isPooled: row.pooled ?? false,
    fileTimeoutMs: row.minutes * 60_000,
  };
}

/** Lint and types run side by side; each counts as one test. */
async function runChecks(totals: Totals): Promise<void> {
  const began = performance.now();
  const checks = [
    { name: 'biome ci', args: ['@biomejs/biome/bin/biome', 'ci', '--colors=off', '.'] },
    { name: 'tsc --noEmit', args: ['typescript/bin/tsc', '--noEmit', '--pretty', 'false'] },
  ];
  const results = await Promise.all(checks.map((check) => runCheck(check.args)));
  const failed = results.filter((result) => result.code !== 0).length;
  totals.failed += failed;
  totals.passed += results.length - failed;
  headline(
    'lint',
    'format, lint, types',
    { passed: results.length - failed, failed, skipped: 0 },
    performance.now() - began,
  );
  results.forEach((result, index) => {
    if (result.code !== 0) print(`${mark('failed')} ${checks[index]?.name}\n${indent(result.output)}`);
  });
}

function runCheck(args: readonly string[]): Promise<{ code: number | null; output: string }> {
  const [script, ...rest] = args as [string, ...string[]];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(ROOT, 'node_modules', script), ...rest], { cwd: ROOT });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
    }
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, output }));
  });
}

/**
 * Runs suites at one time: the files that share the cores in the order of the suites, as many as the widest of these allows, then those that run
 * alone, one after another. Each suite is reported when its last file has ended.
 */
async function runSuites(suites: readonly Suite[], totals: Totals): Promise<void> {
  const runs = suites.map((suite): Run => {
    const shared = suite.files.filter((file) => !suite.alone.has(file));
    const alone = suite.files.filter((file) => suite.alone.has(file));
    return { suite, shared, alone, results: [], running: 0, began: null };
  });
  const work = async (kind: 'shared' | 'alone'): Promise<void> => {
    while (!hasBailed(totals)) {
      // Who ends a file of a suite that is as wide as it may be looks again, so none is left behind.
      const run = runs.find((it) => it[kind].length > 0 && it.running < it.suite.width);
      const file = run?.[kind].shift();
      if (run === undefined || file === undefined) return;
      await runFile(run, file);
      if (run.results.length === run.suite.files.length) report(run, totals);
    }
  };
  const width = Math.max(...suites.map((suite) => suite.width));
  await Promise.all(Array.from({ length: width }, () => work('shared')));
  await work('alone');
  // After --bail: what has run of the others.
  for (const run of runs)
    if (run.results.length > 0 && run.results.length < run.suite.files.length) report(run, totals);
}

async function runFile(run: Run, file: string): Promise<void> {
  run.began ??= performance.now();
  run.running++;
  const timeoutMs = run.suite.fileTimeoutMs;
  run.results.push(await runTestFile({ root: ROOT, file, timeoutMs, grep: options.grep ?? null, groups }));
  run.running--;
}

function report({ suite, results, began }: Run, totals: Totals): void {
  const tests = results.flatMap((result) => result.tests).filter((test) => !test.isGroup);
  const count = (kind: ReportedTest['kind']): number => tests.filter((test) => test.kind === kind).length;
  const problems = results.filter((result) => result.problem !== '').length;
  const counts = { passed: count('passed'), failed: count('failed') + problems, skipped: count('skipped') };
  totals.passed += counts.passed;
  totals.failed += counts.failed;
  headline(
    suite.name,
    `${suite.about}, ${suite.files.length} files`,
    counts,
    performance.now() - (began ?? performance.now()),
  );
  for (const result of results.sort((left, right) => (left.file < right.file ? -1 : 1))) {
    printFile(result);
    for (const test of result.tests) {
      if (test.kind === 'skipped') totals.skipped.push({ file: result.file, test: test.name, why: test.detail });
    }
  }
}

function printFile(result: FileResult): void {
  if (options.verbose) print(`  ${result.file} (${seconds(result.durationMs)})`);
  for (const test of result.tests) {
    if (test.kind === 'failed' && test.detail !== '') {
      print(`${mark('failed')} ${result.file}: ${test.name}\n${indent(test.detail)}`);
    } else if (options.verbose) {
      print(`${'  '.repeat(test.nesting + 1)}${mark(test.kind)} ${test.name} (${seconds(test.durationMs)})`);
    }
  }
  if (result.problem !== '') print(`${mark('failed')} ${result.file}: ${result.problem}`);
  const isFailed = result.problem !== '' || result.tests.some((test) => test.kind === 'failed');
  if (isFailed && result.output.trim() !== '')
    print(indent(`printed by ${result.file}:\n${indent(result.output.trimEnd())}`));
}

function conclude(totals: Totals): number {
  const skips = totals.skipped.length;
  if (skips > 0) {
    const verdict = isStrict
      ? 'FAILED, since BROKER_TEST_NO_SKIP=1: skipped tests'
      : 'SKIPPED: these tests did not run here';
    print(`\n${styleText('yellow', `${verdict} (what: why, how to enable)`)}`);
    for (const line of skipLines(totals.skipped)) print(line);
  }
  const failed = totals.failed + (isStrict ? skips : 0);
  print(`\n${totals.passed} passed, ${failed} failed, ${isStrict ? 0 : skips} skipped`);
  const isEmpty = totals.passed === 0 && skips === 0;
  if (isEmpty) process.stderr.write('no test has run\n');
  return failed > 0 || isEmpty ? 1 : 0;
}

function headline(
  name: string,
  about: string,
  counts: { passed: number; failed: number; skipped: number },
  ms: number,
): void {
  const parts = [`${counts.passed} passed`];
  if (counts.failed > 0) parts.push(`${counts.failed} failed`);
  if (counts.skipped > 0) parts.push(`${counts.skipped} skipped`);
  const state = counts.failed > 0 ? 'failed' : 'passed';
  print(`${mark(state)} ${name.padEnd(9)} ${parts.join(', ').padEnd(28)} ${seconds(ms).padStart(7)}  ${about}`);
}

function mark(kind: ReportedTest['kind']): string {
  if (kind === 'failed') return styleText('red', '✗');
  return kind === 'skipped' ? styleText('yellow', '-') : styleText('green', '✓');
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

function indent(text: string): string {
  return text.replace(/^/gm, '    ');
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** What a run found, and its table as text. */
import { type ExecFileSyncOptionsWithStringEncoding, execFileSync } from 'node:child_process';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Assertion, check, type Measured, type Verdict } from './assertions.ts';
import type { Plot } from './plot.ts';
import { ratios, type Spread, spread } from './stats.ts';

/** A figure of the broker, where it makes sense beside the same figure of the yardstick. One value for each round. */
export interface Figure {
  readonly name: string;
  /** What `--assert` and `compare` call it; without one, its name in lower case with dashes. */
  readonly key?: string;
  readonly unit: string;
  readonly subject: readonly number[];
  readonly baseline?: readonly number[];
  /** What `baseline` is, if it is not the bare echo server. */
  readonly baselineName?: string;
  /** Limits for the ratio if there is a baseline, else for the figure itself. */
  readonly goal?: { readonly better: 'higher' | 'lower'; readonly must: number; readonly aim: number };
}

export interface Finding {
  readonly scenario: string;
  /** What was done, in one line. */
  readonly setting: string;
  readonly figures: readonly Figure[];
  /** What the reader must know to read the figures. */
  readonly notes: readonly string[];
  readonly plots?: readonly Plot[];
  /** Packed histograms by name; each becomes a .hgrm file. */
  readonly histograms?: Readonly<Record<string, readonly string[]>>;
}

type Reached = 'aim' | 'must' | 'missed';

export interface FigureSummary extends Omit<Figure, 'subject' | 'baseline' | 'key'> {
  readonly key: string;
  readonly subject: Spread;
  readonly baseline: Spread | null;
  readonly ratio: Spread | null;
  readonly verdict: Reached | null;
  readonly rounds: { readonly subject: readonly number[]; readonly baseline: readonly number[] | null };
}

export interface Report {
  readonly scenario: string;
  readonly setting: string;
  readonly startedAt: string;
  readonly commandLine: readonly string[];
  readonly machine: Readonly<Record<string, string | number>>;
  readonly figures: readonly FigureSummary[];
  readonly notes: readonly string[];
  readonly plots: readonly Plot[];
  readonly assertions: readonly Verdict[];
}

export function makeReport(finding: Finding, startedAt: Date, assertions: readonly Assertion[] = []): Report {
  const figures = finding.figures.map(summarizeFigure);
  return {
    scenario: finding.scenario,
    setting: finding.setting,
    startedAt: startedAt.toISOString(),
    commandLine: process.argv.slice(2),
    machine: describeMachine(),
    figures,
    notes: finding.notes,
    plots: finding.plots ?? [],
    assertions: checkAll(assertions, figures),
  };
}

/** Figures by key, and ratios as `ratio.KEY`. */
export function figuresByKey(figures: readonly FigureSummary[]): Map<string, Measured> {
  const byKey = new Map<string, Measured>();
  for (const { key, unit, subject, ratio } of figures) {
    byKey.set(key, { value: subject.median, unit });
    if (ratio !== null) byKey.set(`ratio.${key}`, { value: ratio.median, unit: '' });
  }
  return byKey;
}

function checkAll(assertions: readonly Assertion[], figures: readonly FigureSummary[]): Verdict[] {
  const byKey = figuresByKey(figures);
  return assertions.map((assertion) => check(assertion, byKey));
}

/** A name in lower case with dashes. */
export function keyOf(name: string): string {
  return name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '');
}

function summarizeFigure(figure: Figure): FigureSummary {
  const { subject, baseline, ...rest } = figure;
  const ratio = baseline === undefined ? null : spread(ratios(subject, baseline));
  const summary = {
    ...rest,
    key: figure.key ?? keyOf(figure.name),
    subject: spread(subject),
    baseline: baseline === undefined ? null : spread(baseline),
    ratio,
    rounds: { subject, baseline: baseline ?? null },
  };
  return { ...summary, verdict: judge(figure.goal, (ratio ?? summary.subject).median) };
}

function judge(goal: Figure['goal'], value: number): Reached | null {
  if (goal === undefined) return null;
  const reached = (limit: number): boolean => (goal.better === 'higher' ? value >= limit : value <= limit);
  if (reached(goal.aim)) return 'aim';
  return reached(goal.must) ? 'must' : 'missed';
}

/** One line: a figure tells little without it. */
export function formatMachine(machine: Readonly<Record<string, string | number>>): string {
  return Object.entries(machine)
    .map(([key, value]) => `${key} ${value}`)
    .join(', ');
}

export function describeMachine(): Record<string, string | number> {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    commit: commitOf(dirname(fileURLToPath(import.meta.url))),
  };
}

function commitOf(folder: string): string {
  try {
    const options: ExecFileSyncOptionsWithStringEncoding = {
      cwd: folder,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    };
    const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], options).trim();
    const changed = execFileSync('git', ['status', '--porcelain', '-uno'], options).trim() !== '';
    return changed ? `${commit} and changes` : commit;
  } catch {
    // No git, or no repository (the published package): the report does without.
    return 'unknown';
  }
}

export function formatReport(report: Report): string {
  const rows = [['figure', 'broker', 'baseline', 'ratio', 'goal']];
  for (const figure of report.figures) {
    const { unit, subject, baseline, ratio } = figure;
    rows.push([
      unit === '' ? figure.name : `${figure.name} [${unit}]`,
      formatSpread(subject),
      baseline === null
        ? '-'
        : `${formatSpread(baseline)}${figure.baselineName === undefined ? '' : ` (${figure.baselineName})`}`,
      ratio === null ? '-' : formatSpread(ratio),
      formatGoal(figure),
    ]);
  }
  return [
    `${report.scenario}: ${report.setting}`,
    formatMachine(report.machine),
    '',
    table(rows),
    '',
    'median (lowest..highest) of the rounds; ratios are of neighbouring rounds',
    ...report.notes.map((note) => `- ${note}`),
    ...report.assertions.map(
      ({ text, isTrue, value }) => `${isTrue ? 'holds' : 'FAILS'}: ${text} (${formatNumber(value)})`,
    ),
    '',
  ].join('\n');
}

export function formatGoal(figure: FigureSummary): string {
  if (figure.goal === undefined || figure.verdict === null) return '';
  const { better, must, aim } = figure.goal;
  const sign = better === 'higher' ? '>=' : '<=';
  const words = { aim: 'aim reached', must: 'reached', missed: 'MISSED' } as const;
  return `${words[figure.verdict]} (${sign} ${must}, aim ${aim})`;
}

export function formatSpread({ median, min, max }: Spread): string {
  return min === max ? formatNumber(median) : `${formatNumber(median)} (${formatNumber(min)}..${formatNumber(max)})`;
}

export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return '?';
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString('en-US');
  return value.toFixed(Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);
}

/** Columns padded to their widest cell; all but the first to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
  lines.splice(1, 0, widths.map((width) => '-'.repeat(width)).join('  '));
  return lines.join('\n');
}

/** `compare A.json B.json`: what changed between two reports. Pure. */
import { type FigureSummary, formatNumber, formatSpread, type Report, table } from './report.ts';

export interface Change {
  readonly key: string;
  /** B / A, of the ratios to the baseline where both have one: what the machine did meanwhile is in neither. */
  readonly factor: number;
  readonly isRatio: boolean;
  /** The spreads do not overlap: the change is more than what the rounds differ by. */
  readonly isClear: boolean;
}

export function changesOf(a: Report, b: Report): Change[] {
  return b.figures.flatMap((after): Change[] => {
    const before = a.figures.find((figure) => figure.key === after.key);
    if (before === undefined) return [];
    const isRatio = before.ratio !== null && after.ratio !== null;
    const from = isRatio ? (before.ratio as FigureSummary['subject']) : before.subject;
    const to = isRatio ? (after.ratio as FigureSummary['subject']) : after.subject;
    return [
      { key: after.key, factor: to.median / from.median, isRatio, isClear: to.min > from.max || to.max < from.min },
    ];
  });
}

export function formatComparison(a: Report, b: Report): string {
  const changes = new Map(changesOf(a, b).map((change) => [change.key, change]));
  const rows = [['figure', 'A', 'B', 'B / A', '']];
  for (const after of b.figures) {
    const before = a.figures.find((figure) => figure.key === after.key);
    const change = changes.get(after.key);
    if (before === undefined || change === undefined) continue;
    const verdict = change.isClear ? 'clear' : 'within the spread';
    rows.push([
      after.unit === '' ? after.name : `${after.name} [${after.unit}]`,
      formatSpread(before.subject),
      formatSpread(after.subject),
      formatNumber(change.factor),
      change.isRatio ? `${verdict}, of the ratios` : verdict,
    ]);
  }
  const warnings = [
    ...(a.setting === b.setting ? [] : [`DIFFERENT SETTINGS: "${a.setting}" and "${b.setting}"`]),
    ...Object.keys(a.machine).flatMap((key) =>
      key === 'commit' || a.machine[key] === b.machine[key]
        ? []
        : [`different ${key}: ${a.machine[key]} and ${b.machine[key]}`],
    ),
  ];
  return [
    `${a.scenario}: ${a.machine.commit} (A) and ${b.machine.commit} (B)`,
    ...warnings,
    '',
    table(rows),
    '',
    '"clear": no round of one is as any round of the other',
    '',
  ].join('\n');
}

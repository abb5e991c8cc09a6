/** The files that operators watch a broker with: alert rules, dashboards, and what they ask for. */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { type Exposition, familyOf } from './exposition.ts';
import { namesIn } from './promql.ts';
import { ROOT } from './source-tree.ts';

export interface Rule {
  readonly alert?: string;
  readonly record?: string;
  readonly expr: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

interface Panel {
  readonly title: string;
  readonly type: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[];
}

export interface Dashboard {
  readonly uid: string;
  readonly panels: readonly Panel[];
  readonly templating: {
    readonly list: readonly {
      readonly name: string;
      readonly type: string;
      readonly query: string | { readonly query: string };
    }[];
  };
  readonly annotations: { readonly list: readonly { readonly expr: string }[] };
}

/** Something that asks Prometheus, and where it stands. */
export interface Query {
  readonly where: string;
  readonly expr: string;
  /** Labels that a legend or a text takes from the answer. */
  readonly shown: readonly string[];
}

export function readRules(): Rule[] {
  const { groups } = parse(readFileSync(join(ROOT, 'deploy/prometheus/rules.yml'), 'utf8')) as {
    groups: { rules: Rule[] }[];
  };
  return groups.flatMap(({ rules }) => rules);
}

export function readDashboards(): { readonly path: string; readonly dashboard: Dashboard }[] {
  return globSync('dashboards/*.json', { cwd: ROOT })
    .sort()
    .map((path) => ({ path, dashboard: JSON.parse(readFileSync(join(ROOT, path), 'utf8')) as Dashboard }));
}

export function allQueries(): Query[] {
  const rules = readRules().map(({ alert, record, expr, annotations }) => {
    const texts = Object.values(annotations ?? {}).join(' ');
    return {
      where: alert ?? record ?? '',
      expr,
      shown: [...texts.matchAll(/\$labels\.(\w+)/g)].map(([, label]) => label ?? ''),
    };
  });
  const panels = readDashboards().flatMap(({ path, dashboard }) => [
    ...dashboard.panels.flatMap(({ title, targets }) =>
      (targets ?? []).map(({ expr, legendFormat }) => ({
        where: `${path}: ${title}`,
        expr,
        shown: [...legendFormat.matchAll(/\{\{\s*(\w+)\s*\}\}/g)].map(([, label]) => label ?? ''),
      })),
    ),
    ...dashboard.annotations.list.map(({ expr }) => ({ where: `${path}: annotations`, expr, shown: [] })),
    ...dashboard.templating.list.flatMap(({ name, query }) => {
      const asked = typeof query === 'string' ? null : /^label_values\((.*), (\w+)\)$/.exec(query.query);
      return asked === null
        ? []
        : [{ where: `${path}: $${name}`, expr: asked[1] as string, shown: [asked[2] as string] }];
    }),
  ]);
  return [...rules, ...panels];
}

/** Made by Prometheus when it scrapes, or of it. */
const TARGET_LABELS = ['job', 'instance'];
/** Labels whose values appear one by one as things happen, such as a code that was not answered yet. */
const OPEN_VALUES = new Set(['code', ...TARGET_LABELS]);

/** What queries name and none of `answers` has: metrics, labels of them, values of labels. Empty if all is well. */
export function unknownNames(queries: readonly Query[], answers: readonly Exposition[]): string[] {
  const labels = new Map<string, Map<string, Set<string>>>([['up', new Map()]]);
  for (const { types, samples } of answers) {
    for (const name of types.keys()) if (!labels.has(name)) labels.set(name, new Map());
    for (const sample of samples) {
      const family = familyOf(sample.name, types);
      // Of a histogram only its parts can be asked for.
      const own = labels.get(sample.name) ?? new Map<string, Set<string>>();
      labels.set(sample.name, own);
      if (family !== sample.name) labels.delete(family);
      for (const [label, value] of Object.entries(sample.labels))
        own.set(label, (own.get(label) ?? new Set()).add(value));
    }
  }
  for (const { record, expr } of readRules()) {
    if (record !== undefined) labels.set(record, new Map(namesIn(expr).groupedBy.map((label) => [label, new Set()])));
  }
  return queries.flatMap(({ where, expr, shown }) => {
    const { metrics, groupedBy, made } = namesIn(expr);
    const problems: string[] = [];
    const known = new Set([...TARGET_LABELS, ...made]);
    for (const { metric, matchers } of metrics) {
      const own = labels.get(metric);
      if (own === undefined) {
        problems.push(`no metric ${metric}`);
        continue;
      }
      for (const label of own.keys()) known.add(label);
      for (const { label, operator, value } of matchers) {
        if (!own.has(label) && !TARGET_LABELS.includes(label)) problems.push(`${metric} has no label ${label}`);
        else if (operator === '=' && !OPEN_VALUES.has(label) && !own.get(label)?.has(value)) {
          problems.push(`no ${label} of ${metric} is ${value}`);
        }
      }
    }
    if (metrics.length === 0) problems.push('nothing is asked for');
    for (const label of [...groupedBy, ...shown]) if (!known.has(label)) problems.push(`nothing has a label ${label}`);
    return problems.map((problem) => `${where}: ${problem}`);
  });
}

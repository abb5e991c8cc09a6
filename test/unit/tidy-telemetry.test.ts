/** Alerts, their runbook and their tests name each other; dashboards can be taken in. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { namesIn } from '../support/promql.ts';
import { ROOT } from '../support/source-tree.ts';
import { readDashboards, readRules } from '../support/watching.ts';

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const alerts = readRules().filter(({ alert }) => alert !== undefined);
const runbook = read('docs/runbook.md');
const sections = runbook.split(/^## /m).slice(1);
const titleOf = (section: string): string => section.slice(0, section.indexOf('\n'));
/** As GitHub makes them. */
const anchorOf = (title: string): string =>
  title
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-');

test('[P10] every alert leads to its section of the runbook, and every section has its alert', () => {
  assert.ok(alerts.length >= 20, 'nothing was compared');
  assert.deepEqual(
    sections.map(titleOf),
    alerts.map(({ alert }) => alert),
  );
  for (const { alert, annotations, labels } of alerts) {
    assert.equal(annotations?.runbook_url, `docs/runbook.md#${anchorOf(alert as string)}`);
    assert.match(labels?.severity ?? '', /^(page|ticket)$/, alert);
    assert.ok(annotations?.summary !== undefined && annotations.description !== undefined, alert);
  }
});

test('every section says what the alert means, how bad it is, how to make sure and what to do, and its links lead somewhere', () => {
  for (const section of sections) {
    const title = titleOf(section);
    const severity = alerts.find(({ alert }) => alert === title)?.labels?.severity;
    assert.ok(section.startsWith(`${title}\n\`${severity}\`. `), `${title}: severity and meaning`);
    assert.match(section, /\*\*How bad\.\*\* \S/, title);
    assert.match(section, /\*\*Make sure\.\*\*\n\n```sh\n[^`]+\n```/, title);
    assert.match(section, /\*\*What to do\.\*\*\n\n- \S/, title);
  }
  for (const [, path, anchor] of runbook.matchAll(/\]\(([\w.-]*)(?:#([\w-]+))?\)/g)) {
    const file = path === '' || path === undefined ? 'runbook.md' : path;
    assert.ok(existsSync(join(ROOT, 'docs', file)), file);
    if (anchor === undefined) continue;
    const titles = [...read(`docs/${file}`).matchAll(/^#+ (.*)$/gm)].map(([, title]) => anchorOf(title ?? ''));
    assert.ok(titles.includes(anchor), `${file}#${anchor}`);
  }
});

test('every alert has a case in which it fires and one in which it is quiet', () => {
  const { tests } = parse(read('deploy/prometheus/rules.test.yml')) as {
    tests: { alert_rule_test?: { alertname: string; exp_alerts: unknown[] }[] }[];
  };
  const cases = tests.flatMap(({ alert_rule_test }) => alert_rule_test ?? []);
  const names = (isFiring: boolean): string[] =>
    [
      ...new Set(
        cases.filter(({ exp_alerts }) => exp_alerts.length > 0 === isFiring).map(({ alertname }) => alertname),
      ),
    ].sort();
  const all = alerts.map(({ alert }) => alert as string).sort();
  assert.deepEqual(names(true), all);
  assert.deepEqual(names(false), all);
});

test('dashboards are known by an id of their own, need no network, and their panels do not lie on each other', () => {
  const found = readDashboards();
  assert.equal(new Set(found.map(({ dashboard }) => dashboard.uid)).size, found.length);
  for (const { path, dashboard } of found) {
    assert.doesNotMatch(read(path), /https?:/, `${path}: an address`);
    assert.deepEqual(
      dashboard.templating.list.map(({ name }) => name),
      ['datasource', 'job', 'instance'],
    );
    const taken = new Map<string, string>();
    for (const { title, gridPos, targets, type } of dashboard.panels) {
      assert.ok(type === 'row' || (targets?.length ?? 0) > 0, `${path}: ${title} asks nothing`);
      assert.ok(gridPos.x + gridPos.w <= 24, title);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          assert.ok(!taken.has(`${x} ${y}`), `${path}: ${title} lies on ${taken.get(`${x} ${y}`)}`);
          taken.set(`${x} ${y}`, title);
        }
      }
      for (const { expr } of targets ?? []) {
        for (const { metric, matchers } of namesIn(expr).metrics) {
          const variables = ['job', 'instance'].every((label) =>
            matchers.some((one) => one.label === label && one.value === `$${label}`),
          );
          assert.ok(variables, `${path}: ${title} asks for ${metric} of nodes that were not chosen`);
        }
      }
    }
  }
});

test('names are found in a query whatever stands around them', () => {
  const query =
    'label_replace(sum by (le, shard) (rate(a_bucket{x="1", y=~"b{c}"}[5m])) / on (i) group_left (k) topk(3, b:c), "made", "$1", "src", "(.*)") > bool 0.5 or max(d) unless e offset 5m';
  const { metrics, groupedBy, made } = namesIn(query);
  assert.deepEqual(
    metrics.map(({ metric }) => metric),
    ['a_bucket', 'b:c', 'd', 'e'],
  );
  assert.deepEqual(metrics[0]?.matchers, [
    { label: 'x', operator: '=', value: '1' },
    { label: 'y', operator: '=~', value: 'b{c}' },
  ]);
  assert.deepEqual([groupedBy, made], [['le', 'shard', 'i', 'k'], ['made']]);
});

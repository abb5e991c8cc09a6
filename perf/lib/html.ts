/** A report as one HTML file: no script, no link, nothing to load. Pure. */
import { escapeHtml, renderPlot } from './plot.ts';
import { formatGoal, formatNumber, formatSpread, type Report } from './report.ts';

const STYLE = `
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --line: #d8d8d8; --soft: #666; --good: #0a6b3d; --bad: #b00020; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #16181b; --line: #3a3d42; --soft: #a0a4aa; --good: #5fd39a; --bad: #ff7a86; } }
body { font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; color: var(--ink); background: var(--paper); max-width: 1380px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: right; padding: .28rem .55rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } td:first-child, td:last-child { white-space: normal; } td { font-variant-numeric: tabular-nums; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 560px), 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .5rem; } svg { width: 100%; height: auto; }
svg text { font: 11px system-ui, "DejaVu Sans", sans-serif; fill: var(--soft); } svg .title { font-size: 14px; fill: var(--ink); } .grid { stroke: var(--line); stroke-width: .6; }
figcaption { font-size: .85rem; display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: 0 .5rem; } figcaption i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; vertical-align: -1px; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; }
`;

/** One report, or those of one run one below the other. */
export function renderHtml(...reports: readonly Report[]): string {
  const [first] = reports;
  const isOne = reports.length === 1;
  const title = isOne && first !== undefined ? `${first.scenario}: ${first.setting}` : 'Performance of the broker';
  return [
    '<!doctype html>',
    '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
    `<title>${escapeHtml(title)}</title><style>${STYLE}</style></head><body>`,
    ...(isOne ? [] : contents(reports)),
    ...reports.flatMap(section),
    '</body></html>',
    '',
  ].join('\n');
}

/** What was measured, with a link to each and what it says of its goals. */
function contents(reports: readonly Report[]): string[] {
  return [
    '<h1>Performance of the broker</h1>',
    '<div class="scroll"><table><thead><tr><th>scenario</th><th>figure with a goal</th><th>measured</th><th>ratio</th><th>goal</th></tr></thead><tbody>',
    ...reports.flatMap((report, index) => {
      const link = `<a href="#s${index}">${escapeHtml(report.scenario)}</a>`;
      const figures = report.figures.filter(({ goal }) => goal !== null && goal !== undefined);
      if (figures.length === 0) return [`<tr><td>${link}</td><td></td><td></td><td></td><td></td></tr>`];
      return figures.map((figure) => {
        const [name, measured, , ratio, goal] = cells(figure);
        return `<tr><td>${link}</td><td>${name}</td><td>${measured}</td><td>${ratio}</td><td>${goal}</td></tr>`;
      });
    }),
    '</tbody></table></div>',
  ];
}

function section(report: Report, index: number): string[] {
  const machine = Object.entries(report.machine).map(([key, value]) => `${key} ${value}`);
  return [
    `<h1 id="s${index}">${escapeHtml(report.scenario)}</h1>`,
    `<p>${escapeHtml(report.setting)}</p>`,
    `<p class="soft">${escapeHtml(report.startedAt)} · ${escapeHtml(machine.join(', '))}<br>`,
    `<code>npm run perf -- ${escapeHtml(report.commandLine.map(quoted).join(' '))}</code></p>`,
    ...assertionLines(report),
    '<h2>Figures</h2>',
    '<div class="scroll"><table><thead><tr><th>figure</th><th>measured</th><th>baseline</th><th>ratio</th><th>goal</th></tr></thead><tbody>',
    ...report.figures.map(row),
    '</tbody></table></div>',
    '<p class="soft">Median (lowest..highest) of the rounds; ratios are of neighbouring rounds. Key in square brackets: what <code>--assert</code> calls it.</p>',
    ...(report.notes.length === 0
      ? []
      : ['<h2>Notes</h2><ul>', ...report.notes.map((note) => `<li>${escapeHtml(note)}</li>`), '</ul>']),
    ...(report.plots.length === 0
      ? []
      : ['<h2>Plots</h2><div class="plots">', ...report.plots.map(renderPlot), '</div>']),
  ];
}

function row(figure: Report['figures'][number]): string {
  return `<tr>${cells(figure)
    .map((cell) => `<td>${cell}</td>`)
    .join('')}</tr>`;
}

function cells(figure: Report['figures'][number]): string[] {
  const { name, key, unit, subject, baseline, baselineName, ratio } = figure;
  return [
    `${escapeHtml(name)} <span class="soft">[${escapeHtml(key)}]</span>`,
    `${formatSpread(subject)} ${escapeHtml(unit)}`,
    baseline === null
      ? ''
      : `${formatSpread(baseline)} ${escapeHtml(unit)}${baselineName ? ` (${escapeHtml(baselineName)})` : ''}`,
    ratio === null ? '' : formatSpread(ratio),
    `<span class="${figure.verdict === 'missed' ? 'bad' : 'good'}">${escapeHtml(formatGoal(figure))}</span>`,
  ];
}

function assertionLines(report: Report): string[] {
  if (report.assertions.length === 0) return [];
  const lines = report.assertions.map(
    ({ text, isTrue, value }) =>
      `<li class="${isTrue ? 'good' : 'bad'}">${escapeHtml(text)}: ${isTrue ? 'holds' : 'fails'} (${formatNumber(value)})</li>`,
  );
  return ['<h2>Assertions</h2><ul>', ...lines, '</ul>'];
}

function quoted(word: string): string {
  return /^[\w.,:/=%+-]+$/.test(word) ? word : `'${word}'`;
}

/** Where reports go: JSON, a page of HTML and HDR histograms side by side. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { percentileText } from './histogram.ts';
import { renderHtml } from './html.ts';
import { type Finding, keyOf, type Report } from './report.ts';

const FOLDER = join(dirname(fileURLToPath(import.meta.url)), '..', 'results');

/** Writes JSON, HTML and one .hgrm for each histogram next to the others, or to `file`; returns the path of the JSON. */
export function saveReport(report: Report, histograms: Finding['histograms'], file: string | null): string {
  const base = baseOf(report.scenario, report, file);
  const path = file ?? `${base}.json`;
  writeFileSync(path, `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(`${base}.html`, renderHtml(report));
  for (const [name, packed] of Object.entries(histograms ?? {})) {
    writeFileSync(`${base}.${keyOf(name)}.hgrm`, percentileText(packed));
  }
  return path;
}

/** A page with all reports of a run, next to the others, or at `file` with .html in place of .json; returns its path. */
export function savePage(reports: readonly [Report, ...Report[]], file: string | null): string {
  const path = `${baseOf('run', reports[0], file)}.html`;
  writeFileSync(path, renderHtml(...reports));
  return path;
}

/** Where one of several reports of a run goes when a file was named for the run. */
export function fileOfPart(file: string | null, part: string): string | null {
  return file === null ? null : `${withoutJson(file)}.${part}.json`;
}

/** Without an ending; its folder is there afterwards. */
function baseOf(name: string, { startedAt }: Report, file: string | null): string {
  const base = file === null ? join(FOLDER, `${name}-${startedAt.replaceAll(/[:.]/g, '-')}`) : withoutJson(file);
  mkdirSync(dirname(base), { recursive: true });
  return base;
}

function withoutJson(file: string): string {
  return file.replace(/\.json$/, '');
}

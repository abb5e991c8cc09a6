/** Where reports go: JSON, a page of HTML and HDR histograms side by side. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { percentileText } from './histogram.ts';
import { renderHtml } from './html.ts';
import { type Finding, keyOf, type Report } from './report.ts';

/** Writes JSON, HTML and one .hgrm for each histogram next to the others, or to `file`; returns the path of the JSON. */
export function saveReport(report: Report, histograms: Finding['histograms'], file: string | null): string {
  const folder = join(dirname(fileURLToPath(import.meta.url)), '..', 'results');
  const stamp = report.startedAt.replaceAll(/[:.]/g, '-');
  const path = file ?? join(folder, `${report.scenario}-${stamp}.json`);
  const base = path.replace(/\.json$/, '');
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(`${base}.html`, renderHtml(report));
  for (const [name, packed] of Object.entries(histograms ?? {})) {
    writeFileSync(`${base}.${keyOf(name)}.hgrm`, percentileText(packed));
  }
  return path;
}

/** A page with all reports of a run, next to them or at `file` (with .html in place of .json); returns its path. */
export function savePage(reports: readonly Report[], file: string | null): string {
  const folder = join(dirname(fileURLToPath(import.meta.url)), '..', 'results');
  const stamp = (reports[0]?.startedAt ?? '').replaceAll(/[:.]/g, '-');
  const path = `${(file ?? join(folder, `run-${stamp}.json`)).replace(/\.json$/, '')}.html`;
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, renderHtml(...reports));
  return path;
}

/** Where one of several reports of a run goes when a file was named for the run. */
export function fileOfPart(file: string | null, scenario: string): string | null {
  return file === null ? null : `${file.replace(/\.json$/, '')}.${scenario}.json`;
}

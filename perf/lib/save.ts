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

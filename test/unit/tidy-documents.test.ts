/** What documents say by name exists under that name, and the other way round where a list claims to be whole. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { ROOT, sourceFiles } from '../support/source-tree.ts';

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const isThere = (path: string): boolean => existsSync(join(ROOT, path));
const namesIn = (text: string, pattern: RegExp): string[] => [...text.matchAll(pattern)].map(([, name]) => name ?? '');

test('every metric that a document or a setting names is one that /metrics shows', () => {
  const makers = sourceFiles('src').filter(({ path }) => !path.startsWith('src/config/'));
  const shown = new Set(makers.flatMap(({ text }) => namesIn(text, /'(broker_[a-z0-9_]+)'/g)));
  const documents = [...globSync('docs/**/*.md', { cwd: ROOT }), 'README.md', 'CHANGELOG.md', 'src/config/schema.ts'];
  const named = documents.flatMap((path) =>
    namesIn(read(path), /`(broker_[a-z0-9_]+)/g).map((metric) => ({ path, metric })),
  );
  assert.ok(named.length > 0 && shown.size > 0, 'nothing was compared');
  assert.deepEqual(
    named.filter(({ metric }) => !shown.has(metric)),
    [],
  );
});

test('docs/operations.md has every reason for which a start is refused, and no other', () => {
  const codes = namesIn(read('src/storage/start-error.ts'), /^ {2}\| '([A-Z_]+)'/gm);
  const table = /\n## Refusals to start\n([\s\S]*?)\n## /.exec(read('docs/operations.md'))?.[1] ?? '';
  const firstCells = namesIn(table, /^\| ([^|]+) \|/gm).join();
  assert.ok(codes.length > 0, 'nothing was compared');
  assert.deepEqual(namesIn(firstCells, /`([A-Z_]+)`/g).sort(), codes.sort());
});

test('docs/architecture.md has every folder of src/, and no other, and the paths that it names exist', () => {
  const text = read('docs/architecture.md');
  const table = /\n\| folder of `src` \|[^\n]*\n([\s\S]*)$/.exec(text)?.[1] ?? '';
  const firstCells = namesIn(table, /^\| ([^|]+) \|/gm).join();
  assert.deepEqual(namesIn(firstCells, /`([\w.-]+)`/g).sort(), readdirSync(join(ROOT, 'src')).sort());
  const paths = namesIn(text, /`([\w-]+(?:\/[\w.-]+)*\/[\w-]+\.ts)`/g);
  assert.ok(paths.length > 20, 'nothing was compared');
  const missing = paths.filter((path) => ![path, `src/workers/${path}`, `src/${path}`].some(isThere));
  assert.deepEqual(missing, []);
});

test('nothing that users read promises ids without gaps: some are void', () => {
  const documents = [...globSync('{docs,proto,examples}/**/*.{md,proto}', { cwd: ROOT }), 'README.md', 'CHANGELOG.md'];
  const commands = sourceFiles('src').filter(({ path }) => path.startsWith('src/cli/'));
  const texts = [...documents.map((path) => ({ path, text: read(path) })), ...commands];
  const found = texts.filter(({ text }) => /\b(without (any )?gaps?|gapless|gap-free)\b/i.test(text));
  assert.deepEqual(
    found.map(({ path }) => path),
    [],
  );
});

test('every link of a document leads to a file of this tree, and to a heading of it', () => {
  const documents = globSync('{*.md,{docs,examples,k8s,deploy,envoy,dashboards,demo,perf}/**/*.md}', { cwd: ROOT });
  const anchorsOf = (path: string): string[] => {
    const seen = new Map<string, number>();
    return namesIn(withoutCode(read(path)), /^#{1,6} (.+)$/gm).map((heading) => {
      const anchor = heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replace(/\s/g, '-');
      const times = seen.get(anchor) ?? 0;
      seen.set(anchor, times + 1);
      return times === 0 ? anchor : `${anchor}-${times}`;
    });
  };
  const broken = documents.flatMap((path) =>
    namesIn(withoutCode(read(path)), /\]\(([^)\s]+)\)/g)
      .filter((link) => !/^[a-z]+:/.test(link))
      .filter((link) => {
        const [file = '', anchor] = link.split('#');
        const target = file === '' ? path : join(dirname(path), file);
        if (!existsSync(join(ROOT, target))) return true;
        return anchor !== undefined && !(target.endsWith('.md') && anchorsOf(target).includes(anchor));
      })
      .map((link) => `${path}: ${link}`),
  );
  assert.ok(documents.length > 10, 'nothing was looked at');
  assert.deepEqual(broken, []);
});

/** Fenced code may look like a link or a heading. */
function withoutCode(text: string): string {
  return text.replace(/^```[\s\S]*?^```/gm, '');
}

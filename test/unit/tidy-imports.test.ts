import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Import, importsOf, ROOT, sourceFiles } from '../support/source-tree.ts';

const CORES = ['raft', 'allot', 'replica', 'gossip', 'batch', 'publish', 'subscribe', 'quota', 'access'];

/**
 * What each folder of src/ may import from the others: arrows point one way. A folder that is not listed may not exist, so a new one is
 * a decision. `types`: for type imports only.
 */
const ALLOWED: Readonly<Record<string, { readonly from: readonly string[]; readonly types?: readonly string[] }>> = {
  base: { from: [] },
  shm: { from: ['base'] },
  raft: { from: ['base'] },
  allot: { from: ['base'] },
  replica: { from: ['base', 'raft', 'allot'] },
  gossip: { from: ['base'] },
  batch: { from: ['base'] },
  publish: { from: ['base'] },
  subscribe: { from: ['base'] },
  quota: { from: ['base'] },
  access: { from: ['base'] },
  tls: { from: ['base', 'access'] },
  config: { from: ['base', 'access', 'tls'], types: ['quota'] },
  telemetry: { from: ['base', 'shm', 'tls'], types: ['config'] },
  storage: { from: ['base', 'batch', 'raft', 'allot'], types: ['config', 'replica'] },
  net: { from: ['base', 'raft', 'replica', 'gossip', 'access', 'tls'], types: ['config'] },
  discovery: { from: ['base'], types: ['config'] },
  grpc: { from: ['base', 'batch', 'access', 'tls', 'telemetry'], types: ['config'] },
  verify: { from: ['base', 'shm', 'storage'], types: ['allot'] },
  workers: {
    from: [...CORES, 'base', 'shm', 'storage', 'net', 'tls', 'grpc', 'telemetry', 'verify'],
    types: ['config'],
  },
  client: { from: ['base', 'batch', 'grpc'] },
  copy: { from: ['base', 'batch', 'storage', 'workers'], types: ['config', 'allot'] },
  recovery: { from: ['base', 'allot', 'storage', 'verify', 'workers'], types: ['config'] },
  cli: { from: ['base', 'access', 'tls', 'config', 'grpc', 'client'], types: ['copy', 'recovery'] },
  console: { from: ['base', 'grpc', 'telemetry'] },
  node: {
    from: [
      ...['base', 'access', 'config', 'storage', 'net', 'tls', 'grpc', 'telemetry', 'workers', 'discovery', 'shm'],
      'console',
    ],
  },
  'main.ts': { from: ['base', 'config', 'storage', 'telemetry', 'workers', 'node'] },
};

function folderOf(path: string): string {
  return path.split('/')[1] as string;
}

const files = sourceFiles('src');
const imports = files.flatMap(importsOf);

test('imports between the folders of src/ follow the allow list', () => {
  const wrong = imports.filter((edge) => edge.target.startsWith('src/')).filter((edge) => !isAllowed(edge));
  assert.deepEqual(
    wrong.map((edge) => `${edge.from} imports ${edge.target}`),
    [],
  );
});

function isAllowed(edge: Import): boolean {
  const [from, target] = [folderOf(edge.from), folderOf(edge.target)];
  const rule = ALLOWED[from];
  return (
    from === target ||
    rule?.from.includes(target) === true ||
    (edge.isTypeOnly && rule?.types?.includes(target) === true)
  );
}

test('src/ imports nothing from outside src/ but packages and Node', () => {
  const outside = imports.filter((edge) => /^(\.|\/|test\/|perf\/|bin\/|demo\/)/.test(edge.target));
  assert.deepEqual(outside, []);
});

test('[R28] cores import only src/base and themselves, no package and nothing of Node', () => {
  const wrong = imports
    .filter((edge) => CORES.includes(folderOf(edge.from)))
    .filter((edge) => !edge.target.startsWith('src/'));
  assert.deepEqual(
    wrong.map((edge) => `${edge.from} imports ${edge.target}`),
    [],
  );
});

test('packages that src/ imports are dependencies, so that an installed broker has them', () => {
  const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { dependencies: object };
  const names = imports
    .map((edge) => edge.target)
    .filter((target) => !target.startsWith('src/') && !target.startsWith('node:'))
    .map((target) =>
      target
        .split('/')
        .slice(0, target.startsWith('@') ? 2 : 1)
        .join('/'),
    );
  const missing = [...new Set(names)].filter((name) => !Object.hasOwn(manifest.dependencies, name));
  assert.deepEqual(missing, []);
});

/** Every way from a place over others back to it. */
function cyclesOf(edges: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (place: string, above: readonly string[]): void => {
    if (above.includes(place)) {
      cycles.push([...above.slice(above.indexOf(place)), place].join(' -> '));
    } else if (!done.has(place)) {
      for (const target of edges.get(place) ?? []) visit(target, [...above, place]);
      done.add(place);
    }
  };
  for (const place of edges.keys()) visit(place, []);
  return cycles;
}

/** What is left of imports at run time, between the places that `placeOf` gives; null: none. */
function edgesBetween(placeOf: (path: string) => string | null): Map<string, Set<string>> {
  const edges = new Map<string, Set<string>>();
  for (const { from, target, isTypeOnly } of imports) {
    const [start, end] = [placeOf(from), placeOf(target)];
    if (isTypeOnly || start === null || end === null || (start === end && from !== target)) continue;
    edges.set(start, (edges.get(start) ?? new Set()).add(end));
  }
  return edges;
}

test('no file of src/ imports itself over others', () => {
  assert.deepEqual(cyclesOf(edgesBetween((path) => (path.startsWith('src/') ? path : null))), []);
});

test('folders of src/workers import one another one way', () => {
  const folder = /^src\/workers\/(?:([a-z]+)\/)?[a-z-]+\.ts$/;
  const edges = edgesBetween((path) => {
    const match = folder.exec(path);
    return match === null ? null : (match[1] ?? '.');
  });
  assert.ok(edges.size > 5);
  assert.deepEqual(cyclesOf(edges), []);
});

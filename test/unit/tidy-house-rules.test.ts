import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { NODE_VERSION_MIN } from '../../bin/node24.mjs';
import { codeOnly, importsOf, placesOf, ROOT, sourceFiles, withoutComments } from '../support/source-tree.ts';

const source = sourceFiles('src');
const all = sourceFiles('src', 'bin', 'test', 'perf', 'demo', 'proto', 'examples');
const CORES = /^src\/(raft|allot|replica|gossip|batch|publish|subscribe|quota|access)\//;

test('src/ has no mutable variable at the top level of a module', () => {
  const found = source.flatMap((file) => placesOf(file, codeOnly(file.text), /^(export )?(let|var) .*/gm));
  assert.deepEqual(found, []);
});

test('only main.ts ends the process (and a failpoint, which is a fault)', () => {
  const allowed = ['src/main.ts', 'src/base/failpoint.ts'];
  const found = source
    .filter((file) => !allowed.includes(file.path))
    .flatMap((file) => placesOf(file, codeOnly(file.text), /\bprocess\.(exit|abort|reallyExit)\b/g));
  assert.deepEqual(found, []);
});

test('only src/config/environment.ts reads the environment', () => {
  const found = source
    .filter((file) => file.path !== 'src/config/environment.ts')
    .flatMap((file) => placesOf(file, codeOnly(file.text), /\bprocess\.env\b/g));
  assert.deepEqual(found, []);
});

test('[R28] cores have no clock, timer, randomness, IO, promise or locale of their own', () => {
  const ambient =
    /\b(Date|performance|setTimeout|setInterval|setImmediate|queueMicrotask|process|console|Promise|async|await|Intl|crypto|Math\.random|toLocale\w+|localeCompare)\b/g;
  const found = source
    .filter((file) => CORES.test(file.path))
    .flatMap((file) => placesOf(file, codeOnly(file.text), ambient));
  assert.deepEqual(found, []);
});

test('waits on shared memory live in one file', () => {
  const allowed = ['src/shm/doorbell.ts', 'src/base/failpoint.ts'];
  const found = source
    .filter((file) => !allowed.includes(file.path))
    .flatMap((file) => placesOf(file, codeOnly(file.text), /\bAtomics\.(wait|waitAsync)\b/g));
  assert.deepEqual(found, []);
});

test('no error is swallowed: a catch block does something', () => {
  const found = all.flatMap((file) => placesOf(file, withoutComments(file.text), /\bcatch\s*(\([^)]*\)\s*)?\{\s*\}/g));
  assert.deepEqual(found, []);
});

test('no rule of the compiler is switched off, nor those of the linter that the house depends on', () => {
  const loophole = new RegExp(
    [
      '@ts-',
      '(ignore|expect-error|nocheck)',
      '|biome-ignore [^:]*',
      '(noExplicitAny|noNonNullAssertion|noEmptyBlock)',
    ].join(''),
    'g',
  );
  const found = all.flatMap((file) => placesOf(file, file.text, loophole));
  assert.deepEqual(found, []);
});

test('nothing is left to do in a comment: it is done, or an issue', () => {
  const pattern = new RegExp(`\\b(${['TO', 'DO|FIX', 'ME|XX', 'X'].join('')})\\b`, 'g');
  const found = all.flatMap((file) => placesOf(file, file.text, pattern));
  assert.deepEqual(found, []);
});

test('what all tests of a file need is there when the file is loaded: with --grep, Node runs `after` beside a `before` that nobody waits for', () => {
  const found = all
    .filter(({ path }) => path.endsWith('.test.ts'))
    .flatMap((file) => placesOf(file, codeOnly(file.text), /^before\(/gm));
  assert.deepEqual(found, []);
});

test('files have at most 700 lines, lines at most 150 columns unless a string makes them longer', (t) => {
  const long = all.filter((file) => file.text.split('\n').length > 701).map((file) => file.path);
  const wide = all
    .flatMap((file) => placesOf(file, file.text, /^.{151,}$/gm))
    .filter((place) => !/['"`/].{60}/.test(place));
  const over = all.flatMap((file) => placesOf(file, file.text, /^.{121,}$/gm)).length;
  t.diagnostic(`${over} lines are wider than 120 columns`);
  assert.deepEqual([...long, ...wide], []);
});

test('engines and launcher ask for the same Node', () => {
  const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { engines: { node: string } };
  assert.equal(manifest.engines.node, `>=${NODE_VERSION_MIN}`);
});

test('[F7] the lock file has no protobufjs or grpc-js with known flaws', () => {
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { version?: string }>;
  };
  const versions = (name: string): string[] =>
    Object.entries(lock.packages)
      .filter(([path]) => path.endsWith(`node_modules/${name}`))
      .map(([, entry]) => entry.version ?? '');
  assert.ok(versions('@grpc/grpc-js').length > 0);
  for (const version of versions('protobufjs')) {
    const [major, minor, patch] = version.split('.').map(Number) as [number, number, number];
    const isFixed =
      major > 8 ||
      (major === 8 && (minor > 0 || patch >= 2)) ||
      (major === 7 && (minor > 5 || (minor === 5 && patch >= 6)));
    assert.ok(isFixed, `protobufjs ${version}`);
  }
  for (const version of versions('@grpc/grpc-js')) {
    const [major, minor] = version.split('.').map(Number) as [number, number];
    assert.ok(major > 1 || (major === 1 && minor >= 14), `@grpc/grpc-js ${version}`);
  }
});

test('the lock file is complete: optional packages of other platforms too, which npm ci asks for', () => {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { optionalDependencies?: Record<string, string> }>;
  };
  const missing = Object.values(packages)
    .flatMap(({ optionalDependencies }) => Object.keys(optionalDependencies ?? {}))
    .filter((name) => !Object.keys(packages).some((path) => path.endsWith(`node_modules/${name}`)));
  assert.deepEqual(missing, [], 'run `npm run lock`');
});

test('the lock file names no host: it installs from any registry', () => {
  assert.doesNotMatch(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'), /"resolved": "http/);
});

test('the rules look at code, not at comments or strings', () => {
  const file = {
    path: 'src/x/y.ts',
    text: "// let a\nimport { type B } from '../base/b.ts';\nimport {\n  c,\n} from './c.ts';\n/* process.exit */ const d = 'process.exit';\nlet e;",
  };
  assert.deepEqual(importsOf(file), [
    { from: 'src/x/y.ts', target: 'src/base/b.ts', isTypeOnly: true },
    { from: 'src/x/y.ts', target: 'src/x/c.ts', isTypeOnly: false },
  ]);
  assert.deepEqual(placesOf(file, codeOnly(file.text), /^let .*/gm), ['src/x/y.ts:7: let e;']);
  assert.deepEqual(placesOf(file, codeOnly(file.text), /process/g), []);
  assert.ok(source.length > 20, 'the source tree was found');
});

test('package.json decides about every package with an install script, so that npm need not ask; what no longer has one is not named', () => {
  const read = (file: string): unknown => JSON.parse(readFileSync(join(ROOT, file), 'utf8'));
  const { allowScripts } = read('package.json') as { allowScripts: Record<string, boolean> };
  const { packages } = read('package-lock.json') as { packages: Record<string, { hasInstallScript?: boolean }> };
  const scripted = Object.entries(packages)
    .filter(([, entry]) => entry.hasInstallScript === true)
    .map(([path]) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length));
  assert.deepEqual(Object.keys(allowScripts).toSorted(), [...new Set(scripted)].toSorted());
});

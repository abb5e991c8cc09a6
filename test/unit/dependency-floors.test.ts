/** docs/dependencies.md against what is installed, what runs, and what the image and the launcher ask for. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isVersionAtLeast, NODE_VERSION_MIN } from '../../bin/node24.mjs';
import { ROOT } from '../support/source-tree.ts';
import { temporaryFolder } from '../support/temporary.ts';

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const major = (version: string): number => Number.parseInt(version, 10);

/** Package to its floors. */
const FLOORS = new Map(
  [...read('docs/dependencies.md').matchAll(/^\| ([@\w./-]+) \| ([\d., ]+) \| .+ \|$/gm)].map(
    ([, name = '', versions = '']) => [name, versions.split(', ')] as const,
  ),
);

function isHigh(version: string, floors: readonly string[]): boolean {
  const own = floors.filter((floor) => major(floor) === major(version));
  if (own.length > 0) return own.every((floor) => isVersionAtLeast(version, floor));
  return floors.every((floor) => isVersionAtLeast(version, floor));
}

interface Lock {
  readonly packages: Readonly<Record<string, { readonly version?: string }>>;
}

/** Every copy of a package in the lock file. */
function locked(): { readonly name: string; readonly version: string }[] {
  const { packages } = JSON.parse(read('package-lock.json')) as Lock;
  return Object.entries(packages).flatMap(([path, { version }]) => {
    const at = path.lastIndexOf('node_modules/');
    return at < 0 || version === undefined ? [] : [{ name: path.slice(at + 'node_modules/'.length), version }];
  });
}

for (const [version, floors, expected] of [
  ['7.5.6', ['7.5.6', '8.0.2'], true],
  ['7.5.5', ['7.5.6', '8.0.2'], false],
  ['8.0.1', ['7.5.6', '8.0.2'], false],
  ['9.0.0', ['7.5.6', '8.0.2'], true],
  ['6.11.4', ['7.5.6', '8.0.2'], false],
  ['10.4.0', ['10.3.0'], true],
] as const) {
  test(`${version} is ${expected ? 'not ' : ''}below the floors ${floors.join(' and ')}`, () => {
    assert.equal(isHigh(version, floors), expected);
  });
}

test('[F6, F7, F8] no copy of a package in the lock file is below its floor, and every floor is of a package that is there', () => {
  const copies = locked();
  assert.ok(FLOORS.size > 10, `${FLOORS.size} floors were read`);
  for (const name of ['node', '@grpc/grpc-js', 'protobufjs']) assert.ok(FLOORS.has(name), name);
  const low = copies.filter(({ name, version }) => !isHigh(version, FLOORS.get(name) ?? []));
  assert.deepEqual(low, []);
  const names = new Set(copies.map(({ name }) => name));
  assert.deepEqual(
    [...FLOORS.keys()].filter((name) => name !== 'node' && !names.has(name)),
    [],
  );
});

test('grpc-js is pinned to the version whose private parts are used', () => {
  const { dependencies } = JSON.parse(read('package.json')) as { readonly dependencies: Record<string, string> };
  assert.match(dependencies['@grpc/grpc-js'] ?? '', /^\d+\.\d+\.\d+$/);
  assert.equal(locked().filter(({ name }) => name === '@grpc/grpc-js').length, 1);
});

test('[F8] Node: what runs the tests, engines, the launcher, the packages that bring one along, and the image are not below the floor', () => {
  const [floor = ''] = FLOORS.get('node') ?? [];
  assert.equal(NODE_VERSION_MIN, floor);
  assert.ok(isVersionAtLeast(process.versions.node, floor), process.version);
  const { engines } = JSON.parse(read('package.json')) as { readonly engines: { readonly node: string } };
  assert.equal(engines.node, `>=${floor}`);
  const brought = locked().filter(({ name }) => /^node-(linux|darwin|win)-/.test(name));
  assert.ok(brought.length > 0);
  for (const { name, version } of brought) assert.ok(isVersionAtLeast(version, floor), `${name} ${version}`);
  const dockerfile = read('Dockerfile');
  const [, tag = ''] = /^ARG NODE_IMAGE=node:(\d+)/m.exec(dockerfile) ?? [];
  assert.ok(Number(tag) >= major(floor), dockerfile);
  // A tag moves, and another base can be named: npm itself refuses one that is below `engines`.
  assert.match(dockerfile, /^ENV .*npm_config_engine_strict=true/m);
});

/** A broker's launcher that finds itself on a Node of this version, with none brought along. `folder`: where it would keep its data. */
function launchedOn(version: string, folder: string) {
  const pretend = `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '${version}' } });
    Object.defineProperty(process, 'platform', { value: 'aix' });`;
  const preload = `data:text/javascript,${encodeURIComponent(pretend)}`;
  return spawnSync(process.execPath, ['--import', preload, join(ROOT, 'bin', 'broker.mjs'), 'serve'], {
    cwd: folder,
    encoding: 'utf8',
    env: { PATH: process.env.PATH },
  });
}

test('[F8] bin/broker.mjs refuses an older Node where there is no other, in one sentence that says what to do', (t) => {
  const folder = temporaryFolder(t);
  for (const version of ['20.20.2', '24.20.9']) {
    const { status, stdout, stderr } = launchedOn(version, folder);
    assert.equal(status, 1, stderr);
    assert.equal(stdout, '');
    assert.match(
      stderr,
      new RegExp(`^broker: needs Node >= ${NODE_VERSION_MIN}, this is ${version}: install it, or .+\\n$`),
    );
  }
  assert.deepEqual(readdirSync(folder), []);
});

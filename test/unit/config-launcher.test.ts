import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isVersionAtLeast } from '../../bin/node24.mjs';
import { ROOT } from '../support/source-tree.ts';

const NODE24 = join(ROOT, 'bin/node24.mjs');
const BROKER = join(ROOT, 'bin/broker.mjs');

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'broker-launcher-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/** An environment without what the launcher sets, so that it has to. */
function bareEnvironment(extra: Record<string, string> = {}): NodeJS.ProcessEnv {
  const { UV_THREADPOOL_SIZE: _, NODE_TEST_CONTEXT: __, ...rest } = process.env;
  return { ...rest, ...extra };
}

/** A Node older than ours, if the machine has one on its PATH behind ours. */
function olderNode(): string | null {
  for (const entry of (process.env.PATH ?? '').split(delimiter)) {
    const candidate = join(entry, 'node');
    if (entry === dirname(process.execPath) || !existsSync(candidate)) continue;
    const version = spawnSync(candidate, ['-p', 'process.versions.node'], { encoding: 'utf8' }).stdout.trim();
    if (version !== '' && !isVersionAtLeast(version, '22.15.0') && isVersionAtLeast(version, '18.0.0'))
      return candidate;
  }
  return null;
}

/** Preloaded: takes away what lets newer Nodes replace their own process, so that the launcher starts a child as it must on older ones. */
const NO_EXECVE = ['--import', 'data:text/javascript,process.execve=undefined'];

interface Starter {
  readonly name: string;
  readonly node: string;
  readonly flags: readonly string[];
}

const older = olderNode();
const starters: readonly Starter[] = [
  { name: 'the right Node', node: process.execPath, flags: [] },
  { name: 'a Node that cannot replace its process', node: process.execPath, flags: NO_EXECVE },
  // A bonus where there is one: `npm test` itself comes through the launcher, so an older Node never goes untested where it matters.
  ...(older === null ? [] : [{ name: 'an older Node', node: older, flags: [] }]),
];

for (const { name, node, flags } of starters) {
  test(`the launcher on ${name} passes arguments, environment, exit code and signals`, async (t) => {
    const script = join(folder(t), 'script.mts');
    writeFileSync(
      script,
      `const what: string = process.argv[2] ?? '';
       if (what === 'wait') { process.on('SIGTERM', () => process.exit(9)); setInterval(() => undefined, 1_000); }
       if (what === 'die') process.kill(process.pid, 'SIGKILL');
       console.log(JSON.stringify([process.versions.node, process.env.UV_THREADPOOL_SIZE, process.env.PATH, process.argv.slice(2)]));
       if (what === 'code') process.exitCode = 7;`,
    );
    const environment = bareEnvironment();
    const first = spawnSync(node, [...flags, NODE24, script, 'code', 'a b'], { encoding: 'utf8', env: environment });
    const [version, threads, path, argv] = JSON.parse(first.stdout) as [string, string, string, string[]];
    assert.equal(first.stderr, '');
    assert.equal(first.status, 7);
    assert.equal(version, process.versions.node);
    assert.equal(threads, '8');
    assert.equal(path.split(delimiter)[0], dirname(process.execPath));
    assert.deepEqual(argv, ['code', 'a b']);

    const kept = spawnSync(node, [...flags, NODE24, script], {
      encoding: 'utf8',
      env: bareEnvironment({ UV_THREADPOOL_SIZE: '5' }),
    });
    assert.equal((JSON.parse(kept.stdout) as string[])[1], '5');

    assert.equal(spawnSync(node, [...flags, NODE24, script, 'die'], { env: environment }).signal, 'SIGKILL');

    const waiting = spawn(node, [...flags, NODE24, script, 'wait'], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: environment,
    });
    await once(waiting.stdout, 'data');
    waiting.kill('SIGTERM');
    assert.deepEqual(await once(waiting, 'exit'), [9, null]);
  });

  test(`a wrong configuration on ${name}: exit code 2, one line, no file and no folder`, (t) => {
    const cwd = folder(t);
    const result = spawnSync(node, [...flags, BROKER, 'serve', '--limits-body-bytes', '10MB'], {
      encoding: 'utf8',
      cwd,
      env: bareEnvironment(),
    });
    assert.equal(result.status, 2);
    assert.equal(result.stdout, '');
    assert.match(
      result.stderr,
      /^broker: limits\.body_bytes "10MB" \(--limits-body-bytes\): must be [^\n]*; did you mean 10MiB\?\n$/,
    );
    assert.deepEqual(readdirSync(cwd), []);
  });
}

test('a child of the launcher stops when the launcher is killed', async (t) => {
  const script = join(folder(t), 'script.mts');
  const launcher = JSON.stringify(NODE24);
  writeFileSync(
    script,
    `const { stopWithLauncher } = await import(${launcher});
     stopWithLauncher();
     setInterval(() => undefined, 1_000);
     console.log('up');`,
  );
  const parent = spawn(process.execPath, [...NO_EXECVE, NODE24, script], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: bareEnvironment(),
  });
  await once(parent.stdout, 'data');
  parent.kill('SIGKILL');
  // The pipe ends only when its last holder, the child, is gone.
  parent.stdout.resume();
  await once(parent.stdout, 'end');
});

for (const [version, minimum, expected] of [
  ['24.21.0', '24.21.0', true],
  ['24.20.9', '24.21.0', false],
  ['25.0.0', '24.21.0', true],
  ['9.99.99', '24.21.0', false],
  ['24.21.1-nightly', '24.21.0', true],
] as const) {
  test(`Node ${version} is ${expected ? 'new enough' : 'too old'} where ${minimum} is needed`, () => {
    assert.equal(isVersionAtLeast(version, minimum), expected);
  });
}

test('what Node makes of the sources is kept for later starts where that can be written, and nowhere else', (t) => {
  const kept = folder(t);
  const version = (cache: string): ReturnType<typeof spawnSync> =>
    spawnSync(process.execPath, [BROKER, '--version'], { env: bareEnvironment({ NODE_COMPILE_CACHE: cache }) });
  assert.equal(version(kept).status, 0);
  assert.ok(readdirSync(kept).length > 0);
  const blocked = join(folder(t), 'file');
  writeFileSync(blocked, '');
  const { status, stderr } = version(join(blocked, 'below'));
  assert.equal(status, 0, String(stderr));
  assert.equal(String(stderr), '');
});

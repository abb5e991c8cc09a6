/** Whose data directory it is, and that only one process has it. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { armFailpoints } from '../../src/base/failpoint.ts';
import { openDataDirectory, readNodeIdentity } from '../../src/storage/data-directory.ts';
import { NodeDisk } from '../../src/storage/disk.ts';
import { temporaryFolder } from '../support/temporary.ts';

const OPTIONS = { clusterName: 'c', nodeId: 'n1', now: 1_700_000_000_000 };
const disk = new NodeDisk();

function code(path: string, options: Partial<typeof OPTIONS & { clusterId: string }> = {}): string {
  try {
    openDataDirectory(disk, path, { ...OPTIONS, ...options }).close();
    return 'opened';
  } catch (error) {
    assert.equal((error as Error).name, 'StartError');
    assert.ok((error as Error).message.includes(path), (error as Error).message);
    return (error as { code: string }).code;
  }
}

test('a new directory gets an identity that stays, with 128 random bits for the instance', (t) => {
  const path = join(temporaryFolder(t), 'deep', 'data');
  const first = openDataDirectory(disk, path, OPTIONS);
  assert.equal(first.created, true);
  assert.match(first.node.instanceId, /^[0-9a-f]{32}$/);
  assert.equal(first.node.createdAt, '2023-11-14T22:13:20.000Z');
  assert.equal(first.raftPath, join(path, 'raft'));
  first.close();
  const second = openDataDirectory(disk, path, OPTIONS);
  assert.equal(second.created, false);
  assert.deepEqual(second.node, first.node);
  second.close();
  assert.deepEqual(readNodeIdentity(disk, path), first.node);
  assert.notEqual(openDataDirectory(disk, `${path}2`, OPTIONS).node.instanceId, first.node.instanceId);
});

test('a directory that is not ours is refused and not touched; an empty one and a fresh file system are fine', (t) => {
  const folder = temporaryFolder(t);
  const foreign = join(folder, 'foreign');
  mkdirSync(foreign);
  writeFileSync(join(foreign, 'thesis.doc'), 'x');
  assert.equal(code(foreign), 'DATA_DIRECTORY_FOREIGN');
  assert.deepEqual(readdirSync(foreign), ['thesis.doc']);
  mkdirSync(join(folder, 'fresh', 'lost+found'), { recursive: true });
  assert.equal(code(join(folder, 'fresh')), 'opened');
  mkdirSync(join(folder, 'empty'));
  assert.equal(code(join(folder, 'empty')), 'opened');
  writeFileSync(join(folder, 'file'), '');
  assert.equal(code(join(folder, 'file')), 'DATA_DIRECTORY_UNUSABLE');
});

test('another cluster, node or cluster id, an unknown layout and a damaged node.json are refused by name', (t) => {
  const path = join(temporaryFolder(t), 'data');
  assert.equal(code(path, { clusterId: 'k1' }), 'opened');
  assert.equal(code(path), 'opened');
  assert.equal(code(path, { clusterName: 'other' }), 'DATA_DIRECTORY_MISMATCH');
  assert.equal(code(path, { nodeId: 'n2' }), 'DATA_DIRECTORY_MISMATCH');
  assert.equal(code(path, { clusterId: 'k2' }), 'DATA_DIRECTORY_MISMATCH');
  const file = join(path, 'node.json');
  const good = readFileSync(file, 'utf8');
  writeFileSync(file, good.replace('"version": 1', '"version": 2'));
  assert.equal(code(path), 'DATA_DIRECTORY_VERSION');
  for (const bad of [
    '',
    '[]',
    'null',
    '{',
    good.slice(0, -3),
    good.replace(/[0-9a-f]{32}/, 'short'),
    ' '.repeat(70_000),
  ]) {
    writeFileSync(file, bad);
    assert.equal(code(path), 'DATA_DIRECTORY_UNUSABLE', bad.slice(0, 20));
    assert.equal(readFileSync(file, 'utf8'), bad);
  }
});

for (const site of [
  'disk.mkdir',
  'disk.create',
  'node-file.write',
  'node-file.sync',
  'data-directory.node-written',
  'disk.rename',
  'disk.renamed',
]) {
  test(`a first start that is cut off at ${site} can be repeated`, (t) => {
    const path = join(temporaryFolder(t), 'data');
    armFailpoints(`${site}=throw`);
    assert.equal(code(path), 'DATA_DIRECTORY_UNUSABLE');
    armFailpoints('');
    assert.equal(code(path), 'opened');
  });
}

/** Holds the directory until it is killed, or says why it cannot. */
const HOLDER = `
const { openDataDirectory } = await import(process.argv[1]);
const { NodeDisk } = await import(process.argv[2]);
try {
  globalThis.held = openDataDirectory(new NodeDisk(), process.argv[3], ${JSON.stringify(OPTIONS)});
  process.stdout.write('held\\n');
  setInterval(() => undefined, 1000);
} catch (error) {
  process.stdout.write(error.code + ' ' + error.message + '\\n');
  process.exit(3);
}
`;

async function hold(
  t: TestContext,
  path: string,
): Promise<{ child: ChildProcess; said: string; warned: () => string }> {
  const modules = ['data-directory.ts', 'disk.ts'].map(
    (name) => new URL(`../../src/storage/${name}`, import.meta.url).href,
  );
  const child = spawn(process.execPath, ['--input-type=module', '-e', HOLDER, ...modules, path], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.after(() => child.kill('SIGKILL'));
  let warned = '';
  child.stderr.on('data', (data) => {
    warned += String(data);
  });
  const [data] = (await once(child.stdout, 'data')) as [Buffer];
  return { child, said: String(data).trim(), warned: () => warned };
}

test('[R31] a second process is refused by name, and kill -9 of the first frees the directory at once', async (t) => {
  const path = join(temporaryFolder(t), 'data');
  const first = await hold(t, path);
  assert.equal(first.said, 'held');
  const second = await hold(t, path);
  assert.match(second.said, /^DATA_DIRECTORY_LOCKED the data directory .*data is in use by another process; stop/);
  assert.equal(code(path), 'DATA_DIRECTORY_LOCKED');
  if (second.child.exitCode === null) await once(second.child, 'exit');
  assert.equal(second.child.exitCode, 3);

  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  const third = await hold(t, path);
  assert.equal(third.said, 'held');
  assert.equal(third.warned(), '', 'no warning of an experimental module');
  assert.ok(!existsSync(join(path, 'LOCK-journal')));
});

test('[R31] within one process a second opening is refused until the first is closed', (t) => {
  const path = join(temporaryFolder(t), 'data');
  const first = openDataDirectory(disk, path, OPTIONS);
  assert.equal(code(path), 'DATA_DIRECTORY_LOCKED');
  assert.equal(code(path), 'DATA_DIRECTORY_LOCKED');
  first.close();
  assert.equal(code(path), 'opened');
});

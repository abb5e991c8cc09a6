/** The file of the audit: its bound, its mode, and what it does where it cannot be written. On real files. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Redactor } from '../../src/base/redactor.ts';
import { AuditFile } from '../../src/workers/access/audit-file.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';

const MAX = 64 << 10;
const RETRY_MS = 10_000;

function open(t: TestContext, maxBytes = MAX, path = join(temporaryFolder(t), 'audit.log')) {
  const logged: string[] = [];
  const add = (message: string): void => void logged.push(message);
  const clock = { now: 0 };
  const log = { debug: assert.fail, info: add, warn: add, error: add };
  const file = new AuditFile({ path, maxBytes, redactor: new Redactor([]), log, now: () => clock.now });
  t.after(() => file.close());
  return { file, path, logged, clock };
}

const textOf = (path: string): string => (existsSync(path) ? readFileSync(path, 'utf8') : '');

function linesOf(path: string): Record<string, unknown>[] {
  const lines = textOf(path).split('\n');
  assert.equal(lines.pop(), '', 'its end is the end of a line');
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** Writes lines with numbers, from one to the other, and waits for the disk. */
async function write(file: AuditFile, path: string, from: number, to: number): Promise<void> {
  for (let i = from; i < to; i++) file.write({ n: i, x: 'x'.repeat(200) });
  await until(
    () => textOf(path).includes(`"n":${to - 1},`),
    () => textOf(path).slice(-500),
  );
}

const numbers = (path: string): unknown[] => linesOf(path).flatMap(({ n }) => (n === undefined ? [] : [n]));
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

test('a file and the one before it are never larger than the bound, with all of the newest lines, and keep their mode', async (t) => {
  const { file, path } = open(t);
  await write(file, path, 0, 1);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  chmodSync(path, 0o660);
  for (let i = 1; i < 1_000; i += 111) await write(file, path, i, i + 111);
  const [older, newer] = [numbers(`${path}.1`), numbers(path)];
  assert.deepEqual([...older, ...newer], range(Number(older[0]), 1_000));
  assert.ok(older.length > 100 && Number(older[0]) > 0, 'it was put aside more than once');
  for (const one of [path, `${path}.1`]) {
    assert.ok(statSync(one).size <= MAX, one);
    assert.equal(statSync(one).mode & 0o777, 0o660, one);
  }
  assert.equal(file.missing, 0);
});

test('a file that was there goes on at its end, on a line of its own, and what it has counts', async (t) => {
  const path = join(temporaryFolder(t), 'audit.log');
  writeFileSync(path, `${'{"old":1}\n'.repeat(6_500)}{"cut of`);
  const { file } = open(t, MAX, path);
  await write(file, path, 0, 10);
  assert.match(readFileSync(`${path}.1`, 'utf8'), /\{"cut of\n\{"time":/);
  assert.ok(statSync(`${path}.1`).size <= MAX);
});

test('without a bound it is not renamed', async (t) => {
  const { file, path } = open(t, 0);
  for (let i = 0; i < 1_000; i += 100) await write(file, path, i, i + 100);
  assert.deepEqual(numbers(path), range(0, 1_000));
  assert.equal(existsSync(`${path}.1`), false);
});

test('what others have moved away or cut is left as it is', async (t) => {
  const { file, path } = open(t);
  await write(file, path, 0, 100);
  renameSync(path, `${path}.1`);
  writeFileSync(path, '');
  // Into the file that was moved, until its size is reached: then into the one that has the name.
  for (let i = 100; i < 300; i++) file.write({ n: i, x: 'x'.repeat(200) });
  await until(
    () => textOf(path).includes('"n":299,'),
    () => textOf(path),
  );
  assert.deepEqual([...numbers(`${path}.1`), ...numbers(path)], range(0, 300));

  renameSync(path, `${path}.2`);
  file.reopen();
  await write(file, path, 300, 310);
  assert.deepEqual(numbers(path), range(300, 310));

  truncateSync(path);
  await write(file, path, 310, 560);
  assert.deepEqual(numbers(path), range(310, 560), 'it was counted with what was cut from it');
});

test('a disk that is full is told of once, ends nothing, and the file says what it lacks when there is space again', async (t) => {
  const path = join(temporaryFolder(t), 'audit.log');
  symlinkSync('/dev/full', path);
  const { file, logged, clock } = open(t, MAX, path);
  file.write({ n: 0 });
  await until(
    () => file.missing === 1,
    () => file.missing,
  );
  for (let i = 1; i < 10; i++) file.write({ n: i });
  assert.equal(file.missing, 10);
  clock.now += RETRY_MS;
  file.write({ n: 10 });
  await until(
    () => file.missing === 11,
    () => file.missing,
  );
  assert.match(logged.join('|'), /^the audit file cannot be written; [^|]*$/, 'one line');
  rmSync(path);
  clock.now += RETRY_MS;
  await write(file, path, 11, 12);
  await write(file, path, 12, 13);
  assert.deepEqual(
    linesOf(path).map(({ n, missing }) => n ?? { missing }),
    [{ missing: 11 }, 11, 12],
  );
  assert.equal(file.missing, 11);
  assert.match(logged.join('|'), /\|the audit file is written again$/);
});

test('a folder that is not there, and a name that cannot be had for the older one, are no end either', async (t) => {
  const folder = join(temporaryFolder(t), 'later');
  const { file, path, logged, clock } = open(t, MAX, join(folder, 'audit.log'));
  file.write({ n: -1 });
  await until(
    () => file.missing === 1,
    () => file.missing,
  );
  mkdirSync(join(folder, 'audit.log.1', 'full'), { recursive: true });
  clock.now += RETRY_MS;
  await write(file, path, 0, 200);
  for (let i = 200; i < 300; i++) file.write({ n: i, x: 'x'.repeat(200) });
  assert.ok(file.missing > 1, 'it has its largest size');
  const missing = file.missing - 1;
  assert.match(logged.join('|'), /written again\|the audit file has its largest size and cannot be renamed/);
  await until(
    () => numbers(path).length === 300 - missing,
    () => numbers(path).length,
  );
  assert.ok(statSync(path).size <= MAX);
  rmdirSync(join(folder, 'audit.log.1', 'full'));
  rmdirSync(join(folder, 'audit.log.1'));
  clock.now += RETRY_MS;
  await write(file, path, 300, 301);
  assert.equal(linesOf(path)[0]?.missing, missing);
});

test('a pipe without a reader holds nothing: it is told of, and has the lines from when somebody reads it', async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'pipe');
  assert.equal(spawnSync('mkfifo', [path]).status, 0);
  const { file, logged, clock } = open(t, MAX, path);
  file.write({ n: 1 });
  await until(
    () => logged.length > 0,
    () => 'nothing was told',
    10_000,
  );
  assert.match(String(logged), /cannot be written/);
  file.write({ n: 2 });
  assert.equal(file.missing, 2);
  const out = join(folder, 'out');
  const reader = spawn('sh', ['-c', `cat '${path}' > '${out}'`]);
  t.after(() => reader.kill());
  let tries = 0;
  await until(
    () => {
      clock.now += RETRY_MS;
      file.write({ n: 3 });
      tries += 1;
      return textOf(out).includes('"n":3');
    },
    () => logged,
  );
  await file.close();
  await once(reader, 'exit');
  const [first, ...rest] = linesOf(out);
  assert.equal(Number(first?.missing) + rest.length, 2 + tries);
  assert.ok(rest.every(({ n }) => n === 3));
});

test('a process whose audit goes into a pipe that nobody reads can end', (t) => {
  const path = join(temporaryFolder(t), 'pipe');
  assert.equal(spawnSync('mkfifo', [path]).status, 0);
  const of = (module: string): string => new URL(`../../src/${module}`, import.meta.url).href;
  const code = `import { AuditFile } from '${of('workers/access/audit-file.ts')}';
    import { Redactor } from '${of('base/redactor.ts')}';
    const log = { error: (message) => process.stdout.write(message) };
    const file = new AuditFile({ path: ${JSON.stringify(path)}, maxBytes: 0, redactor: new Redactor([]), log });
    file.write({ n: 1 });
    await file.close();
    process.exit(0);`;
  const options = { encoding: 'utf8', timeout: 30_000, killSignal: 'SIGKILL' } as const;
  const ended = spawnSync(process.execPath, ['--input-type=module', '-e', code], options);
  assert.equal(ended.status, 0, ended.stderr);
});

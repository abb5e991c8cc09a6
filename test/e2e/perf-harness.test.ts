/** The perf harness as a person runs it, on a real broker. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Report } from '../../perf/lib/report.ts';

const SCRIPT = fileURLToPath(new URL('../../perf/run.ts', import.meta.url));
const SHORT = [
  '--rounds',
  '1',
  '--duration',
  '1',
  '--warmup',
  '0.3',
  '--streams',
  '2',
  '--connections',
  '1',
  '--frame',
  '16',
];

interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function perf(...args: readonly string[]): Promise<Ran> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [SCRIPT, ...args], (_, stdout, stderr) =>
      resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

describe('npm run perf', () => {
  const folder = mkdtempSync(join(tmpdir(), 'broker-perf-test-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('stream measures broker and yardstick, writes JSON, HTML and .hgrm, and exits 0 when its assertions hold', async () => {
    const json = join(folder, 'stream.json');
    const { code, stdout, stderr } = await perf(
      'stream',
      ...SHORT,
      '--json',
      json,
      '--assert',
      'rate>1',
      '--assert',
      'errors==0',
    );
    assert.equal(code, 0, stdout + stderr);
    const report = JSON.parse(readFileSync(json, 'utf8')) as Report;
    const figure = (key: string) => report.figures.find((one) => one.key === key);
    assert.ok((figure('rate')?.subject.median ?? 0) > 0 && (figure('rate')?.baseline?.median ?? 0) > 0);
    assert.ok((figure('half-p99')?.subject.median ?? 0) > 0);
    assert.equal(figure('errors')?.subject.max, 0);
    assert.match(readFileSync(join(folder, 'stream.html'), 'utf8'), /<svg/);
    assert.ok(existsSync(join(folder, 'stream.broker.hgrm')));
    const same = await perf('compare', json, json);
    assert.equal(same.code, 0);
    assert.match(same.stdout, /messages \[1\/s\] .* 1\.00 +within the spread/);
  });

  it('an open loop whose assertion does not hold exits 3, with the figures on the way', async () => {
    const json = join(folder, 'slow.json');
    const { code, stdout } = await perf('stream', ...SHORT, '--rate', '1k,2k', '--json', json, '--assert', 'rate>100M');
    assert.equal(code, 3, stdout);
    assert.match(stdout, /FAILS: rate>100M/);
  });

  it('resize changes the shards under load, finds no error, and says how long clients waited', async () => {
    const json = join(folder, 'resize.json');
    const args = ['--rate', '2k', '--duration', '4', '--json', json, '--assert', 'errors==0'];
    const { code, stdout, stderr } = await perf('resize', ...SHORT, ...args);
    assert.equal(code, 0, stdout + stderr);
    const report = JSON.parse(readFileSync(json, 'utf8')) as Report;
    for (const key of ['resize-p99', 'pause', 'held', 'took']) {
      assert.ok((report.figures.find((one) => one.key === key)?.subject.median ?? 0) > 0, key);
    }
  });

  it('wrong usage exits 2 before anything runs; help exits 0', async () => {
    for (const args of [
      ['nosuch'],
      ['stream', '--assert', 'p99'],
      ['stream', '--rate', 'fast'],
      ['compare', 'a.json'],
      ['fanout', '--find-max', '20ms'],
      ['fanout', '--rate', '1k'],
      ['fanout-batches', '--rate', '1k'],
      ['replay', '--rate', '1k'],
      ['unary', 'replay', '--rate', '1k'],
      ['peers', 'nosuch'],
    ]) {
      const { code, stderr } = await perf(...args);
      assert.equal(code, 2, `${args.join(' ')}: ${stderr}`);
    }
    assert.match((await perf()).stdout, /overload/);
    assert.match((await perf('stream', '--help')).stdout, /--find-max 20ms/);
  });
});

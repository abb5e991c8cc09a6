/** The scenarios of clusters as a person runs them, as short as they go. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Report } from '../../perf/lib/report.ts';

const SCRIPT = fileURLToPath(new URL('../../perf/run.ts', import.meta.url));
const SHORT = ['--rounds', '1', '--duration', '0.5', '--warmup', '0.2'];

describe('npm run perf, clusters', { timeout: 440_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'broker-perf-test-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** The report of a scenario that must end well. */
  function perf(name: string, ...args: readonly string[]): Promise<(key: string) => number> {
    const json = join(folder, `${name}.json`);
    return new Promise((resolve, reject) => {
      const child = execFile(process.execPath, [SCRIPT, name, '--json', json, ...args], (_, stdout, stderr) => {
        if (child.exitCode !== 0) {
          reject(new Error(`${name} ended with code ${child.exitCode}\n${stdout}${stderr}`));
          return;
        }
        const { figures } = JSON.parse(readFileSync(json, 'utf8')) as Report;
        resolve(
          (key) => figures.find((figure) => figure.key === key)?.subject.median ?? assert.fail(`no figure ${key}`),
        );
      });
    });
  }

  it('cluster publishes through three nodes beside a lone one', async () => {
    const args = ['--frame', '16', '--in-flight', '30', '--assert', 'unary-errors==0', '--assert', 'streams-errors==0'];
    const figure = await perf('cluster', ...SHORT, ...args);
    assert.ok(figure('unary') > 0 && figure('streams') > 0);
  });

  it('allotments are applied on three Raft nodes alike', async () => {
    const figure = await perf('allotments', ...SHORT, '--in-flight', '30', '--subjects', '10');
    assert.ok(figure('rate') > 0 && figure('per-entry') > 1 && figure('syncs') > 0);
  });

  it('failover kills, hands over and restarts, and finds nothing lost or doubled', async () => {
    const asserted = ['lost==0', 'doubled==0', 'restart-errors==0'].flatMap((text) => ['--assert', text]);
    // A handover has one election timeout for some syncs of a disk that others use too.
    const figure = await perf('failover', '--kills', '1', ...asserted, '--', '--raft-election-timeout', '2s');
    for (const key of ['write-max', 'delivery-max', 'delivery-leader-max', 'transfer-max', 'acknowledged']) {
      assert.ok(figure(key) > 0, key);
    }
  });

  it('elections counts the terms under full load', async () => {
    const figure = await perf('elections', ...SHORT, '--frame', '16', '--in-flight', '30');
    assert.ok(figure('unary') > 0 && figure('streams') > 0 && figure('terms') >= 0);
  });
});

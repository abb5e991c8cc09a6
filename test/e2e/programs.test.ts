/** The programs of `npm run`, where they meet the shell. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { cassandraMissing } from '../servers/cassandra.ts';
import { EXIT_READER_GONE } from '../support/reader-gone.ts';
import { ROOT } from '../support/source-tree.ts';

const options = { cwd: ROOT, encoding: 'utf8', timeout: 240_000 } as const;

describe('a program whose reader goes away (| head -1)', () => {
  const rows = [
    { args: ['demo/run.ts', '--help'], code: EXIT_READER_GONE },
    { args: ['demo/cluster.ts', '--help'], code: EXIT_READER_GONE },
    { args: ['perf/run.ts', '--help'], code: EXIT_READER_GONE },
    { args: ['test/faults/run.ts', '--help'], code: EXIT_READER_GONE },
    { args: ['test/sim/run.ts', '--seeds', '1'], code: EXIT_READER_GONE },
    { args: ['test/run.ts', '--help'], code: EXIT_READER_GONE },
    // Its commands have no verdict to give: they were told to stop.
    { args: ['bin/broker.mjs', '--help'], code: 0 },
    { args: ['bin/broker.mjs', 'serve', '--help'], code: 0 },
  ];
  for (const { args, code } of rows) {
    it(`${args.join(' ')}: ends with code ${code}, without a word`, async () => {
      const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
      child.stdout.destroy();
      let said = '';
      child.stderr.setEncoding('utf8').on('data', (piece: string) => {
        said += piece;
      });
      assert.deepEqual([...(await once(child, 'close')), said], [code, null, '']);
    });
  }
});

describe('npm run demo', () => {
  for (const store of ['embedded', 'postgres', 'cassandra']) {
    it(`${store}: a kill and two changes of the number of shards under load lose nothing`, {
      timeout: 240_000,
      skip: (store === 'cassandra' && cassandraMissing()) || false,
    }, async () => {
      const args = ['demo/run.ts', '--store', store, '--records', '8000', '--producers', '16', '-o', 'json'];
      const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
      const [out, said] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
      assert.equal(child.exitCode, 0, said);
      const outcome = JSON.parse(out);
      assert.deepEqual(outcome.verdict.violations, []);
      assert.deepEqual([outcome.published, outcome.verdict.counts.acked], [8_000, 8_000]);
      assert.deepEqual(
        outcome.resizes.map(({ shards }: { shards: number }) => shards),
        [4, 2],
      );
      assert.match(said, /a broker at 127\.0\.0\.1:\d+/);
    });
  }
});

describe('npm run cluster', () => {
  it('three nodes on PostgreSQL: a rolling restart and a kill of the leader under load lose nothing', {
    timeout: 180_000,
  }, async () => {
    const args = ['demo/cluster.ts', '--seconds', '1', '--light', '-o', 'json'];
    const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    const [out, said] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
    assert.equal(child.exitCode, 0, said);
    const outcome = JSON.parse(out);
    assert.deepEqual(outcome.verdict.violations, []);
    assert.deepEqual(
      outcome.members.map(({ node, role }: { node: string; role: string }) => [node, role]),
      [
        ['n1', 'voter'],
        ['n2', 'voter'],
        ['n3', 'voter'],
      ],
    );
    assert.notEqual(outcome.leaderThen, outcome.killed);
    assert.deepEqual(outcome.refusedForEver, []);
    assert.ok(outcome.acked > 300, 'the load was no load');
  });
});

describe('a command whose output goes to a full disk', () => {
  for (const command of ['config print', 'publish --help']) {
    it(`${command}: says that the output could not be written, and ends with code 1`, () => {
      const script = `"$0" bin/broker.mjs ${command} > /dev/full`;
      const { status, stderr } = spawnSync('sh', ['-c', script, process.execPath], options);
      assert.match(stderr, /^broker: the output could not be written: ENOSPC[^\n]*\n$/);
      assert.equal(status, 1);
    });
  }
});

describe('a program with an option that it does not know', () => {
  for (const program of [
    'demo/run.ts',
    'demo/cluster.ts',
    'perf/run.ts',
    'test/faults/run.ts',
    'test/sim/run.ts',
    'test/run.ts',
  ]) {
    it(`${program} --nosuch: ends with code 2, names it, and shows no stack`, () => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [program, '--nosuch'], options);
      assert.deepEqual({ status, stdout }, { status: 2, stdout: '' }, stderr);
      assert.match(stderr, /^[^\n]*--nosuch[^\n]*\n([^\n]+\n)?$/);
    });
  }
});

describe('the help of a program', () => {
  for (const program of [
    'demo/run.ts',
    'demo/cluster.ts',
    'perf/run.ts',
    'test/faults/run.ts',
    'test/sim/run.ts',
    'test/run.ts',
  ]) {
    it(`${program} --help: ends with code 0 and says how it is used`, () => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [program, '--help'], options);
      assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
      assert.match(stdout, /^usage: npm (run|test)/);
    });
  }
});

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

  it('its shards are changed by `broker shards` from another terminal, as its help says, and nothing is lost', {
    timeout: 240_000,
  }, async () => {
    // Few producers for a time, so that the load goes on under every command; a broker that is killed begins with the number of its configuration.
    const length = ['--records', '220000', '--seconds', '20', '--producers', '2'];
    const args = ['demo/run.ts', '--no-kill', '--resize', 'none', ...length, '-o', 'json'];
    const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    const [closed, printed] = [once(child, 'close'), text(child.stdout)];
    const address = Promise.withResolvers<string>();
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (piece: string) => {
      said += piece;
      const found = /a broker at (\S+)\n/.exec(said)?.[1];
      if (found !== undefined) address.resolve(found);
    });
    void closed.then(() => address.reject(new Error(said)));
    const broker = ['--address', await address.promise];
    /** The objects that it prints, one a line. */
    const shards = async (...words: readonly string[]) => {
      const command = ['bin/broker.mjs', 'shards', ...words, ...broker, '-o', 'json'];
      const run = spawn(process.execPath, command, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
      const [out, complaint] = await Promise.all([text(run.stdout), text(run.stderr), once(run, 'close')]);
      assert.equal(run.exitCode, 0, `broker shards ${words.join(' ')}: ${complaint}`);
      return out
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
    };
    const [grown] = await shards('resize', '4');
    assert.deepEqual([grown.change, grown.running], ['1 -> 4 shards', false]);
    assert.equal((await shards('list')).length, 4);
    const [moved] = await shards('move', '7', '3');
    assert.equal(moved.change, 'slot 7 -> shard 3');
    await shards('resize', '2');
    assert.equal((await shards('list')).length, 2);
    assert.equal(child.exitCode, null, 'the load was over before the commands were');
    await closed;
    assert.equal(child.exitCode, 0, said);
    const { verdict, published } = JSON.parse(await printed);
    assert.deepEqual(verdict.violations, []);
    assert.equal(verdict.counts.acked, published);
  });
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

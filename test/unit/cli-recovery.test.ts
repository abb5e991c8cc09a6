/** `broker cluster recover`, `backup` and `restore` on the command line. */
import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { EXIT } from '../../src/cli/failure.ts';
import { type RunOptions, run } from '../../src/cli/run.ts';
import type { RecoverySummary } from '../../src/recovery/types.ts';

const refused = async () => ({ kind: 'refused', message: 'no recovery here', next: 'try elsewhere' }) as const;

async function broker(argv: readonly string[], options: Pick<Partial<RunOptions>, 'recovery'> = {}) {
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const said = { out: '', err: '' };
  stdout.on('data', (text) => {
    said.out += text;
  });
  stderr.on('data', (text) => {
    said.err += text;
  });
  const unused = (): never => assert.fail('these commands need nothing else');
  const code = await run(argv, {
    environment: {},
    stdin,
    stdout,
    stderr,
    serve: unused,
    copyStore: unused,
    connect: unused,
    recovery: { recover: refused, restore: refused, backup: refused, verify: refused },
    ...options,
  });
  return { code, ...said };
}

const RECOVERED: RecoverySummary = {
  store: 'embedded',
  done: true,
  nodeId: 'a',
  clusterName: 'broker',
  clusterBefore: 'old',
  cluster: 'new',
  nodesFenced: 0,
  subjects: 2,
  subjectsOfLog: 0,
  idsBeyondStore: 0,
  largestHead: 10,
  largestSubject: 's',
  largestTenant: '',
  gap: 1_048_576,
  floor: 1_048_586,
  logTime: 0,
  producersForgotten: null,
  discarded: null,
  warnings: ['the clock is wrong'],
};

test('cluster recover and restore: a plan ends with exit code 2 and says what to add; done, it says what is forgotten', async () => {
  const requests: unknown[] = [];
  const answer = (done: boolean) => async (request: { apply: boolean; floor: number }) => {
    requests.push([request.apply, request.floor]);
    return { kind: 'done', summary: { ...RECOVERED, done } } as const;
  };
  const recovery = (done: boolean): RunOptions['recovery'] => ({
    recover: answer(done),
    restore: answer(done),
    backup: refused,
    verify: refused,
  });
  for (const argv of [
    ['cluster', 'recover'],
    ['restore', '--from', '/b'],
  ]) {
    const plan = await broker([...argv, '--data-dir', '/d', '-o', 'json'], { recovery: recovery(false) });
    assert.equal(plan.code, EXIT.usage);
    assert.match(plan.err, /the clock is wrong[\s\S]*nothing was changed[\s\S]*add --yes/);
    assert.deepEqual([JSON.parse(plan.out).done, JSON.parse(plan.out).floor], [false, 1_048_586]);
    const done = await broker([...argv, '--data-dir', '/d', '--yes', '--floor', '7'], { recovery: recovery(true) });
    assert.equal(done.code, EXIT.ok);
    assert.match(done.out, /largest_subject +s\n/);
    assert.match(done.err, /producers are forgotten/);
    assert.deepEqual(requests.splice(0), [
      [false, 0],
      [true, 7],
    ]);
    const wrong = await broker([...argv, '--data-dir', '/d', '--floor', '1e3']);
    assert.equal(wrong.code, EXIT.usage);
    assert.match(wrong.err, /--floor 1e3: must be an id/);
    assert.match((await broker([...argv, '--data-dir', '/d'])).err, /no recovery here\n {2}try elsewhere/);
  }
});

test('backup passes the folder on, and says what belongs to it with a database', async () => {
  const summary = { to: '/b', files: 1, bytes: 10, subjects: 1, producers: 0, logIndex: 5, logTime: 0 };
  for (const store of ['embedded', 'postgres'] as const) {
    const backup: RunOptions['recovery']['backup'] = async ({ to, config }) => {
      assert.deepEqual([to, config.dataDir], ['/b', '/d']);
      return { kind: 'done', summary: { ...summary, store } };
    };
    const recovery = { recover: refused, restore: refused, backup, verify: refused };
    const { code, out, err } = await broker(['backup', '--data-dir', '/d', '--to', '/b', '-o', 'json'], { recovery });
    assert.equal(code, EXIT.ok);
    assert.deepEqual([JSON.parse(out).store, JSON.parse(out).log_index], [store, 5]);
    assert.equal(/dump of it that was begun before/.test(err), store === 'postgres');
  }
  const missing = await broker(['backup', '--data-dir', '/d']);
  assert.equal(missing.code, EXIT.usage);
  assert.match(missing.err, /--to/);
});

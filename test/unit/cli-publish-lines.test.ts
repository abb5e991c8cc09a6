/** `broker publish --lines` on an input that takes its time. */
import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import type { Connection, PublishInput } from '../../src/cli/connection.ts';
import { CliError, EXIT } from '../../src/cli/failure.ts';
import { run } from '../../src/cli/run.ts';
import { until } from '../support/until.ts';

/** The command with its input open; `publish` answers in place of a broker. */
function publishLines(inFlight: number, publish: (input: PublishInput) => Promise<number>) {
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const said = { out: '', err: '' };
  stdout.on('data', (text) => {
    said.out += text;
  });
  stderr.on('data', (text) => {
    said.err += text;
  });
  const unused = (): never => assert.fail('publish needs nothing else');
  const ended = run(['publish', 's', '--lines', '--in-flight', String(inFlight)], {
    environment: {},
    stdin,
    stdout,
    stderr,
    serve: unused,
    copyStore: unused,
    recovery: { recover: unused, restore: unused, backup: unused, verify: unused },
    connect: () => ({ publish, close: async () => undefined }) as Pick<Connection, 'publish' | 'close'> as Connection,
  });
  return { stdin, said, ended };
}

for (const inFlight of [1, 10]) {
  test(`publish --lines with ${inFlight} in flight prints an id before there is more input`, async () => {
    let ids = 0;
    const { stdin, said, ended } = publishLines(inFlight, async () => ++ids);
    for (const [lines, printed] of [
      ['a\n', '1\n'],
      ['b\nc\n', '1\n2\n3\n'],
    ] as const) {
      stdin.write(lines);
      await until(
        () => said.out === printed,
        () => `printed ${JSON.stringify(said.out)}`,
      );
    }
    stdin.end();
    assert.equal(await ended, 0);
  });

  test(`publish --lines with ${inFlight} in flight ends at the line that fails, without waiting for more input`, async () => {
    let ids = 0;
    const { stdin, said, ended } = publishLines(inFlight, async () => {
      if (ids === 1) throw new CliError(EXIT.failed, 'the queue is full (QUEUE_FULL)', 'wait and retry');
      return ++ids;
    });
    stdin.write('a\nb\n');
    assert.equal(await ended, 1);
    assert.deepEqual(said, { out: '1\n', err: 'broker: line 2: the queue is full (QUEUE_FULL)\n  wait and retry\n' });
  });
}

test('publish --lines prints in the order of the lines, also when a later one is there first', async () => {
  const first = Promise.withResolvers<number>();
  let calls = 0;
  const { stdin, said, ended } = publishLines(10, () => (++calls === 1 ? first.promise : Promise.resolve(calls)));
  stdin.write('a\nb\n');
  await until(
    () => calls === 2,
    () => `${calls} calls`,
  );
  assert.equal(said.out, '');
  first.resolve(1);
  stdin.end();
  assert.equal(await ended, 0);
  assert.equal(said.out, '1\n2\n');
});

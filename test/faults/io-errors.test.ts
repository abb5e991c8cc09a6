/** The short forms of `npm run faults -- io-errors` and `io-errors-files`, and that they see what is wrong. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { Prng } from '../../src/base/prng.ts';
import { requireTool } from '../support/tools.ts';
import { FAILING_CALLS, failOne } from './io-error-brokers.ts';
import { ioFaults } from './io-error-campaign.ts';
import { ioRun } from './io-error-files.ts';

const LONG = process.env.BROKER_TEST_LONG === '1';

test('[S2, S7, S8] EIO, ENOSPC or a short write at any call on any file: nothing is promised behind it that depended on it, and what was promised is there', async (t) => {
  const seed = Number(process.env.BROKER_TEST_SEED ?? randomInt(1, 2 ** 31));
  t.diagnostic(`seed ${seed}: repeat with BROKER_TEST_SEED=${seed}`);
  const prng = new Prng(seed);
  const faults = await ioFaults();
  const ends = new Map<string, number>();
  for (let run = 0; run < (LONG ? 300 : 15); run++) {
    const fault = faults[prng.nextBelow(faults.length)];
    assert.ok(fault !== undefined);
    const { ending, violations } = await ioRun(fault);
    ends.set(ending, (ends.get(ending) ?? 0) + 1);
    assert.deepEqual(violations, [], JSON.stringify(fault));
    assert.notEqual(ending, 'not reached', JSON.stringify(fault));
  }
  t.diagnostic(JSON.stringify([...ends]));
});

test('control group: a write that says it is done and is not is found by what a start reads', async () => {
  for (const file of ['log', 'node.json']) {
    const { violations } = await ioRun({ call: 'write', file, error: 'lie', number: file === 'log' ? 20 : 1 });
    assert.notDeepEqual(violations, [], file);
  }
});

for (const [file, call] of [
  ['end of the log', 'fdatasync'],
  ['index', 'rename'],
] as const) {
  test(`[S2] EIO from ${call} of the ${file} of a real broker: it ends with an error or says so, and what was acknowledged is there`, async (t) => {
    if (!requireTool(t, 'strace')) return;
    const what = FAILING_CALLS.find((one) => one.file === file && one.call === call);
    assert.ok(what !== undefined);
    const { ending, violations } = await failOne(what, 'EIO', 1);
    assert.deepEqual(violations, []);
    assert.equal(ending, file === 'index' ? 'went on' : 'ended');
  });
}

/** The short form of `npm run faults -- power`, and proof that its harness notices what is not on the disk. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { requireTool } from '../support/tools.ts';
import { type PowerCutPlan, powerCuts } from './power-campaign.ts';
import { Strace } from './strace.ts';

const CUTS = process.env.BROKER_TEST_LONG === '1' ? 20 : 2;
const SMALL_FILES = ['--segment-bytes', '1MiB', '--raft-snapshot-entries', '100', '--raft-snapshot-bytes', '1MiB'];

async function assertNothingLost(t: TestContext, plan: Omit<PowerCutPlan, 'seed'>): Promise<void> {
  const seed = Number(process.env.BROKER_TEST_SEED ?? randomInt(1, 2 ** 31));
  t.diagnostic(`seed ${seed}: repeat the plan with BROKER_TEST_SEED=${seed}`);
  const { violations, acked, unknown, exitCodes } = await powerCuts({ ...plan, seed });
  t.diagnostic(`${acked} acknowledged, ${unknown} unknown`);
  assert.deepEqual(violations, []);
  assert.ok(acked > 10 * plan.cuts, `only ${acked} messages were acknowledged: no load`);
  assert.deepEqual([...new Set(exitCodes)], [70], 'a broker whose disk is gone ends by itself');
}

describe('the power of the disk is cut under load', () => {
  it(`[S1, S2, R3, R4] ${CUTS} times, under a broker without any configuration: nothing acknowledged is lost`, async (t) => {
    if (!requireTool(t, 'loop-devices')) return;
    await assertNothingLost(t, { cuts: CUTS });
  });

  it('[S1, S4, R4] while segments roll and snapshots are renamed all the time: nothing acknowledged is lost', async (t) => {
    if (!requireTool(t, 'loop-devices')) return;
    await assertNothingLost(t, { cuts: CUTS - 1, flags: SMALL_FILES });
  });

  it('[S3] while every fdatasync begins 40 ms late and comes back 40 ms after it is done: nothing that was written meanwhile is acknowledged with it', async (t) => {
    if (!requireTool(t, 'loop-devices') || !requireTool(t, 'strace')) return;
    using strace = new Strace();
    await assertNothingLost(t, {
      cuts: 1,
      loadMsMin: 1_000,
      under: strace.under('fdatasync:delay_enter=40000:delay_exit=40000'),
    });
  });

  it('[S1, R4] with syncs that only say they were done the same harness finds that acknowledged messages are lost', async (t) => {
    if (!requireTool(t, 'loop-devices') || !requireTool(t, 'strace')) return;
    using strace = new Strace();
    const { violations } = await powerCuts({ cuts: 1, seed: 1, under: strace.under('fdatasync,fsync:retval=0') });
    t.diagnostic(violations[0] ?? '');
    assert.match(violations.join('\n'), /^acked-readable|STORE_AHEAD_OF_LOG|SEQUENCE_UNKNOWN|before it was ready/m);
  });
});

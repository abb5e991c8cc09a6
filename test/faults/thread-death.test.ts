/** A thread of a broker process dies: a shard is replaced, without the Raft thread the process ends. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FaultRig, pause, within } from './rig.ts';
import { DEATHS, shardDeaths } from './shard-campaign.ts';

const LONG = process.env.BROKER_TEST_LONG === '1';
const DEATHS_EACH = LONG ? 10 : 2;
/** What a replacement takes on a machine that is not busy is under a second; on a busy one only its order of magnitude says something. */
const REPLACED_MS = 1_000;
const REPLACED_BUSY_MS = 8_000;

describe('a shard thread dies under load', () => {
  for (const death of LONG ? DEATHS : DEATHS.slice(0, 3)) {
    it(`[W1, W8, R25, R27] by ${death.name}: it is replaced, what it had in hand is OUTCOME_UNKNOWN, retries and subscribers go on without loss`, async (t) => {
      const result = await shardDeaths(death, DEATHS_EACH, 11);
      t.diagnostic(JSON.stringify({ ...result, violations: result.violations.length }));
      assert.deepEqual(result.violations, []);
      assert.ok(result.deaths >= DEATHS_EACH, `${result.deaths} deaths`);
      assert.ok(result.acked > 50, 'the load was no load');
      assert.deepEqual([...result.unknownReasons], ['OUTCOME_UNKNOWN']);
      assert.equal(result.replacedMs.length, result.deaths);
      assert.ok(Math.min(...result.replacedMs) < REPLACED_MS, `replaced after ${result.replacedMs} ms`);
      assert.ok(Math.max(...result.replacedMs) < REPLACED_BUSY_MS, `replaced after ${result.replacedMs} ms`);
      // A thread that served on after its task had failed would write beside its successor.
      assert.equal(new Set(result.threads).size, result.threads.length, `threads ${result.threads}`);
    });
  }
});

const RAFT_DEATHS = [
  { how: 'an exception behind a sync', failpoints: 'raft.after-sync=throw@60', reason: 'raft_thread_failed' },
  { how: 'process.exit', failpoints: 'raft.after-apply=exit@60', reason: 'raft_thread_exit' },
  { how: 'an exception before an append', failpoints: 'raft.before-append=throw@60', reason: 'raft_thread_failed' },
  { how: 'an exhausted heap', failpoints: 'raft.after-apply=oom@60', reason: 'raft_thread_error' },
];

describe('the Raft thread dies under load', () => {
  for (const { how, failpoints, reason } of LONG ? RAFT_DEATHS : RAFT_DEATHS.slice(0, 2)) {
    it(`[W1] by ${how}: the process ends with code 70 and says why, and nothing acknowledged is lost`, async () => {
      await using rig = await FaultRig.start({
        env: { BROKER_FAILPOINTS: failpoints },
        nodeFlags: ['--max-old-space-size=96'],
      });
      rig.startLoad();
      const exit = await within(rig.broker.exited, 20_000);
      assert.deepEqual(exit, { code: 70, signal: null }, rig.broker.logs);
      const said = rig.lines.find(({ message }) => message === 'the broker cannot go on');
      assert.equal(said?.reason, reason);
      await rig.load.stop();
      await rig.broker.restart({ env: { BROKER_FAILPOINTS: '' } });
      await rig.assertKept(10);
    });
  }
});

describe('the main thread meets a defect', () => {
  it('[W1] the process ends with code 70 and says why in its log, and nothing acknowledged is lost', async () => {
    const defect =
      "import { isMainThread } from 'node:worker_threads'; if (isMainThread) process.on('SIGUSR2', () => { throw new Error('a defect'); });";
    const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(defect)}` };
    await using rig = await FaultRig.start({ env });
    rig.startLoad();
    await pause(300);
    process.kill(rig.broker.pid, 'SIGUSR2');
    assert.deepEqual(await within(rig.broker.exited, 5_000), { code: 70, signal: null }, rig.broker.logs);
    const said = rig.lines.find(({ message }) => message === 'the broker cannot go on');
    assert.equal(said?.reason, 'main_thread_failed');
    assert.match(said.error, /Error: a defect\n +at /);
    await rig.load.stop();
    await rig.broker.restart({ env: { NODE_OPTIONS: '' } });
    await rig.assertKept(10);
  });
});

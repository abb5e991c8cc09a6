/** The disk of a broker process answers with errors: what is not durable is not acknowledged. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { BrokerStartError } from '../support/broker.ts';
import { requireTool } from '../support/tools.ts';
import { onThisMachine } from '../support/yardstick.ts';
import { FaultRig, type LogLine, until, within } from './rig.ts';
import { ONE_FILE_THREAD, Strace } from './strace.ts';

const LONG = process.env.BROKER_TEST_LONG === '1';
const SYNC_NUMBERS = LONG ? Array.from({ length: 50 }, (_, i) => i + 1) : [2, 30];
const DYING_MS = 1_000;
const LOAD_MS_MAX = 40_000;
/** An acknowledgement from before the failure has so long to get to us. */
const SLOW_MS = 6_000;

describe('a sync of the disk fails', () => {
  for (const n of SYNC_NUMBERS) {
    it(`[S2] EIO from fdatasync number ${n} of a thread: no acknowledgement after it, the process ends within 1 s, and all that was acknowledged is there`, async (t) => {
      if (!requireTool(t, 'strace')) return;
      using strace = new Strace();
      await using rig = await FaultRig.create({ flags: ['--shards', '1'], env: ONE_FILE_THREAD });
      rig.broker.launch({ under: strace.under(`fdatasync:error=EIO:when=${n}`) });
      const exit = await loadUntilEnd(rig);
      // Before it was ready it says that it could not start; afterwards that it died.
      assert.ok(exit?.code === 70 || (exit?.code === 1 && rig.load.lastAckedSentAt === 0), rig.broker.logs);
      const last = rig.lines.findLast(({ level }) => level === 'error');
      assert.match(`${last?.message} ${last?.error}`, /cannot fdatasync .*EIO.*the process must end/);
      const failedAt = strace.syncs().find(({ injected }) => injected)?.at ?? 0;
      assert.ok(failedAt > 0, 'no fdatasync has failed');
      assert.ok(
        rig.load.lastAckedSentAt < failedAt,
        `sent ${rig.load.lastAckedSentAt - failedAt} ms after the failure`,
      );
      const dyingMs = strace.exitedAt() - failedAt;
      assert.ok(dyingMs > 0 && dyingMs < (await onThisMachine(DYING_MS)), `dead ${dyingMs} ms after the failure`);
      t.diagnostic(`exit ${exit?.code} ${dyingMs.toFixed(0)} ms after the failure`);
      await rig.broker.restart();
      await rig.assertKept(exit?.code === 70 && n > 20 ? 1 : 0);
    });
  }

  it('[S2, P3] EIO from a sync of a segment: the messages that waited for it are not acknowledged, and the process ends within 1 s with code 70', async (t) => {
    if (!requireTool(t, 'strace')) return;
    using strace = new Strace();
    // One group at a time: the next write, which would fail too, must not hide what happens to the messages of this one.
    const flags = ['--shards', '1', '--groups-in-flight', '1'];
    await using rig = await FaultRig.create({ flags, env: ONE_FILE_THREAD });
    const segment = join(rig.broker.dataDir, 'segments', 'lane-000', '00000001.seg');
    // The failing call takes a while, so that what comes behind its end can only be its own.
    const inject = `fdatasync:error=EIO:delay_enter=${SLOW_MS * 1_000}:when=15`;
    rig.broker.launch({ under: strace.under(inject, segment) });
    assert.deepEqual(await loadUntilEnd(rig), { code: 70, signal: null }, rig.broker.logs);
    const failed = strace.syncs().find(({ injected }) => injected);
    assert.ok(failed !== undefined, 'no fdatasync has failed');
    const failedAt = failed.at + SLOW_MS;
    assert.ok(rig.load.lastAckAt < failedAt, `acknowledged ${rig.load.lastAckAt - failedAt} ms after the failure`);
    const dyingMs = strace.exitedAt() - failedAt;
    assert.ok(dyingMs < (await onThisMachine(DYING_MS)), `dead ${dyingMs} ms after the failure`);
    await rig.broker.restart();
    await rig.assertKept(10);
  });

  it('[S2] EIO from the sync of a sidecar, after SIGTERM: the process ends, and not with 0', async () => {
    await using rig = await FaultRig.start({ env: { BROKER_FAILPOINTS: 'sidecar.sync=eio' } });
    rig.startLoad();
    await rig.loaded(10);
    process.kill(rig.broker.pid, 'SIGTERM');
    assert.deepEqual(await within(rig.broker.exited, LOAD_MS_MAX), { code: 70, signal: null }, rig.broker.logs);
    await rig.load.stop();
    await rig.broker.restart({ env: { BROKER_FAILPOINTS: '' } });
    await rig.assertKept(5);
  });
});

describe('a sync of the log fails behind the messages', () => {
  it('[S2] EIO from the sync of a snapshot: the process ends with code 70, and the next start needs no snapshot', async () => {
    await using rig = await FaultRig.start();
    // A new directory begins with a snapshot: this is the first one of a broker that serves.
    const env = { BROKER_FAILPOINTS: 'snap.sync=eio' };
    await rig.broker.restart({ env, flags: ['--raft-snapshot-entries', '100', '--log-format', 'json'] });
    rig.startLoad();
    assert.deepEqual(await within(rig.broker.exited, LOAD_MS_MAX), { code: 70, signal: null }, rig.broker.logs);
    await rig.load.stop();
    const { reason, error } = rig.lines.findLast(({ level }) => level === 'error') as LogLine;
    assert.match(`${reason} ${error}`, /cannot fdatasync .*snap.*EIO.*the process must end/);
    await rig.broker.restart({ env: { BROKER_FAILPOINTS: '' } });
    await rig.assertKept(20);
  });
});

describe('the store takes no write', () => {
  it('[P2, P3, R27] EIO from every write of a segment, then kill -9: nothing was acknowledged, every publish was refused, and none of it appears', async (t) => {
    await using rig = await FaultRig.start();
    rig.startLoad();
    await rig.loaded(20);
    await rig.load.stop();
    const before = rig.history.judge().counts;
    // After a kill it may owe void marks, which meet the error before anyone has asked it; then it is not ready, and no message gets an id.
    await rig.broker.stop();
    await rig.broker.restart({ env: { BROKER_FAILPOINTS: 'segment.write=eio' } });
    const readyAt = Date.now();
    rig.startLoad();
    const refused = (): number => rig.load.refusals.get('UNAVAILABLE STORE_UNAVAILABLE') ?? 0;
    await until(
      () => refused() > 10 || !rig.broker.running,
      () => JSON.stringify([...rig.load.refusals]),
    );
    assert.equal(rig.broker.running, true, rig.broker.logs);
    await rig.broker.kill();
    await rig.load.stop();
    assert.ok(rig.load.lastAckedSentAt < readyAt, 'acknowledged without a store');
    t.diagnostic(JSON.stringify([...rig.load.refusals]));
    await rig.broker.restart({ env: { BROKER_FAILPOINTS: '' } });
    const counts = await rig.assertKept(before.acked);
    assert.ok(counts.voids > before.voids, 'the ids of the refused messages are void');
  });
});

/** Load from when the broker is ready until it ends by itself. */
async function loadUntilEnd(rig: FaultRig) {
  try {
    await rig.broker.ready();
  } catch (error) {
    if (error instanceof BrokerStartError) return error.exit;
    throw error;
  }
  rig.startLoad();
  const exit = await within(rig.broker.exited, LOAD_MS_MAX);
  await rig.broker.kill();
  await rig.load.stop();
  return exit;
}

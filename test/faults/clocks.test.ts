/** The short form of `npm run faults -- clocks`, and a node alone whose clock is wrong. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { startBroker } from '../support/broker.ts';
import { BrokerClient, type CallError } from '../support/client.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { requireTool } from '../support/tools.ts';
import { pause } from '../support/until.ts';
import { clockFaults, clockStep, suspendStep } from './clock-campaign.ts';
import { ELECTION_TIMEOUT_MS } from './cluster-rig.ts';
import { runShort } from './cluster-short.ts';

const HOUR_MS = 3_600_000;
const TEN_YEARS_MS = 10 * 365 * 24 * HOUR_MS;

/** How often retention is judged (RetentionKeeper), and what that takes. */
const JUDGED_MS = 6_000;
const MESSAGES = 24;
const BODY = Buffer.alloc(128 << 10, 'x');

// Both wait for most of their time.
describe('clocks that are wrong', { concurrency: true }, () => {
  it('[S10, R11, R30] the clock of a leader jumps by ten years, that of a follower by hours, machines are suspended: no time of theirs is in the log, nothing is lost, stale or deleted', async (t) => {
    if (!requireTool(t, 'cc')) return;
    const campaign = clockFaults();
    const briefly = { which: 0, lastsMs: ELECTION_TIMEOUT_MS / 2 };
    const { violations } = await runShort(t, campaign, [
      clockStep(campaign.clocks, 'leader', '+10 y', briefly),
      clockStep(campaign.clocks, 'follower', '+2 h', briefly),
      suspendStep(campaign.clocks, 'leader', { which: 0, lastsMs: 2.5 * ELECTION_TIMEOUT_MS }),
      suspendStep(campaign.clocks, 'all', { which: 0, lastsMs: 1.5 * ELECTION_TIMEOUT_MS }),
    ]);
    assert.deepEqual(violations, []);
  });

  it('[S10] a node alone whose clock jumps by ten years and back deletes nothing; its log time has gone along, and stands', async (t) => {
    if (!requireTool(t, 'cc')) return;
    using clock = new FakeClock();
    await using broker = await startBroker({
      env: clock.env,
      flags: ['--segment-bytes', '1MiB', '--retention-max-age', '2h'],
    });
    const client = new BrokerClient(broker.address);
    t.after(() => client.close());
    const publish = (expirationSeconds = 0, subject = 's'): Promise<number> =>
      client.publish({ subject, body: BODY, expirationSeconds });
    const timeOf = async (id: number): Promise<number> => (await client.fetch('s', id)).publishedAt;
    for (let n = 1; n <= MESSAGES; n++) assert.equal(await publish(), n);
    const hourLong = await publish(3_600, 'e');
    const refused = (): Promise<unknown> =>
      client.fetch('e', hourLong).then(
        () => null,
        (error: unknown) => (error as CallError).reason,
      );
    assert.equal(await refused(), null);
    clock.setAhead(TEN_YEARS_MS);
    const ahead = await timeOf(await publish());
    assert.ok(ahead > Date.now() + TEN_YEARS_MS - HOUR_MS, 'nobody can tell a node alone that its clock is wrong');
    await pause(JUDGED_MS);
    assert.equal(await refused(), 'ID_EXPIRED');
    clock.setAhead(0);
    assert.equal(await refused(), null);
    const behind = await timeOf(await publish());
    assert.ok(behind >= ahead && behind < ahead + HOUR_MS, 'log time never falls');
    clock.setAhead(-HOUR_MS);
    for (let id = 1; id <= MESSAGES + 2; id++) assert.equal((await client.fetch('s', id)).body.length, BODY.length);
    assert.doesNotMatch(broker.logs, /dropped a segment/);
  });
});

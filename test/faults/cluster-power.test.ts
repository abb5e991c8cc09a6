/** The short forms of `npm run faults -- cluster-power`, and that a cluster that does not sync is found out. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { describe, it } from 'node:test';
import { requireTool } from '../support/tools.ts';
import { clusterPowerCuts, cutStep } from './cluster-power-campaign.ts';
import { runShort } from './cluster-short.ts';

const details = { which: 0, delayMs: 20, dyingMs: 0 };

// Both wait for most of their time.
describe('power cuts under a cluster', { concurrency: true }, () => {
  it('[S1, R3, R4] the power of all nodes and of the leader is cut under load: nothing acknowledged is lost or there twice', async (t) => {
    if (!requireTool(t, 'loop-devices')) return;
    const campaign = clusterPowerCuts();
    const steps = [
      cutStep(campaign.disks, 'all', details),
      cutStep(campaign.disks, 'leader', { ...details, dyingMs: 300 }),
    ];
    const { violations } = await runShort(t, campaign, steps);
    assert.deepEqual(violations, []);
  });

  it('[S1, R4] with syncs that only say that they were done the same cut of all nodes loses what was acknowledged', async (t) => {
    if (!requireTool(t, 'loop-devices') || !requireTool(t, 'strace')) return;
    const campaign = clusterPowerCuts({ unsynced: [0, 1, 2] });
    const { violations } = await runShort(t, campaign, [cutStep(campaign.disks, 'all', details)]);
    t.diagnostic(violations[0]?.slice(0, 300) ?? '');
    // That it fails is what is wanted: nothing is to be kept of it.
    for (const [, kept = ''] of violations.join().matchAll(/\(kept: ([^)]+)\)/g))
      rmSync(kept, { recursive: true, force: true });
    assert.match(violations.join('\n'), /does not start again|acked-readable|doubled|unreadable|one-payload/);
  });
});

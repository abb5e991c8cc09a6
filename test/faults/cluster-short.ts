/** A few steps of a campaign on one cluster with a light load: its short form, in `npm test`. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import type { TestContext } from 'node:test';
import type { CampaignResult } from './campaign.ts';
import { type ClusterCampaign, runClusterCampaign, type Step } from './cluster-campaign.ts';
import { LIGHT_LOAD } from './cluster-load.ts';

export const SHORT_ACKED_PER_STEP = 200;

/** What was found of it; that there was a load is asserted. */
export async function runShort(
  t: TestContext,
  campaign: ClusterCampaign,
  steps: readonly Step[],
): Promise<CampaignResult> {
  const seed = Number(process.env.BROKER_TEST_SEED ?? randomInt(1, 2 ** 31));
  t.diagnostic(`seed ${seed}: repeat with BROKER_TEST_SEED=${seed}`);
  const planned = {
    ...campaign,
    stepsPerPart: steps.length,
    ackedPerStep: SHORT_ACKED_PER_STEP,
    size: LIGHT_LOAD,
    plan: () => steps,
  };
  const options = { runs: steps.length, seed, onProgress: () => undefined };
  const result = await runClusterCampaign(planned, options);
  const { rows, notes } = result;
  t.diagnostic(`${JSON.stringify(rows)}; ${notes.join('; ')}`);
  assert.ok(Number(rows[0]?.acked) > SHORT_ACKED_PER_STEP * steps.length, 'the load was no load');
  return result;
}

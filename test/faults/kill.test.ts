/** The short form of `npm run faults -- kill`. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { describe, it } from 'node:test';
import { runKillCampaign } from './kill-campaign.ts';
import { failpointSites, planKills } from './kill-plan.ts';

const RUNS = 8;

describe('kill -9', () => {
  it(`nothing acknowledged is lost, no id has two contents, every id is a message or void, in ${RUNS} kills at random instants and failpoints [R25] [R27] [S11] [R4]`, async (t) => {
    const seed = Number(process.env.BROKER_TEST_SEED ?? randomInt(1, 2 ** 31));
    t.diagnostic(
      `seed ${seed}: repeat with BROKER_TEST_SEED=${seed}, or npm run faults -- kill --runs ${RUNS} --seed ${seed}`,
    );
    const { violations, rows, notes } = await runKillCampaign({ runs: RUNS, seed, onProgress: () => undefined });
    t.diagnostic(`${JSON.stringify(rows[0])}; ${notes.join('; ')}`);
    assert.deepEqual(violations, [], `seed ${seed}`);
    assert.ok(Number(rows[0]?.acked) > 100, 'the load was no load');
  });

  it('the plan of a campaign follows from its seed', () => {
    const sites = ['a', 'b', 'c'];
    assert.deepEqual(planKills(7, 50, sites), planKills(7, 50, sites));
    assert.notDeepEqual(planKills(7, 50, sites), planKills(8, 50, sites));
  });

  it('a long campaign passes through every failpoint of the sources', () => {
    const sites = failpointSites();
    const planned = new Set(planKills(1, 200, sites).flatMap((plan) => plan.failpoint?.site ?? []));
    assert.deepEqual(
      sites.filter((site) => !planned.has(site)),
      [],
    );
  });
});

/** The short form of `npm run faults -- commit`. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { runCommitCampaign } from './commit-campaign.ts';

const RUNS = 4;

test(`[S14] [P3] a backend of PostgreSQL killed with -9 in the middle of a commit of the broker, ${RUNS} times: none lost, none twice`, async (t) => {
  const seed = Number(process.env.BROKER_TEST_SEED ?? randomInt(1, 2 ** 31));
  t.diagnostic(
    `seed ${seed}: repeat with BROKER_TEST_SEED=${seed}, or npm run faults -- commit --runs ${RUNS} --seed ${seed}`,
  );
  const { violations, rows } = await runCommitCampaign({ runs: RUNS, seed, onProgress: () => undefined });
  t.diagnostic(JSON.stringify(rows[0]));
  assert.deepEqual(violations, [], `seed ${seed}`);
  assert.ok(Number(rows[0]?.acked) > 50, 'the load was no load');
});

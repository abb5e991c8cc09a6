/** Memory of brokers whose PostgreSQL stands still; `npm run faults -- standstill` is the form of 10 minutes. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { PostgresServer } from '../servers/postgres.ts';
import { GROWTH_BYTES_MAX, growthOf, STANDSTILLS, standStill, stillPostgres } from './standstill-campaign.ts';

const STILL_MS = 7_500;
/** Three brokers at once are too much for two cores; the long form has them. */
const KINDS = STANDSTILLS.filter(({ name }) => name !== '2 shards, wait');

const server = await PostgresServer.start();
after(() => server.remove());

test('[W6, F9] PostgreSQL stands still under full load: memory is flat, what does not fit is refused, and then all goes on', async (t) => {
  for (const result of await standStill(stillPostgres(server), KINDS, STILL_MS)) {
    t.diagnostic(JSON.stringify(result));
    assert.ok(growthOf(result) < GROWTH_BYTES_MAX, `${result.name}: ${growthOf(result)} bytes more`);
    assert.ok(result.refused > 100, `${result.name}: nothing was refused`);
  }
});

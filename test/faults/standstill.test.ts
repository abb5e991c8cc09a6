/** Memory of brokers whose PostgreSQL stands still; `npm run faults -- standstill` is the form of 10 minutes. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { PostgresServer } from '../servers/postgres.ts';
import {
  complaintsOf,
  GROWTH_BYTES_MAX,
  RSS_BYTES_MAX,
  STANDSTILLS,
  standStill,
  stillPostgres,
} from './standstill-campaign.ts';

const STILL_MS = 7_500;
/** Three brokers at once are too much for two cores; the long form has them. */
const KINDS = STANDSTILLS.filter(({ name }) => name !== '2 shards, wait');

const server = await PostgresServer.start();
after(() => server.remove());

test('[W6, F9] PostgreSQL stands still under full load: memory is flat and under 1 GiB, what does not fit is refused, and then all goes on', async (t) => {
  for (const result of await standStill(stillPostgres(server), KINDS, STILL_MS)) {
    t.diagnostic(JSON.stringify(result));
    assert.deepEqual(complaintsOf(result), []);
    assert.ok(result.refused > 100, `${result.name}: nothing was refused`);
  }
});

test('memory that grows too much, or is too much in any third, is told; no other is', () => {
  const [flat, high] = [300 << 20, RSS_BYTES_MAX - 1];
  const cases: readonly (readonly [thirds: readonly number[], complaints: readonly string[]])[] = [
    [[flat, flat, flat], []],
    [[high, high, high], []],
    [[flat, high, flat], []],
    [[flat, flat, flat + GROWTH_BYTES_MAX], []],
    [[flat + GROWTH_BYTES_MAX + 1, flat, flat], []],
    [[flat, flat, flat + GROWTH_BYTES_MAX + (1 << 20)], ['it: 49 MiB more in the last third than in the first']],
    [[RSS_BYTES_MAX, flat, flat], ['it: 1024 MiB, which is not under 1024']],
    [[flat, 1.5 * RSS_BYTES_MAX, flat], ['it: 1536 MiB, which is not under 1024']],
    // A broker that was not looked at is no broker that did well.
    [[flat, Number.NaN, flat], ['it: NaN MiB, which is not under 1024']],
  ];
  for (const [thirds, complaints] of cases) {
    assert.deepEqual(complaintsOf({ name: 'it', refused: 0, thirds }), complaints, thirds.join());
  }
});

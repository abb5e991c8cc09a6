/** Short form of `npm run faults -- first-starts`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Prng } from '../../src/base/prng.ts';
import { requireTool } from '../support/tools.ts';
import { openPlace } from './cluster-campaign.ts';
import { type Fault, firstStart } from './first-start-campaign.ts';

const NODES = 3;

for (const fault of ['kill', 'kill all'] as const satisfies readonly Fault[]) {
  test(`[G3] three first starts with ${fault === 'kill' ? 'one' : 'each'} of them killed on the way make one cluster`, async () => {
    await using place = await openPlace({ needsNetwork: false, store: 'postgres', nodes: NODES });
    const { clusterIds, voters } = await firstStart(new Prng(7), { fault, storeFlags: place.storeFlags() });
    assert.deepEqual([clusterIds.length, voters], [1, NODES]);
  });
}

test('[G3] three first starts of which one is cut off from the others at first make one cluster', async (t) => {
  if (!requireTool(t, 'namespaces')) return;
  await using place = await openPlace({ needsNetwork: true, store: 'postgres', nodes: NODES });
  const { network } = place;
  const one = await firstStart(new Prng(7), { fault: 'cut', storeFlags: place.storeFlags(), network });
  assert.deepEqual([one.clusterIds.length, one.voters], [1, NODES]);
});

/** What every BirthRegistry must do. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { BirthRegistry } from '../../src/storage/birth.ts';

export function birthSuite(name: string, open: (t: TestContext) => Promise<readonly BirthRegistry[]>): void {
  const row = (clusterId: string) => ({ clusterId, name: 'broker', settings: 'a=1' });

  test(`${name}: birth: one of many that claim at once wins, and all see its row`, async (t) => {
    const registries = await open(t);
    const first = registries[0] as BirthRegistry;
    assert.equal(await first.find(), null);
    const results = await Promise.all(
      Array.from({ length: 12 }, (_, i) => (registries[i % registries.length] as BirthRegistry).claim(row(`id-${i}`))),
    );
    const winners = results.flatMap(({ won }, i) => (won ? [`id-${i}`] : []));
    assert.equal(winners.length, 1);
    for (const result of results) assert.deepEqual(result.row, row(winners[0] as string));
    for (const registry of registries) assert.deepEqual(await registry.find(), row(winners[0] as string));
  });

  test(`${name}: birth: a recovery replaces the cluster it names, also when it asks again, and no other`, async (t) => {
    const [first] = (await open(t)) as [BirthRegistry];
    assert.equal(await first.replace('old', 'new'), null);
    await first.claim(row('old'));
    assert.deepEqual(await first.replace('other', 'new'), row('old'));
    assert.deepEqual(await first.replace('old', 'new'), row('new'));
    assert.deepEqual(await first.replace('old', 'new'), row('new'));
    assert.deepEqual(await first.replace('old', 'third'), row('new'));
    assert.equal((await first.claim(row('old'))).won, false);
  });

  test(`${name}: birth: asking again after a lost answer tells the winner that it won, and the others that they did not`, async (t) => {
    const [first] = (await open(t)) as [BirthRegistry];
    assert.equal((await first.claim(row('mine'))).won, true);
    assert.equal((await first.claim(row('mine'))).won, true);
    assert.deepEqual(await first.claim({ clusterId: 'its', name: 'other', settings: 'b' }), {
      row: row('mine'),
      won: false,
    });
  });
}

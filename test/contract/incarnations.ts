/** What every IncarnationRegistry must do. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Fence, type IncarnationRegistry } from '../../src/storage/fence.ts';

export function incarnationSuite(
  name: string,
  open: (t: TestContext) => Promise<readonly [IncarnationRegistry, IncarnationRegistry]>,
): void {
  test(`${name}: fence: whoever claims last has it, for its node only, and the one before is told who`, async (t) => {
    const [first, second] = await open(t);
    assert.equal(await first.find('a'), null);
    const older = new Fence(first, 'a');
    const other = new Fence(first, 'b');
    assert.match((await older.lostTo()) ?? '', /nobody/);
    await older.claim();
    await other.claim();
    assert.deepEqual([await older.lostTo(), await other.lostTo()], [null, null]);
    const newer = new Fence(second, 'a');
    await newer.claim();
    // Again, after an answer that was lost.
    await newer.claim();
    assert.equal(await older.lostTo(), `incarnation ${newer.incarnation}`);
    assert.deepEqual([await newer.lostTo(), await other.lostTo()], [null, null]);
    assert.deepEqual([...(await second.nodes())].sort(), ['a', 'b']);
  });

  test(`${name}: fence: of many that claim at once one has it, and all the others are told`, async (t) => {
    const registries = await open(t);
    const fences = Array.from({ length: 6 }, (_, i) => new Fence(registries[i % 2] as IncarnationRegistry, 'a'));
    await Promise.all(fences.map((fence) => fence.claim()));
    const lost = await Promise.all(fences.map((fence) => fence.lostTo()));
    const winners = fences.filter((_, i) => lost[i] === null);
    assert.equal(winners.length, 1);
    const told = lost.filter((to) => to !== null);
    assert.deepEqual(told, new Array(5).fill(`incarnation ${winners[0]?.incarnation}`));
  });
}

/** The short forms of `npm run faults -- damage-…`, and that they see what is wrong. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { after, type TestContext, test } from 'node:test';
import { type PlantedBug, plantBug } from '../../src/base/planted.ts';
import { Prng } from '../../src/base/prng.ts';
import { DamagedCluster } from './damage-cluster.ts';
import { PreparedDirectory } from './damage-directory.ts';
import { placesOf } from './damage-files.ts';
import { damageLone } from './damage-lone.ts';
import { damageInProcess, prngOf } from './damage-runs.ts';

const LONG = process.env.BROKER_TEST_LONG === '1';
const RUNS = LONG ? 400 : 30;

function seedOf(t: TestContext): number {
  const seed = Number(process.env.BROKER_TEST_SEED ?? randomInt(1, 2 ** 31));
  t.diagnostic(`seed ${seed}: repeat with BROKER_TEST_SEED=${seed}`);
  return seed;
}

let made: Promise<PreparedDirectory> | null = null;
/** Made once for all: whose content does not matter. */
const prepared = (): Promise<PreparedDirectory> => {
  made ??= PreparedDirectory.make(new Prng(1), 900);
  return made;
};
after(async () => await (await made)?.[Symbol.asyncDispose]());

test('[S5, S6, S9, R24] damaged files of a broker, opened by its own code: told, exactly the ids that were hit are lost, nothing is deleted', async (t) => {
  const seed = seedOf(t);
  const tally = await damageInProcess({ prepared: await prepared(), seed, first: 0, runs: RUNS });
  assert.deepEqual(tally.violations, []);
  assert.ok(tally.runs >= RUNS / 2, `only ${tally.runs} damages`);
});

/** What takes a guard away, and the damages that show it. Even runs are in segments, odd ones in the log. */
const GUARDS: readonly { readonly bug: PlantedBug; readonly kind: 'bit flip' | 'truncation' }[] = [
  { bug: 'S5-log-unchecked', kind: 'bit flip' },
  { bug: 'S5-batch-unchecked', kind: 'bit flip' },
  { bug: 'R24-end-unmarked', kind: 'truncation' },
  { bug: 'S9-sealed-is-torn', kind: 'truncation' },
];

for (const { bug, kind } of GUARDS) {
  test(`control group: with ${bug} the damages are not told as they are`, async () => {
    plantBug(bug);
    try {
      const { violations } = await damageInProcess({ prepared: await prepared(), seed: 5, first: 0, runs: 24, kind });
      assert.notDeepEqual(violations, []);
    } finally {
      plantBug(null);
    }
  });
}

test('[S5, S6, S9] a broker on a damaged directory refuses by name, or answers DATA_LOSS for exactly the ids that were hit', async (t) => {
  const seed = seedOf(t);
  const places = placesOf((await prepared()).base);
  for (let number = 0; number < (LONG ? 40 : 2); number++) {
    const outcome = await damageLone(await prepared(), places, { seed, number });
    assert.deepEqual(outcome?.violations ?? [], []);
  }
});

test('[R24, S9] a damaged log of one of three nodes is repaired from the others within 30 s; of two of three they halt, say so, and touch nothing', async (t) => {
  const seed = seedOf(t);
  await using cluster = await DamagedCluster.start(seed, 60, false);
  const outcome = await cluster.minority(prngOf(seed, 0), { files: ['log'], kind: 'bit flip' });
  assert.deepEqual([outcome?.ending, outcome?.violations], ['repaired', []]);
  const { violations } = await cluster.majority(prngOf(seed, 2));
  assert.deepEqual([...violations, ...(await cluster.judge())], []);
});

/** Parsers on mutants of what they accept: the short form of `npm run faults -- fuzz`, and proof that it finds what is wrong. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { regressionsIn } from '../fuzz/regressions.ts';
import { SHORT_RUNS } from '../fuzz/target.ts';
import { fuzzInThread, targetsOf } from '../fuzz/watch.ts';

const SEED = 20_261_126;
const PLANTED = new URL('../fuzz/planted.ts', import.meta.url).href;

test('every parser of foreign bytes, on what once failed and on some thousands of mutants', {
  timeout: 300_000,
}, async (t) => {
  const targets = await targetsOf();
  const names = targets.map(({ name }) => name);
  const unknown = [...regressionsIn().keys()].filter((name) => !names.includes(name));
  assert.deepEqual(unknown, [], 'regressions of targets that are not there');
  assert.equal(new Set(names).size, names.length, 'two targets of one name');
  const results = await fuzzInThread({ targets: names, options: { runs: 'short', seed: SEED } });
  for (const { name, shortRuns = SHORT_RUNS } of targets) {
    const result = results.get(name);
    assert.ok(result !== undefined, `${name} never ran`);
    assert.deepEqual(result.failures, [], name);
    assert.equal(result.runs, shortRuns, name);
    // Mutants that are refused at the door say nothing of what is behind it.
    assert.ok(result.accepted > 0, `${name} accepts nothing`);
  }
  t.diagnostic([...results].map(([name, { runs, seconds }]) => `${name} ${Math.round(runs / seconds)}/s`).join(', '));
});

/** What is planted, how it shows, and within how many runs it is found with this seed. */
const PLANTED_DEFECTS = [
  ['throws', 'threw', 100_000],
  ['endless', 'endless', 5_000],
  ['slow', 'slow', 2_000],
  ['allocates', 'memory', 20_000],
  ['keeps', 'retained', 200_000],
  ['disagrees', 'threw', 100_000],
] as const;

for (const [name, kind, runs] of PLANTED_DEFECTS) {
  test(`a planted defect is found: ${name}`, { timeout: 240_000 }, async (t) => {
    const results = await fuzzInThread({
      registry: PLANTED,
      targets: [name],
      options: { runs, seed: SEED, failuresMax: 1 },
      ...(kind === 'endless' ? { endlessMs: 3_000 } : {}),
    });
    const [failure] = results.get(name)?.failures ?? [];
    assert.equal(failure?.kind, kind, failure?.detail);
    t.diagnostic(
      `found at run ${failure?.run}, ${failure?.input.length} bytes: ${Buffer.from(failure?.input ?? []).toString('hex')}`,
    );
    // The same input by itself shows it again.
    if (kind !== 'threw') return;
    const again = await fuzzInThread({
      registry: PLANTED,
      targets: [name],
      options: { runs: 1, seed: SEED },
      inputs: [failure?.input ?? new Uint8Array()],
    });
    assert.equal(again.get(name)?.failures[0]?.kind, kind);
  });
}

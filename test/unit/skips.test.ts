/** What `npm test` says at its end about tests that did not run. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Skipped, skipLines } from '../support/skips.ts';

const JAVA = 'no Java 17: install it';

function skipped(file: string, name: string, why = JAVA): Skipped {
  return { file, test: name, why };
}

test('a reason that many tests have is told once, with their number and their files, before what is rarer', () => {
  const lines = skipLines([
    skipped('e2e/d.test.ts', 'one', 'needs root: run as root'),
    skipped('contract/a.test.ts', 'one'),
    skipped('contract/a.test.ts', 'two'),
    skipped('faults/b.test.ts', 'three'),
    skipped('unit/e.test.ts', 'four', ''),
  ]);
  assert.deepEqual(lines, [
    `  - 3 tests of contract/a.test.ts, faults/b.test.ts: ${JAVA}`,
    '  - e2e/d.test.ts: one: needs root: run as root',
    '  - unit/e.test.ts: four: no reason given',
  ]);
});

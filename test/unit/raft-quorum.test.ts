import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { majorityIndex, majorityOf, voteResult } from '../../src/raft/quorum.ts';

function majority(...reached: number[]): number {
  return majorityIndex(Float64Array.from(reached), reached.length);
}

const INDEX_TABLE: readonly [reached: readonly number[], expected: number][] = [
  [[0], 0],
  [[7], 7],
  [[7, 3], 3],
  [[3, 7], 3],
  [[7, 7], 7],
  [[0, 7], 0],
  [[1, 2, 3], 2],
  [[3, 2, 1], 2],
  [[5, 0, 0], 0],
  [[5, 5, 0], 5],
  [[100, 101, 99], 100],
  [[1, 2, 3, 4], 2],
  [[4, 4, 4, 1], 4],
  [[4, 4, 1, 1], 1],
  [[1, 2, 3, 4, 5], 3],
  [[9, 9, 9, 0, 0], 9],
  [[9, 9, 0, 0, 0], 0],
  [[1, 2, 3, 4, 5, 6, 7], 4],
  [[Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER - 1, 0], Number.MAX_SAFE_INTEGER - 1],
];

test('the majority index of a table of voters', () => {
  for (const [reached, expected] of INDEX_TABLE) {
    assert.equal(majority(...reached), expected, `[${reached}]`);
  }
});

test('no voters is a broken invariant, not a commit', () => {
  assert.throws(() => majorityIndex(new Float64Array(3), 0));
});

/** The definition itself: the largest value that more than half of the voters have reached. */
function slowMajority(reached: readonly number[]): number {
  let best = 0;
  for (const candidate of reached) {
    const supporters = reached.filter((value) => value >= candidate).length;
    if (supporters * 2 > reached.length) {
      best = Math.max(best, candidate);
    }
  }
  return best;
}

test('the majority index equals its definition for any voters', () => {
  const voters = fc.array(fc.nat({ max: 20 }), { minLength: 1, maxLength: 9 });
  fc.assert(
    fc.property(voters, (reached) => majority(...reached) === slowMajority(reached)),
    { numRuns: 500 },
  );
});

const VOTE_TABLE: readonly [granted: number, rejected: number, voters: number, expected: string][] = [
  [0, 0, 1, 'pending'],
  [1, 0, 1, 'won'],
  [0, 1, 1, 'lost'],
  [1, 0, 2, 'pending'],
  [1, 1, 2, 'lost'],
  [2, 0, 2, 'won'],
  [0, 1, 2, 'lost'],
  [1, 0, 3, 'pending'],
  [1, 1, 3, 'pending'],
  [2, 0, 3, 'won'],
  [2, 1, 3, 'won'],
  [1, 2, 3, 'lost'],
  [0, 2, 3, 'lost'],
  [2, 0, 4, 'pending'],
  [2, 1, 4, 'pending'],
  [2, 2, 4, 'lost'],
  [3, 0, 4, 'won'],
  [2, 2, 5, 'pending'],
  [3, 2, 5, 'won'],
  [2, 3, 5, 'lost'],
];

test('the result of a table of elections', () => {
  for (const [granted, rejected, voters, expected] of VOTE_TABLE) {
    assert.equal(voteResult(granted, rejected, voters), expected, `${granted} for, ${rejected} against, of ${voters}`);
  }
});

test('an election is decided exactly when no further vote can change it', () => {
  const votes = fc
    .tuple(fc.nat({ max: 9 }), fc.nat({ max: 9 }), fc.nat({ max: 9 }))
    .filter(([a, b, c]) => a + b + c > 0);
  fc.assert(
    fc.property(votes, ([granted, rejected, missing]) => {
      const voters = granted + rejected + missing;
      const isWon = granted * 2 > voters;
      const canStillWin = (granted + missing) * 2 > voters;
      const expected = isWon ? 'won' : canStillWin ? 'pending' : 'lost';
      return voteResult(granted, rejected, voters) === expected;
    }),
    { numRuns: 500 },
  );
});

test('two majorities of the same voters always meet', () => {
  for (let voters = 1; voters <= 99; voters += 1) {
    assert.ok(2 * majorityOf(voters) > voters);
    assert.ok(2 * (majorityOf(voters) - 1) <= voters, 'and it is the smallest such number');
  }
});

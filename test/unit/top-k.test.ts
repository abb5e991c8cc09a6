import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { TopK } from '../../src/base/top-k.ts';

test('the first of many are those that sorting all of them gives', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 50 })), fc.integer({ min: 1, max: 12 }), (numbers, capacity) => {
      const first = new TopK<number>(capacity, (a, b) => b - a);
      for (const number of numbers) first.offer(number);
      assert.deepEqual(first.sorted(), [...numbers].sort((a, b) => b - a).slice(0, capacity));
    }),
  );
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AssertionError } from '../../src/base/assert.ts';
import { CounterBlock } from '../../src/shm/counters.ts';
import { BucketGrid, DURATION_SHAPE, SharedHistogram } from '../../src/shm/histogram.ts';

test('two blocks on one buffer show the same numbers; unknown names, slots and sizes are assertions', () => {
  const writer = new CounterBlock(['a', 'b']);
  const reader = new CounterBlock(['a', 'b'], writer.buffer);
  writer.add(0, 2);
  writer.add(0, 0.5);
  writer.set(writer.indexOf('b'), 2 ** 53);
  assert.equal(reader.get(0), 2.5);
  assert.equal(reader.get(reader.indexOf('b')), 2 ** 53);
  assert.throws(() => reader.indexOf('c'), AssertionError);
  assert.throws(() => reader.get(2), AssertionError);
  assert.throws(() => new CounterBlock(['a'], writer.buffer), AssertionError);
  assert.throws(() => new CounterBlock(['a', 'a']), AssertionError);
});

test('a histogram puts each value into the first bucket whose limit is not below it, and knows it to a part of its doubling', () => {
  const shapes = fc.record({
    smallest: fc.constantFrom(0.25, 1, 62.5),
    perDoubling: fc.constantFrom(1 as const, 2 as const, 4 as const, 8 as const),
    doublings: fc.integer({ min: 1, max: 12 }),
  });
  const values = fc.array(fc.double({ min: 0, max: 100_000, noNaN: true }), { maxLength: 50 });
  fc.assert(
    fc.property(shapes, values, (shape, observed) => {
      const block = new CounterBlock(['before', ...SharedHistogram.slotNames('h', shape), 'after']);
      const histogram = new SharedHistogram(block, 'h', shape);
      for (const value of observed) histogram.observe(value);
      const { grid } = histogram;
      for (let bucket = 0; bucket < grid.length; bucket += 1) {
        const below = bucket === 0 ? Number.NEGATIVE_INFINITY : grid.limitOf(bucket - 1);
        const limit = grid.limitOf(bucket);
        assert.equal(histogram.bucketCount(bucket), observed.filter((value) => value > below && value <= limit).length);
        if (bucket > 0 && bucket < grid.length - 1) assert.ok((limit - below) / below <= 1 / shape.perDoubling);
      }
      assert.equal(histogram.count, observed.length);
      assert.ok(Math.abs(histogram.sum - observed.reduce((sum, value) => sum + value, 0)) < 1e-6 * (1 + histogram.sum));
      assert.equal(block.get(0) + block.get(block.names.length - 1), 0);
    }),
    { numRuns: 200 },
  );
});

test('limits of buckets belong to them, the widest histogram included; what is beyond the last limit is counted', () => {
  for (const shape of [DURATION_SHAPE, { smallest: 1, perDoubling: 8, doublings: 27 } as const]) {
    const grid = new BucketGrid(shape);
    for (let bucket = 0; bucket < grid.length - 1; bucket += 1) {
      assert.equal(grid.bucketOf(grid.limitOf(bucket)), bucket);
      assert.equal(grid.bucketOf(grid.limitOf(bucket) * (1 + 1e-9)), bucket + 1);
    }
    assert.equal(grid.bucketOf(Number.MAX_SAFE_INTEGER), grid.length - 1);
    assert.equal(grid.bucketOf(Number.NaN), grid.length - 1);
    assert.equal(grid.limitOf(grid.length - 1), Number.POSITIVE_INFINITY);
  }
  assert.equal(new BucketGrid(DURATION_SHAPE).limitOf(72), 62.5 * 2 ** 18);
});

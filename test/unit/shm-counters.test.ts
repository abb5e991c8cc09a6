import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AssertionError } from '../../src/base/assert.ts';
import { CounterBlock, Log2Histogram } from '../../src/shm/counters.ts';

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

test('a log2 histogram puts each value into the first bucket whose limit is not below it', () => {
  const shape = { smallest: 0.25, buckets: 12 };
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0, max: 1_000, noNaN: true }), { maxLength: 50 }), (values) => {
      const block = new CounterBlock(['before', ...Log2Histogram.slotNames('h', shape), 'after']);
      const histogram = new Log2Histogram(block, block.indexOf('h_count'), shape);
      for (const value of values) histogram.observe(value);
      for (let bucket = 0; bucket < shape.buckets; bucket += 1) {
        const below = bucket === 0 ? Number.NEGATIVE_INFINITY : histogram.bucketLimit(bucket - 1);
        const limit = histogram.bucketLimit(bucket);
        assert.equal(histogram.bucketCount(bucket), values.filter((value) => value > below && value <= limit).length);
      }
      assert.equal(histogram.count, values.length);
      assert.ok(Math.abs(histogram.sum - values.reduce((sum, value) => sum + value, 0)) < 1e-6);
      assert.equal(block.get(0) + block.get(block.names.length - 1), 0);
    }),
    { numRuns: 200 },
  );
  const block = new CounterBlock(Log2Histogram.slotNames('h', { smallest: 1, buckets: 32 }));
  const widest = new Log2Histogram(block, 0, { smallest: 1, buckets: 32 });
  for (const value of [2 ** 30, 2 ** 30 + 1, Number.MAX_SAFE_INTEGER]) widest.observe(value);
  assert.deepEqual([widest.bucketCount(30), widest.bucketCount(31)], [1, 2]);
  assert.equal(widest.bucketLimit(31), Number.POSITIVE_INFINITY);
});

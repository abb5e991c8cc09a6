import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { crc32, joinCrc32 } from '../../src/base/checksum.ts';

test('the checksum of two pieces is that of both, for any lengths', () => {
  // By length and start: arrays of thousands of bytes take minutes to shrink.
  const piece = fc
    .tuple(fc.nat(5_000), fc.nat(255))
    .map(([length, from]) => Buffer.from(Array.from({ length }, (_, i) => from + i * i)));
  fc.assert(
    fc.property(piece, piece, (first, second) => {
      const whole = crc32(Buffer.concat([first, second]));
      assert.equal(joinCrc32(crc32(first), crc32(second), second.length), whole);
    }),
    { numRuns: 500 },
  );
});

test('a second piece of a power of two of bytes, and one less, joins too: each bit of a length has its own factor', () => {
  const zeros = Buffer.alloc(2 ** 24);
  const first = crc32(Buffer.from('first'));
  for (let bits = 0; bits <= 24; bits++) {
    for (const length of [2 ** bits, 2 ** bits - 1]) {
      const second = zeros.subarray(0, length);
      assert.equal(joinCrc32(first, crc32(second), length), crc32(second, first), `${length} bytes`);
    }
  }
});

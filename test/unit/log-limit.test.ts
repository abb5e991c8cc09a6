import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LogLimit } from '../../src/net/log-limit.ts';

test('warnings that go on are told less and less often, at last once a minute, each kind for itself; after a quiet minute at once again', () => {
  let nowMs = 5_000;
  const told: [atS: number, message: string, leftOut: unknown][] = [];
  const log = {
    debug: () => undefined,
    info: () => undefined,
    error: () => undefined,
    warn: (message: string, fields: Readonly<Record<string, unknown>> = {}) => {
      told.push([nowMs / 1_000 - 5, message, fields.leftOut]);
    },
  };
  const limit = new LogLimit(log, () => nowMs);
  for (let i = 0; i < 2_000; i++) {
    limit.warn('key', 'wrong key', {});
    if (i === 100) limit.warn('size', 'too large', {});
    nowMs += 100;
  }
  assert.deepEqual(told, [
    [0, 'wrong key', undefined],
    [1, 'wrong key', 9],
    [3, 'wrong key', 19],
    [7, 'wrong key', 39],
    [10, 'too large', undefined],
    [15, 'wrong key', 79],
    [31, 'wrong key', 159],
    [63, 'wrong key', 319],
    [123, 'wrong key', 599],
    [183, 'wrong key', 599],
  ]);
  nowMs += 120_000;
  told.length = 0;
  limit.warn('key', 'wrong key', {});
  nowMs += 1_000;
  limit.warn('key', 'wrong key', {});
  assert.deepEqual(
    told.map(([, message]) => message),
    ['wrong key', 'wrong key'],
  );
});

/** What the client makes of refusals that no broker has made: those of a proxy that limits calls. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metadata, status } from '@grpc/grpc-js';
import { errorOf, RefusedError } from '../../src/client/errors.ts';
import { isPassing } from '../../src/client/positions.ts';
import { proxyDelayMs } from '../../src/client/proxy-refusal.ts';
import { makeStatus } from '../../src/grpc/status.ts';

function headers(fields: Readonly<Record<string, string>>): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(fields)) metadata.set(name, value);
  return metadata;
}

const DAY_MS = 86_400_000;
const SAID: readonly (readonly [Readonly<Record<string, string>>, number | null])[] = [
  [{ 'retry-after': '7' }, 7_000],
  [{ 'retry-after': '0' }, 0],
  [{ 'x-ratelimit-reset': '3' }, 3_000],
  // The filter that refused is the first; the others are in front of it.
  [{ 'x-ratelimit-reset': '52, 0, 0' }, 52_000],
  [{ 'retry-after': '2', 'x-ratelimit-reset': '52' }, 2_000],
  [{ 'retry-after': '99999999999' }, DAY_MS],
  // A date is allowed by HTTP; nobody here sends one.
  [{ 'retry-after': 'Thu, 26 Nov 2026 17:57:57 GMT' }, null],
  [{ 'retry-after': '-1' }, null],
  [{ 'retry-after': '1.5' }, null],
  [{ 'retry-after': '' }, null],
  [{ 'x-ratelimit-remaining': '0' }, null],
  [{}, null],
];

for (const [fields, delayMs] of SAID) {
  test(`a proxy that says ${JSON.stringify(fields)} asks to wait ${delayMs ?? 'for nothing'} (ms)`, () => {
    assert.equal(proxyDelayMs(headers(fields)), delayMs);
  });
}

const end = (code: number, metadata: Metadata) => ({ code, details: 'local_rate_limited', metadata });

test('a call that a proxy refused had no effect, and may be tried again when it says so; a subscription goes on', () => {
  const error = errorOf(end(status.RESOURCE_EXHAUSTED, headers({ 'retry-after': '7' })));
  assert.ok(error instanceof RefusedError);
  assert.deepEqual(
    [error.status, error.reason, error.outcome, error.retryAfterMs, error.retryable, isPassing(error)],
    ['RESOURCE_EXHAUSTED', null, 'none', 7_000, true, true],
  );
});

test('without a delay, or with another status, nothing is assumed of a call that has no details', () => {
  for (const it of [
    end(status.RESOURCE_EXHAUSTED, headers({ 'x-ratelimit-remaining': '0' })),
    end(status.UNAVAILABLE, headers({ 'retry-after': '7' })),
    end(status.UNKNOWN, headers({ 'x-ratelimit-reset': '7' })),
  ]) {
    const error = errorOf(it);
    assert.deepEqual([error.outcome, error.retryAfterMs, error.retryable], ['unknown', null, false], error.status);
  }
});

test("a broker's own refusal keeps its delay, whatever headers a proxy adds to it", () => {
  const refusal = makeStatus('OVERLOADED', '');
  refusal.metadata.set('x-ratelimit-reset', '86400');
  const error = errorOf({ code: refusal.code, details: 'busy', metadata: refusal.metadata });
  assert.equal(error.reason, 'OVERLOADED');
  assert.ok((error.retryAfterMs ?? DAY_MS) < 60_000, String(error.retryAfterMs));
});

/** A producer that is killed and resumed at every step of a publish stream: each batch has one range of ids, in order, and none is lost. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CLIENT_DEATHS, type Death, producerLives, RAW_DEATHS } from './producer-campaign.ts';

const named = (deaths: readonly Death[]): string => [...new Set(deaths.map(({ dieAt }) => dieAt))].join(', ');

describe('a producer is killed and goes on in a new process', () => {
  it(`[R25, W8] one that speaks PublishStream, killed at: ${named(RAW_DEATHS)}`, async (t) => {
    const result = await producerLives('raw', RAW_DEATHS);
    t.diagnostic(JSON.stringify({ ...result, violations: undefined }));
    assert.deepEqual(result.violations, []);
    assert.equal(result.lives, RAW_DEATHS.length + 1);
    assert.ok(result.forgotten > 0, 'no result was lost with its producer');
  });

  it(`[R25, R27] one that uses the client, killed at: ${named(CLIENT_DEATHS)}`, async (t) => {
    const result = await producerLives('client', CLIENT_DEATHS);
    t.diagnostic(JSON.stringify({ ...result, violations: undefined }));
    assert.deepEqual(result.violations, []);
    assert.ok(result.forgotten > 0, 'no result was lost with its producer');
  });
});

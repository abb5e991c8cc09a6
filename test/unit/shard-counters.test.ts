import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ShardCounters } from '../../src/workers/shard/shard-counters.ts';

test('the wait of the last request is shown while requests come or wait, and not for ever after', () => {
  const counters = new ShardCounters();
  const tell = (): number => {
    counters.levels(
      {
        activeSubjects: 0,
        subscriptions: 0,
        parkedFetches: 0,
        behind: { readers: 0, lagMax: 0 },
        connections: { open: 0, busy: 0, waiting: 0 },
      },
      { bytes: 0, segments: 0, batches: 0, subjects: 0, damaged: 0 },
    );
    return counters.get('queue_wait_ms');
  };
  counters.queueWait(300);
  assert.equal(tell(), 300, 'it came since the last time');
  counters.queueBytes(100);
  assert.equal(tell(), 300, 'others wait behind it');
  counters.queueBytes(0);
  counters.queueWait(200);
  assert.equal(tell(), 200);
  assert.equal(tell(), 0);
  assert.equal(counters.get('queue_wait_ms_total'), 500, 'what was counted stays');
});

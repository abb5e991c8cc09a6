import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LogReads } from '../../src/workers/raft/log-reads.ts';

test('an answer that was meant for the process before is none', () => {
  const asked: number[] = [];
  const readIndex = (context: number): 'accepted' => {
    asked.push(context);
    return 'accepted';
  };
  const replica = { readIndex, applied: 5 };
  const before = new LogReads(replica, 10, 7);
  const now = new LogReads(replica, 10, 1_000);
  assert.ok(before.ask());
  let isRead = false;
  now.wait(() => {
    isRead = true;
  });
  assert.equal(now.work(), false);
  assert.deepEqual(asked, [8, 1_001]);
  now.answered([{ context: 8, index: 1 }]);
  assert.equal(now.work(), false);
  assert.equal(isRead, false);
  now.answered([{ context: 1_001, index: 5 }]);
  assert.equal(now.work(), true);
  assert.ok(isRead);
});

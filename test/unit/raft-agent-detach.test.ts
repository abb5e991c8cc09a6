import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import type { RaftThreadData, ShardRings } from '../../src/workers/messages.ts';
import { RaftAgent } from '../../src/workers/raft/raft-agent.ts';
import type { RaftNode } from '../../src/workers/raft/raft-node.ts';
import { RaftClient } from '../../src/workers/shard/raft-client.ts';

test('a shard is not detached before what the log would not take of it is applied', () => {
  let isTaken = false;
  const applied: (() => void)[] = [];
  const node = {
    propose: () => isTaken,
    whenApplied: (then: () => void) => void applied.push(then),
    work: () => 0,
    machine: { floor: 0 },
  } as unknown as RaftNode;
  const data = { owners: new SharedArrayBuffer(1024), shardsMax: 1 } as RaftThreadData;
  const agent = new RaftAgent(node, data, () => undefined);
  const ring = createRing(1 << 16);
  const toRaft = createRing(1 << 22);
  const rings: ShardRings = {
    mainControl: ring,
    mainPayload: ring,
    toMainControl: ring,
    toMainPayload: ring,
    toRaft,
    fromRaft: createRing(1 << 16),
  };
  agent.attach(0, rings, createDoorbell());
  const shard = new RaftClient(toRaft, createDoorbell(), 1);
  shard.bytes.fill(1, shard.claim(8), 8);
  shard.send();
  agent.doWork();
  let isDetached = false;
  agent.detach(0, () => {
    isDetached = true;
  });
  assert.equal(applied.length, 0, 'the log does not have it yet');
  isTaken = true;
  agent.doWork();
  assert.equal(applied.length, 1);
  assert.equal(isDetached, false);
  applied[0]?.();
  assert.ok(isDetached);
});

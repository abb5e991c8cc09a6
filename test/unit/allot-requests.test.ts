import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AllotMachine } from '../../src/allot/allot-machine.ts';
import { NODE_STARTED_BYTES, originSize, writeNodeStarted, writeOrigin } from '../../src/allot/commands.ts';
import type { AllotmentInfo } from '../../src/allot/queries.ts';
import { BatchBuilder } from '../../src/batch/batch-builder.ts';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RAFT_RING_BYTES } from '../../src/workers/link.ts';
import { AllotRequests } from '../../src/workers/shard/allot-requests.ts';
import { OpenBatch } from '../../src/workers/shard/open-batch.ts';
import { RaftClient } from '../../src/workers/shard/raft-client.ts';
import { ActiveSubject } from '../../src/workers/shard/subjects.ts';
import { LIMITS, Transcript } from './allot-rig.ts';
import { appendMessage, plain, subjectRef } from './batch-support.ts';

const NODE = Buffer.from('a');

/** A machine that has applied the command that the client has gathered, as the first of a node that started. */
function applied(raft: RaftClient, length: number): AllotMachine {
  const payload = Buffer.alloc(originSize(NODE.length) + NODE_STARTED_BYTES + length);
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const behind = writeNodeStarted(view, writeOrigin(view, payload, 0, NODE, 1, 2), true);
  payload.set(raft.bytes.subarray(0, length), behind);
  const machine = new AllotMachine(LIMITS);
  machine.apply(1, 1_000, payload, new Transcript());
  return machine;
}

for (const [what, lives, kept] of [
  ['the longest of its lives', [60, 3_600], [60]],
  ['never, for a message that is endless', [60, 0], [60]],
  ['its only life', [0, 1], [0]],
  ['a second', [1, 1], [1]],
] as const) {
  test(`a batch is filed by what its open said, ${what}, also when rows are taken out of it later`, () => {
    const raft = new RaftClient(createRing(RAFT_RING_BYTES), createDoorbell(), 1);
    const requests = new AllotRequests(raft, 3);
    const ref = subjectRef('s');
    const builder = new BatchBuilder();
    builder.reset(ref.bytes, 0, ref.bytes.length, ref.hash);
    const batch = new OpenBatch(new ActiveSubject(ref), builder);
    lives.forEach((seconds, i) => {
      appendMessage(builder, plain(`${i}`, seconds));
      batch.addCall(i, { producer: Buffer.from('p'), sequence: i + 1, checksum: i }, Number.POSITIVE_INFINITY);
    });
    batch.sealed = builder.seal();
    requests.openBatch(batch);
    const end = raft.claim(0);
    const machine = applied(raft, end);
    const seen: AllotmentInfo[] = [];
    machine.openAllotmentsOf(NODE, (each) => void seen.push(each));
    const longest = lives.some((seconds) => seconds === 0) ? 0 : Math.max(...lives);
    assert.deepEqual(
      seen.map(({ base, count, openedAt, expiresMax }) => [base, count, openedAt, expiresMax]),
      [[1, 2, 1_000, longest]],
    );
    assert.equal(machine.everExpires(machine.find(ref.bytes, 0, ref.bytes.length, ref.hash)), true);
    batch.keepOnly((row) => row < kept.length);
    assert.equal(builder.expiresMax, kept[0]);
    assert.equal(batch.expiresMax, longest);
  });
}

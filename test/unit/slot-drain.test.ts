/** A drain, and work that begins by itself while the log is asked. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { slotOfHash } from '../../src/base/subject.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { type DrainParts, OwnedSlots, SlotDrain } from '../../src/workers/shard/slot-drain.ts';
import { ActiveSubjects } from '../../src/workers/shard/subjects.ts';
import { subjectRef } from './batch-support.ts';

test('a subject that asks the log again while its slot is being closed is waited for', () => {
  const ref = subjectRef('drain.test');
  const slot = slotOfHash(ref.hash);
  const subjects = new ActiveSubjects(true);
  const subject = subjects.get(ref.bytes, 0, ref.bytes.length, ref.hash);
  const passed: (() => void)[] = [];
  let exported = 0;
  const ignore = (): void => undefined;
  const drain = new SlotDrain({
    owned: new OwnedSlots(new Uint8Array(1_024).fill(1)),
    store: { exportSlot: () => null, importSlot: ignore },
    subjects,
    requests: { send: ignore },
    lookup: { release: ignore, drop: ignore, barrier: (then: () => void) => passed.push(then) },
    delivery: { drop: ignore },
    failures: { take: () => [] },
    peerBatches: { dropSlots: ignore },
    main: { blocked: false, ringPositions: { controlPosition: 0, payloadPosition: 0 } },
    fromMainPayload: new RingConsumer(createRing(1 << 16)),
    onExported: () => void exported++,
    onCancelled: ignore,
  } as unknown as DrainParts);
  drain.begin(1, [slot], 0);
  while (drain.work() > 0);
  assert.equal(passed.length, 1);
  // What LookupPath.confirm does when a reader doubts that an id is lost (delivery.ts, #isDoubtful), or a mark of another node's allotment (markForeign).
  subject.parked += 1;
  passed.shift()?.();
  while (drain.work() > 0);
  assert.equal(exported, 0);
  subject.parked -= 1;
  while (drain.work() > 0);
  passed.shift()?.();
  while (drain.work() > 0);
  assert.equal(exported, 1);
});

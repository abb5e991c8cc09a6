/** A subscriber that goes while its slot is on its way, when the move is given up. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { slotOfHash } from '../../src/base/subject.ts';
import type { DeliveryStream } from '../../src/grpc/delivery-stream.ts';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { OverloadGuard } from '../../src/workers/front/admission.ts';
import { Dispatcher } from '../../src/workers/front/dispatcher.ts';
import { Start, ToShard } from '../../src/workers/link.ts';
import { SlotTable } from '../../src/workers/slots/slot-table.ts';
import { subjectRef } from './batch-support.ts';
import { FRONT_LIMITS } from './front-rig.ts';

const SUBJECT = subjectRef('front.gone');

it('its shard, which keeps the slot, hears of it when the slot is released', () => {
  const rings = {
    mainControl: createRing(1 << 16),
    mainPayload: createRing(1 << 16),
    toMainControl: createRing(1 << 16),
    toMainPayload: createRing(1 << 16),
    toRaft: createRing(1 << 16),
    fromRaft: createRing(1 << 16),
  };
  const table = new SlotTable(1);
  const dispatcher = new Dispatcher(FRONT_LIMITS, new OverloadGuard({ targetMs: 1_000, intervalMs: 1_000 }), table);
  dispatcher.attach({ shard: 0, rings, doorbell: createDoorbell() });
  dispatcher.admit();
  const control = new RingConsumer(rings.mainControl);
  const types = (): number[] => {
    const seen: number[] = [];
    control.drain((type) => void seen.push(type), 100);
    return seen;
  };
  let cancel = (): void => undefined;
  const stream = {
    onCancelled(listener: () => void) {
      cancel = listener;
    },
    onDrained: () => undefined,
  } as unknown as DeliveryStream;
  const start = { kind: Start.NEW, value: 0 };
  dispatcher.subscriptions.open(SUBJECT.bytes as Buffer, SUBJECT.hash, 0, start, stream);
  assert.deepEqual(types(), [ToShard.SUBSCRIBE]);
  const slot = slotOfHash(SUBJECT.hash);
  table.hold([slot]);
  dispatcher.slots.holdSlots(new Set([slot]));
  cancel();
  table.release([slot]);
  dispatcher.slots.resumeSlots(new Set([slot]));
  assert.deepEqual(types(), [ToShard.UNSUBSCRIBE]);
});

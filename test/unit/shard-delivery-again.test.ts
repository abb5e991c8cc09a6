/** A subscription that is opened again in a shard that still has it: a move of its slot was given up. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import type { MessageStore, ReadResult, StoredItem } from '../../src/storage/store.ts';
import { takeRun } from '../../src/workers/front/run.ts';
import { Credit, Encoding } from '../../src/workers/link.ts';
import { Delivery } from '../../src/workers/shard/delivery.ts';
import { MainPort } from '../../src/workers/shard/main-port.ts';
import { ActiveSubject } from '../../src/workers/shard/subjects.ts';
import { dataBatch, plain, subjectRef } from './batch-support.ts';

const SUBJECT = subjectRef('delivery.again');

it('goes on where it is said to stand, also if what paused it was heard and what resumed it was not', () => {
  const items: StoredItem[] = [1, 2, 3].map((id) => {
    const { bytes } = dataBatch(SUBJECT, [plain(`m${id}`)], { base: id, publishedAt: Date.now() });
    return { kind: 'data', from: id, to: id + 1, base: id, bytes };
  });
  const read = (_subject: unknown, from: number, until: number): ReadResult => {
    const item = items.find((entry) => entry.to > from && entry.from <= until);
    return { items: item === undefined ? [] : [item], next: item?.to ?? until + 1 };
  };
  const payload = createRing(1 << 16);
  const main = new MainPort(createRing(1 << 16), payload, createDoorbell());
  const ring = new RingConsumer(payload);
  const nothing = (): void => undefined;
  const delivery = new Delivery({ read } as unknown as MessageStore, main, nothing, () => assert.fail('damage'));
  const subject = new ActiveSubject(SUBJECT);
  subject.learn({ head: 3, settled: 3, first: 1, everExpires: false });
  const joining = { subscription: 7, group: 3, encoding: Encoding.MESSAGES, credit: 1 << 16 };
  delivery.join(subject, joining, 1);
  delivery.credit(7, Credit.PAUSE, 2, 0);
  // Here main says RESUME, but the slot is held: nothing is sent. The move is given up, and main subscribes again from where it stands.
  delivery.join(subject, joining, 2);
  while (delivery.work() > 0);
  const ids: number[] = [];
  ring.drain((_type, offset, length) => void ids.push(...takeRun(ring.bytes, ring.view, offset, length).ids), 100);
  assert.deepEqual(ids, [2, 3]);
});

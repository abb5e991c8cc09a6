/** The main thread's end of a subscription, over the real rings of a shard. */

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Anonymous } from '../../src/access/caller.ts';
import type { DeliveryStream } from '../../src/grpc/delivery-stream.ts';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import type { MessageStore } from '../../src/storage/store.ts';
import { OverloadGuard } from '../../src/workers/front/admission.ts';
import { Dispatcher } from '../../src/workers/front/dispatcher.ts';
import { Encoding, Start } from '../../src/workers/link.ts';
import { Delivery } from '../../src/workers/shard/delivery.ts';
import { LookupPath } from '../../src/workers/shard/lookup-path.ts';
import { MainPort } from '../../src/workers/shard/main-port.ts';
import { RaftClient } from '../../src/workers/shard/raft-client.ts';
import { ActiveSubject } from '../../src/workers/shard/subjects.ts';
import { SlotTable } from '../../src/workers/slots/slot-table.ts';
import { encodeFetch } from '../support/wire.ts';
import { dataBatch, plain, subjectRef } from './batch-support.ts';
import { FRONT_LIMITS } from './front-rig.ts';

const SUBJECT = subjectRef('front.test');
const GROUP = 1;
const SUBSCRIPTION = 1;
const CREDIT = 1 << 20;
/** More than main takes off a control ring in one round. */
const ANSWERS = 1_500;

/** Where the frames of a stream end up. */
class Sink {
  isOpen = false;
  readonly frames: Buffer[] = [];
  readonly unsentBytes = 0;
  readonly isFull = false;
  readonly onCancelled = (): void => undefined;
  readonly onDrained = (): void => undefined;
  open(): void {
    this.isOpen = true;
  }
  write(frames: Buffer): boolean {
    assert(this.isOpen, 'a message before the headers');
    this.frames.push(frames);
    return true;
  }
}

it('[P6] a message that is stored right behind the start of a subscription is delivered, whatever answers are in front of both', () => {
  const toRaft = createRing(1 << 16);
  const rings = {
    mainControl: createRing(1 << 18),
    mainPayload: createRing(1 << 16),
    toMainControl: createRing(1 << 18),
    toMainPayload: createRing(1 << 16),
    toRaft,
    fromRaft: createRing(1 << 16),
  };
  const dispatcher = new Dispatcher(
    { ...FRONT_LIMITS, callsMax: ANSWERS, subscriptionsMax: 1, bufferBytes: CREDIT },
    new OverloadGuard({ targetMs: 1_000, intervalMs: 1_000 }),
    new SlotTable(1),
  );
  dispatcher.attach({ shard: 0, rings, doorbell: createDoorbell() });
  dispatcher.admit();
  const main = new MainPort(rings.toMainControl, rings.toMainPayload, createDoorbell());
  const store = { read: () => ({ items: [], next: 2 }) } as unknown as MessageStore;
  const raft = new RaftClient(toRaft, createDoorbell(), 0);
  const unexpected = (): void => assert.fail('nothing is damaged');
  const delivery = new Delivery(store, main, () => undefined, unexpected);
  const lookup = new LookupPath({
    store,
    raft,
    main,
    delivery,
    onProgress: () => undefined,
    onDamage: unexpected,
    database: null,
  });

  const sink = new Sink();
  let refused = 0;
  for (let i = 0; i < ANSWERS; i++)
    dispatcher.fetch(encodeFetch('front.test', 1), Infinity, () => void refused++, new Anonymous('default'), null);
  const start = { kind: Start.NEW, value: 0 };
  dispatcher.subscriptions.open(SUBJECT.bytes as Buffer, SUBJECT.hash, 0, start, sink as unknown as DeliveryStream);

  // What the shard does in one round: answers, the start, and a message that was stored since.
  for (let call = 0; call < ANSWERS; call++) main.refuse(call, 'ID_NOT_FOUND');
  const subject = new ActiveSubject(SUBJECT);
  lookup.subscribe(subject, {
    subscription: SUBSCRIPTION,
    group: GROUP,
    encoding: Encoding.MESSAGES,
    start: Start.NEW,
    value: 0,
    from: 0,
    credit: CREDIT,
  });
  lookup.answered(0, { exists: false, first: 1, head: 0, settled: 0, everExpires: false, undecided: false });
  const allotment = subject.allotted(1, 1, Date.now());
  subject.resolved(allotment);
  delivery.resolved(subject, allotment, dataBatch(SUBJECT, [plain('x')], { base: 1 }).bytes);

  while (dispatcher.doWork() > 0);
  assert.equal(refused, ANSWERS);
  assert.equal(sink.frames.length, 1);
});

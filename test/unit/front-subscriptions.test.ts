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

/** A dispatcher, and a shard that reads an empty store, with the rings between them. */
function rig(callsMax: number, subscriptionsMax: number) {
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
    { ...FRONT_LIMITS, callsMax, subscriptionsMax, bufferBytes: CREDIT },
    new OverloadGuard({ targetMs: 1_000, intervalMs: 1_000 }),
    new SlotTable(1),
  );
  dispatcher.attach({ shard: 0, rings, doorbell: createDoorbell() });
  dispatcher.admit();
  const main = new MainPort(rings.toMainControl, rings.toMainPayload, createDoorbell());
  const store = { read: () => ({ items: [], next: 2 }), findTime: () => null } as unknown as MessageStore;
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
  const subject = new ActiveSubject(SUBJECT);
  return {
    dispatcher,
    main,
    /** Asks main for a subscription; then `answered` is the shard's part in it. */
    open(start: number, value: number): Sink {
      const sink = new Sink();
      const stream = sink as unknown as DeliveryStream;
      dispatcher.subscriptions.open(SUBJECT.bytes as Buffer, SUBJECT.hash, 0, { kind: start, value }, stream);
      return sink;
    },
    answered(question: number, start: number, value: number): void {
      const position = { start, value, from: 0 };
      const subscription = question + 1;
      const encoding = Encoding.MESSAGES;
      lookup.subscribe(subject, { subscription, group: GROUP, encoding, credit: CREDIT, ...position });
      lookup.answered(question, { exists: false, first: 1, head: 0, settled: 0, everExpires: false, undecided: false });
    },
    stored(base: number, publishedAt: number): void {
      const allotment = subject.allotted(base, 1, publishedAt);
      subject.resolved(allotment);
      if (subject.awaiting > 0) lookup.reached(subject, allotment);
      delivery.resolved(subject, allotment, dataBatch(SUBJECT, [plain('x')], { base, publishedAt }).bytes);
    },
  };
}

it('[P6] a message that is stored right behind the start of a subscription is delivered, whatever answers are in front of both', () => {
  const { dispatcher, main, open, answered, stored } = rig(ANSWERS, 1);
  let refused = 0;
  for (let i = 0; i < ANSWERS; i++)
    dispatcher.fetch(encodeFetch('front.test', 1), Infinity, () => void refused++, new Anonymous('default'), null);
  const sink = open(Start.NEW, 0);

  // What the shard does in one round: answers, the start, and a message that was stored since.
  for (let call = 0; call < ANSWERS; call++) main.refuse(call, 'ID_NOT_FOUND');
  answered(0, Start.NEW, 0);
  stored(1, Date.now());

  while (dispatcher.doWork() > 0);
  assert.equal(refused, ANSWERS);
  assert.equal(sink.frames.length, 1);
});

it('a subscription that waits for its time gets nothing of what goes to others of its subject before', () => {
  const { dispatcher, open, answered, stored } = rig(1, 2);
  const time = Date.now() + 1_000;
  const sinks = [open(Start.NEW, 0), open(Start.TIME, time)];
  answered(0, Start.NEW, 0);
  answered(1, Start.TIME, time);
  const had: number[][] = [];
  for (const [base, publishedAt] of [
    [1, time - 1],
    [2, time],
    [3, time + 1],
  ] as const) {
    stored(base, publishedAt);
    while (dispatcher.doWork() > 0);
    had.push(sinks.map(({ frames }) => frames.length));
  }
  assert.deepEqual(had, [
    [1, 0],
    [2, 1],
    [3, 2],
  ]);
});

/** What the main thread keeps for a shard that does not read: bounded by what is open. Real gRPC and rings; the shard is the test's. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { ServiceError } from '@grpc/grpc-js';
import { BrokerError, REASON_NAMES } from '../../src/base/errors.ts';
import { slotOfHash, subjectHash } from '../../src/base/subject.ts';
import { frameOf } from '../../src/grpc/frame.ts';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { OverloadGuard } from '../../src/workers/front/admission.ts';
import { Dispatcher } from '../../src/workers/front/dispatcher.ts';
import { Credit, ToShard } from '../../src/workers/link.ts';
import { MainPort } from '../../src/workers/shard/main-port.ts';
import { SlotTable } from '../../src/workers/slots/slot-table.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { ConsumeStream } from '../support/consume-stream.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { RawStream } from '../support/raw-stream.ts';
import { until } from '../support/until.ts';
import { encodePublish } from '../support/wire.ts';
import { FRONT_LIMITS } from './front-rig.ts';
import { startServer } from './grpc-rig.ts';

const CALLS_MAX = 4;
const SUBJECT = Buffer.from('front.bounds');
const NOBODY = { id: 1 << 20, group: { id: 1, shard: 0, hash: 0, subject: SUBJECT, encoding: 0 } };

/** A main thread with one shard, which reads its control ring when the test says so. */
class Front {
  readonly table = new SlotTable(1);
  readonly dispatcher: Dispatcher;
  readonly toMain: MainPort;
  address = '';
  readonly #control: RingConsumer;

  constructor() {
    const rings = {
      mainControl: createRing(1 << 12),
      mainPayload: createRing(1 << 16),
      toMainControl: createRing(1 << 16),
      toMainPayload: createRing(1 << 16),
      toRaft: createRing(1 << 12),
      fromRaft: createRing(1 << 12),
    };
    this.dispatcher = new Dispatcher(
      {
        ...FRONT_LIMITS,
        callsMax: CALLS_MAX,
        bytesMax: 1 << 24,
        subscriptionsMax: 100,
        unsentBytesMax: 1 << 24,
        producerStreamsMax: 10,
      },
      new OverloadGuard({ targetMs: 1_000, intervalMs: 1_000 }),
      this.table,
    );
    this.dispatcher.attach({ shard: 0, rings, doorbell: createDoorbell() });
    this.dispatcher.admit();
    this.toMain = new MainPort(rings.toMainControl, rings.toMainPayload, createDoorbell());
    this.#control = new RingConsumer(rings.mainControl);
  }

  static async start(t: TestContext): Promise<Front> {
    const front = new Front();
    const { dispatcher } = front;
    const server = await startServer(t, { engine: dispatcher, receiving: dispatcher.receiving });
    front.address = server.address;
    return front;
  }

  get isBlocked(): boolean {
    return this.dispatcher.links().some(({ controlOutbox }) => controlOutbox.blocked);
  }

  /** Until records wait for room on the control ring. */
  fill(): void {
    while (!this.isBlocked) this.dispatcher.credit(NOBODY, Credit.MORE, 0, 1);
  }

  /** The shard reads all there is; the types of the records, and its first number, but for those that only have filled the ring. */
  read(): { readonly type: number; readonly first: number }[] {
    const records: { type: number; first: number }[] = [];
    const onRecord = (type: number, offset: number): void => {
      const first = this.#control.view.getUint32(offset, true);
      if (type !== ToShard.CREDIT) records.push({ type, first });
    };
    while (this.#control.drain(onRecord, 10_000) > 0) this.dispatcher.doWork();
    return records;
  }
}

const reasonOf = (ended: Promise<unknown>): Promise<unknown> =>
  ended.then(
    () => 'OK',
    (error: unknown) =>
      error instanceof BrokerError || error instanceof CallError
        ? error.reason
        : new CallError(error as ServiceError).reason,
  );

describe('with a full call table', () => {
  it('information and trims are refused for that, and not as if there were no shard', async () => {
    const { dispatcher } = new Front();
    const open = Array.from({ length: CALLS_MAX }, () => reasonOf(dispatcher.info(SUBJECT)));
    assert.equal(await reasonOf(dispatcher.info(SUBJECT)), 'IN_FLIGHT_FULL');
    assert.equal(await reasonOf(dispatcher.trim(SUBJECT, 2)), 'IN_FLIGHT_FULL');
    dispatcher.detach(0);
    assert.deepEqual(await Promise.all(open), new Array(CALLS_MAX).fill('OUTCOME_UNKNOWN'));
    assert.equal(await reasonOf(dispatcher.info(SUBJECT)), 'NOT_READY');
  });
});

describe('a publish in pieces', { timeout: 20_000 }, () => {
  const COLUMN = REASON_NAMES.indexOf('IN_FLIGHT_FULL');
  const request = encodePublish({ subject: 'front.bounds', body: Buffer.alloc(1 << 10, 7) });

  it('is refused at its second piece when nothing more can be taken, and counts once', async (t) => {
    const front = await Front.start(t);
    const { dispatcher } = front;
    const open = Array.from({ length: CALLS_MAX }, () => reasonOf(dispatcher.info(SUBJECT)));
    using stream = new RawStream(front.address, '/broker.Broker/Publish');
    const frame = frameOf(request);
    await stream.write(frame.subarray(0, 100));
    await until(
      () => dispatcher.receiving.bytes > 100,
      () => `${dispatcher.receiving.bytes} bytes`,
    );
    await stream.write(frame.subarray(100, 200));
    assert.equal((await stream.told).reason, 'IN_FLIGHT_FULL');
    assert.equal(dispatcher.metrics.refusals.admission[COLUMN], 1);
    assert.equal(dispatcher.receiving.bytes, 0);
    dispatcher.detach(0);
    await Promise.all(open);
  });

  it('comes through when there is room', async (t) => {
    const front = await Front.start(t);
    using stream = new RawStream(front.address, '/broker.Broker/Publish');
    const frame = frameOf(request);
    await stream.write(frame.subarray(0, 100));
    await until(
      () => front.dispatcher.receiving.bytes > 100,
      () => 'nothing has come',
    );
    await stream.write(frame.subarray(100));
    stream.halfClose();
    await until(
      () => front.dispatcher.callsInFlight === 1,
      () => JSON.stringify(stream.end),
    );
    front.dispatcher.detach(0);
    assert.equal((await stream.told).reason, 'OUTCOME_UNKNOWN');
  });
});

describe('while a shard does not read its control ring', { timeout: 20_000 }, () => {
  it('nothing new is taken for it, what is open may end, and when it reads again all is as before', async (t) => {
    const front = await Front.start(t);
    const { dispatcher, address } = front;
    const client = new BrokerClient(address);
    t.after(() => client.close());
    const endOf = async (subjects: Parameters<typeof ConsumeStream.open>[1]): Promise<string | null | undefined> => {
      using stream = await ConsumeStream.open(address, subjects);
      return stream.status?.reason;
    };
    const open = client.subscribe('front.open', { at: 'new' }, { onMessage: () => undefined });
    await until(
      () => dispatcher.subscriptions.count === 1,
      () => 'the subscription has not come',
    );
    front.fill();
    const refused: (string | null | undefined)[] = [];
    const end = (error: CallError | null): void => void refused.push(error?.reason);
    await client.subscribe('front.bounds', { at: 'new' }, { onMessage: () => undefined, onEnd: end }).ended;
    refused.push(await endOf([{ subject: 'front.bounds', new: true }]));
    refused.push(await endOf([{ subject: 'front.*', new: true }]));
    using producer = await PublishStream.open(address, 'front-bounds');
    refused.push(producer.status?.reason);
    refused.push((await reasonOf(dispatcher.info(SUBJECT))) as string);
    refused.push((await reasonOf(dispatcher.trim(SUBJECT, 2))) as string);
    assert.deepEqual(refused, new Array(6).fill('QUEUE_FULL'));
    open.cancel();
    await until(
      () => dispatcher.subscriptions.count === 0,
      () => 'the subscription is still there',
    );
    assert.deepEqual(
      front.read().map(({ type }) => type),
      [ToShard.SUBSCRIBE, ToShard.UNSUBSCRIBE],
    );
    const later = client.subscribe('front.bounds', { at: 'new' }, { onMessage: () => undefined });
    await until(
      () => dispatcher.subscriptions.count === 1,
      () => 'the subscription has not come',
    );
    assert.deepEqual(
      front.read().map(({ type }) => type),
      [ToShard.SUBSCRIBE],
    );
    later.cancel();
  });

  it('calls that were held for a slot wait until there is room', async () => {
    const front = new Front();
    const { dispatcher } = front;
    const hash = subjectHash(SUBJECT, 0, SUBJECT.length);
    front.table.hold([slotOfHash(hash)]);
    const held = reasonOf(dispatcher.info(SUBJECT));
    front.fill();
    assert.equal(dispatcher.slots.flushHeld(), false);
    assert.deepEqual(front.read(), []);
    assert.equal(dispatcher.slots.flushHeld(), true);
    assert.deepEqual(
      front.read().map(({ type }) => type),
      [ToShard.INFO],
    );
    dispatcher.detach(0);
    assert.equal(await held, 'OUTCOME_UNKNOWN');
  });

  it('a consume stream goes on with its heartbeats, and has one question open', async (t) => {
    const front = await Front.start(t);
    const { dispatcher, toMain } = front;
    using stream = new ConsumeStream(front.address);
    const subjects = [{ subject: 'front.bounds', new: true }];
    stream.write({ open: { subjects, resumeToken: Buffer.alloc(0), heartbeatMs: 100 }, credit: undefined });
    await until(
      () => dispatcher.seats.open === 1,
      () => 'the stream has not come',
    );
    dispatcher.consumers.started(1, 1, 0, 0);
    await stream.until(() => stream.heartbeats >= 3);
    const asked = front.read().filter(({ type }) => type === ToShard.POSITIONS);
    assert.equal(asked.length, 1);
    toMain.positions(asked[0]?.first ?? 0, [{ head: 7, settled: 6 }]);
    dispatcher.doWork();
    await stream.until(() => stream.positions.get('front.bounds')?.head === 7);
    await until(
      () => front.read().some(({ type }) => type === ToShard.POSITIONS),
      () => 'nothing is asked any more',
    );
  });
});

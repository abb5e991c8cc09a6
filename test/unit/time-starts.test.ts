/** Starts at a time, in the shard: which id they are fixed at, whatever is on its way while the store is asked. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import type { MessageStore } from '../../src/storage/store.ts';
import { Encoding, Start, ToMain } from '../../src/workers/link.ts';
import { Delivery } from '../../src/workers/shard/delivery.ts';
import { LookupPath } from '../../src/workers/shard/lookup-path.ts';
import { MainPort } from '../../src/workers/shard/main-port.ts';
import { RaftClient } from '../../src/workers/shard/raft-client.ts';
import { ActiveSubject, type Unresolved } from '../../src/workers/shard/subjects.ts';
import { until } from '../support/until.ts';
import { subjectRef } from './batch-support.ts';

const TIME = 5;
const HEAD = 9;

/** What reads in a shard, over a store whose search is answered by the test. It is made apart from the subject, which nothing here shares a scope with. */
function reading() {
  const searches: PromiseWithResolvers<number | null>[] = [];
  const store = {
    findTime: () => {
      const search = Promise.withResolvers<number | null>();
      searches.push(search);
      return search.promise;
    },
    read: () => ({ items: [], next: 1 }),
  } as unknown as MessageStore;
  const payload = createRing(1 << 16);
  const main = new MainPort(createRing(1 << 16), payload, createDoorbell());
  const [ignore, fail] = [(): void => undefined, (): void => assert.fail('nothing is damaged')];
  const delivery = new Delivery(store, main, ignore, fail);
  const lookup = new LookupPath({
    store,
    raft: new RaftClient(createRing(1 << 16), createDoorbell(), 0),
    main,
    delivery,
    onProgress: ignore,
    onDamage: fail,
    database: null,
  });
  return { searches, payload, main, delivery, lookup };
}

/** A subject with 9 ids, all of them before the time, and a subscription. */
function rig(isShared = false) {
  const { searches, payload, main, delivery, lookup } = reading();
  const subject = new ActiveSubject(subjectRef('timed'), isShared);
  const at = { start: Start.TIME, value: TIME, from: 0 };
  const state = { exists: true, first: 1, head: HEAD, settled: HEAD, everExpires: false, undecided: false };
  const subscribe = (question: number): void => {
    lookup.subscribe(subject, { subscription: 1, group: 1, encoding: Encoding.MESSAGES, credit: 1, ...at });
    lookup.answered(question, state);
  };
  subscribe(0);
  const consumer = new RingConsumer(payload);
  return {
    subject,
    lookup,
    /** Main asks for the same subscription once more. */
    again: () => subscribe(1),
    get isJoined(): boolean {
      return delivery.members > 0;
    },
    /** What main was told of the start since the last call. */
    told(): number[] {
      const starts: number[] = [];
      consumer.drain((type, offset) => {
        if (type === ToMain.SUBSCRIBED) starts.push(consumer.view.getFloat64(offset, true));
      }, 100);
      return starts;
    },
    /** The ring to main is full, or has room again. */
    block(t: TestContext): () => void {
      const full = t.mock.method(main, 'trySubscribed', () => false);
      return () => full.mock.restore();
    },
    /** All searches that are on their way have found this. */
    async found(id: number | null): Promise<void> {
      for (const search of searches.splice(0)) search.resolve(id);
      await new Promise((resolve) => setImmediate(resolve));
    },
    resolve(allotment: Unresolved): void {
      subject.resolved(allotment);
      if (subject.awaiting > 0) lookup.reached(subject, allotment);
    },
  };
}

/** A shared subject whose only subscription waited for its time and is gone: nobody but the lookup path may still hold the subject. */
async function left(by: 'client' | 'subject') {
  const { found, lookup, subject, told } = rig(true);
  await found(null);
  assert.deepEqual([told(), subject.awaiting], [[HEAD + 1], 1]);
  if (by === 'client') lookup.unsubscribe(1);
  else lookup.drop(new Set([subject]));
  // The Raft thread need not tell of it any more.
  lookup.sweep(0, TIME);
  return { lookup, subject: new WeakRef(subject) };
}

describe('a start at a time', () => {
  it('that has not come waits; the first id of that time begins it, in whatever order verdicts come', async () => {
    const state = rig();
    await state.found(null);
    assert.deepEqual([state.told(), state.isJoined], [[HEAD + 1], false]);
    // It holds nothing up that waits for the subject to settle, and keeps the subject.
    assert.deepEqual([state.subject.settled, state.subject.idle], [true, false]);
    state.resolve(state.subject.allotted(10, 1, TIME - 1));
    assert.deepEqual([state.told(), state.isJoined], [[], false]);
    const first = state.subject.allotted(11, 2, TIME);
    const second = state.subject.allotted(13, 1, TIME + 1);
    state.resolve(second);
    assert.deepEqual([state.told(), state.isJoined], [[11], true]);
    state.resolve(first);
    assert.deepEqual(state.told(), []);
  });

  it('is fixed at what is on its way when the search ends', async () => {
    const state = rig();
    state.subject.allotted(10, 1, TIME);
    await state.found(null);
    assert.deepEqual([state.told(), state.isJoined], [[10], true]);
  });

  it('is fixed at what got its verdict during the search, which may have missed it', async () => {
    const state = rig();
    state.resolve(state.subject.allotted(10, 1, TIME));
    state.resolve(state.subject.allotted(11, 1, TIME));
    await state.found(11);
    assert.deepEqual([state.told(), state.isJoined], [[10], true]);
  });

  it('that is waited for is forgotten with its client, and with its subject', async () => {
    for (const leave of ['client', 'subject']) {
      const state = rig();
      await state.found(null);
      assert.equal(state.subject.awaiting, 1);
      if (leave === 'client') state.lookup.unsubscribe(1);
      else state.lookup.drop(new Set([state.subject]));
      assert.equal(state.subject.awaiting, 0);
      state.resolve(state.subject.allotted(10, 1, TIME));
      assert.deepEqual([state.isJoined, state.subject.parked], [false, 0]);
    }
  });

  it('that is asked for again before its search has ended is fixed by the later one', async () => {
    const state = rig();
    state.again();
    await state.found(7);
    assert.deepEqual([state.told(), state.isJoined, state.subject.parked], [[7], true, 0]);
  });

  it('that is asked for twice and given up before both answers is begun by neither', async () => {
    const state = rig();
    state.again();
    state.lookup.unsubscribe(1);
    await state.found(7);
    assert.deepEqual([state.told(), state.isJoined], [[], false]);
    assert.deepEqual([state.subject.parked, state.subject.awaiting], [0, 0]);
  });

  it('that is given up, and asked for again meanwhile, is begun by the second answer alone', async () => {
    const state = rig();
    state.lookup.unsubscribe(1);
    state.again();
    await state.found(7);
    assert.deepEqual([state.told(), state.isJoined, state.subject.parked], [[7], true, 0]);
  });

  it('that is asked for again while main cannot be told of the first answer misses nothing between the two', async (t) => {
    const state = rig();
    const unblock = state.block(t);
    await state.found(null);
    state.resolve(state.subject.allotted(10, 1, TIME));
    state.again();
    state.resolve(state.subject.allotted(11, 1, TIME));
    unblock();
    state.lookup.work();
    await state.found(10);
    assert.deepEqual([state.told().at(-1), state.isJoined, state.subject.parked], [10, true, 0]);
  });

  it('that is waited for by nobody any more keeps no shared subject, also if that never progresses', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const rest = [await left('client'), await left('subject')];
    await until(
      () => {
        collect();
        return rest.every(({ subject }) => subject.deref() === undefined);
      },
      () => rest.map(({ subject }) => (subject.deref() === undefined ? 'gone' : 'kept')),
      5_000,
    );
    for (const { lookup } of rest) assert.equal(lookup.parked, 0);
  });
});

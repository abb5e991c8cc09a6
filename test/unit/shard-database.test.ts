/** What a shard does with a database that is slow or away. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { BrokerError } from '../../src/base/errors.ts';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import type { MessageStore, SubjectRef } from '../../src/storage/store.ts';
import { Encoding, Start } from '../../src/workers/link.ts';
import { DatabaseTrims } from '../../src/workers/shard/database-trims.ts';
import { Delivery } from '../../src/workers/shard/delivery.ts';
import { LookupPath } from '../../src/workers/shard/lookup-path.ts';
import { MainPort } from '../../src/workers/shard/main-port.ts';
import { RaftClient } from '../../src/workers/shard/raft-client.ts';
import { RecentBatches } from '../../src/workers/shard/recent-batches.ts';
import { ActiveSubject } from '../../src/workers/shard/subjects.ts';
import { subjectRef } from './batch-support.ts';

/** What a shard thread does when its store rejects a read with the error that `source` makes: 'waits', or the error that ends it. */
async function threadWith(what: 'read' | 'findTime', source: string): Promise<string> {
  const worker = new Worker(new URL('store-error-thread.ts', import.meta.url), { workerData: { what, source } });
  try {
    return await new Promise((resolve) => {
      worker.once('message', resolve);
      worker.once('error', (error) => resolve(`${(error as Error).name}: ${(error as Error).message}`));
    });
  } finally {
    await worker.terminate();
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('trims of a database', () => {
  it('run one at a time, and of each subject only the furthest waits', async () => {
    const running: (() => void)[] = [];
    const done: string[] = [];
    const trim = ({ bytes }: SubjectRef, first: number): Promise<void> => {
      done.push(`${Buffer.from(bytes).toString()} ${first}`);
      return new Promise((resolve) => running.push(resolve));
    };
    const trims = new DatabaseTrims({ trim }, () => assert.fail('a trim failed'));
    for (let first = 1; first <= 1_000; first++) {
      trims.add(subjectRef('a'), first);
      trims.add(subjectRef('b'), 2_000 - first);
    }
    for (let ended = 0; ended < 3; ended++) {
      assert.equal(running.length, 1, 'trims side by side');
      running.shift()?.();
      await turn();
    }
    assert.deepEqual(done, ['a 1', 'b 1999', 'a 1000']);
    trims.add(subjectRef('b'), 3_000);
    assert.equal(done.at(-1), 'b 3000');
    trims.add(subjectRef('a'), 4_000);
    trims.close();
    running.shift()?.();
    await turn();
    assert.equal(done.at(-1), 'b 3000', 'a trim began after the end');
  });

  it('that fail are tried again behind the others, after a delay that doubles up to a minute, until they succeed', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const failed: unknown[] = [];
    const tried: number[] = [];
    const error = new BrokerError('STORE_UNAVAILABLE');
    let isAway = true;
    const trim = (_subject: SubjectRef, first: number): Promise<void> => {
      tried.push(first);
      return isAway ? Promise.reject(error) : Promise.resolve();
    };
    const trims = new DatabaseTrims({ trim }, (why) => failed.push(why));
    trims.add(subjectRef('a'), 1);
    trims.add(subjectRef('b'), 2);
    await turn();
    for (const ms of [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]) {
      const before = tried.length;
      // What comes meanwhile is not tried at once: the database is away.
      trims.add(subjectRef('b'), 2);
      t.mock.timers.tick(ms - 1);
      await turn();
      assert.equal(tried.length, before, `tried before ${ms} ms were over`);
      t.mock.timers.tick(1);
      await turn();
    }
    assert.deepEqual(tried, [1, 2, 1, 2, 1, 2, 1, 2, 1]);
    assert.deepEqual(failed, [error], 'told once');
    trims.add(subjectRef('a'), 3);
    isAway = false;
    t.mock.timers.tick(60_000);
    await turn();
    assert.deepEqual(tried.slice(-2), [2, 3], 'the furthest of each subject');
    trims.add(subjectRef('a'), 4);
    assert.equal(tried.at(-1), 4, 'at once again');
    await turn();
  });

  it('that failed are not tried again after the end', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    let tried = 0;
    const trim = (): Promise<void> => {
      tried += 1;
      return Promise.reject(new BrokerError('STORE_UNAVAILABLE'));
    };
    const trims = new DatabaseTrims({ trim }, () => undefined);
    trims.add(subjectRef('a'), 1);
    await turn();
    trims.close();
    t.mock.timers.tick(60_000);
    await turn();
    assert.equal(tried, 1);
  });
});

describe('a subscription by time that waits for its database', () => {
  it('[P6] is looked for no longer when its client has gone', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    let questions = 0;
    const store = {
      findTime() {
        questions += 1;
        return Promise.reject(new BrokerError('STORE_UNAVAILABLE'));
      },
    } as unknown as MessageStore;
    const main = new MainPort(createRing(1 << 16), createRing(1 << 16), createDoorbell());
    const [ignore, fail] = [(): void => undefined, (): void => assert.fail('nothing is damaged')];
    const lookup = new LookupPath({
      store,
      raft: new RaftClient(createRing(1 << 16), createDoorbell(), 0),
      main,
      delivery: new Delivery(store, main, ignore, fail),
      onProgress: ignore,
      onDamage: fail,
      database: { recent: new RecentBatches(1 << 16), readsMax: 1, waitMs: 1_000 },
    });
    const subject = new ActiveSubject(subjectRef('subscribed'));
    const at = { start: Start.TIME, value: 5, from: 0 };
    const request = { subscription: 1, group: 1, encoding: Encoding.MESSAGES, credit: 1, ...at };
    lookup.subscribe(subject, request);
    const state = { exists: true, first: 1, head: 9, settled: 9, everExpires: false, undecided: false };
    lookup.answered(0, state);
    const wait = async (): Promise<void> => {
      await turn();
      t.mock.timers.tick(5_000);
      await turn();
    };
    await wait();
    await wait();
    assert(questions >= 2, 'a subscription whose client is there was given up');
    lookup.unsubscribe(1);
    await wait();
    const asked = questions;
    for (let waits = 0; waits < 3; waits++) await wait();
    assert.equal(questions, asked);
    assert.equal(subject.parked, 0);
  });
});

describe('a read that the store rejects', () => {
  const defects = [
    { source: "new TypeError('x is not a function')", told: 'TypeError: x is not a function' },
    { source: "new AssertionError('a row without a base')", told: 'AssertionError: a row without a base' },
  ];
  const outages = ["new BrokerError('STORE_UNAVAILABLE')", "new StoreUncertain('no answer')"];
  for (const what of ['read', 'findTime'] as const) {
    for (const { source, told } of defects) {
      it(`of a defect ends the thread, and is not tried again: ${what}, ${source}`, async () => {
        assert.equal(await threadWith(what, source), told);
      });
    }
    for (const source of outages) {
      it(`[P3] of an outage is tried again: ${what}, ${source}`, async () => {
        assert.equal(await threadWith(what, source), 'tried again');
      });
    }
  }
  for (const reason of ['QUEUE_FULL', 'OVERLOADED']) {
    it(`since too many wait (${reason}) is tried again`, async () => {
      assert.equal(await threadWith('findTime', `new BrokerError('${reason}')`), 'tried again');
    });
  }
});

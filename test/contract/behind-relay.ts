/** Stores that have a server: the contract, and what happens when the server goes away. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { BrokerError } from '../../src/base/errors.ts';
import { type MessageStore, type SealedBatch, StoreUncertain } from '../../src/storage/store.ts';
import type { Relay } from '../servers/relay.ts';
import { dataBatch, subjectRef } from '../unit/batch-support.ts';
import { appendUntilKnown, bodiesOf, messageStoreSuite } from './message-store.ts';
import { readAll, type StoreUnderTest, texts } from './store-support.ts';

/** A store on a server of its own. */
export interface RemoteStoreUnderTest extends StoreUnderTest {
  /** Takes the server away; what it returns brings it back. */
  goAway(): Promise<() => Promise<void>>;
}

/** The contract, and what only a store can show that is not one with its process. */
export function remoteStoreSuite(name: string, open: (t: TestContext) => Promise<RemoteStoreUnderTest>): void {
  messageStoreSuite(name, open);

  test(`${name}: [P3] a store that goes away acknowledges nothing, and serves again when it is back`, async (t) => {
    const { store, goAway } = await open(t);
    const subject = subjectRef('away');
    const batches = [1, 3, 5].map((base) => dataBatch(subject, texts(`${base}`, 2), { base }));
    await store.append(batches.slice(0, 1));
    const comeBack = await goAway();
    let isAcknowledged = false;
    const append = store.append(batches.slice(1, 2)).then(
      () => {
        isAcknowledged = true;
      },
      (error: unknown) => {
        const isExpected =
          error instanceof StoreUncertain || (error instanceof BrokerError && error.reason === 'STORE_UNAVAILABLE');
        assert.ok(isExpected, String(error));
      },
    );
    await assert.rejects(async () => store.lastId(subject), { reason: 'STORE_UNAVAILABLE' });
    assert.ok(!isAcknowledged);
    await comeBack();
    await append;
    await appendUntilKnown(store, batches);
    assert.equal((await bodiesOf(store, subject)).length, 6);
    assert.equal((await readAll(store, subject)).length, 3);
  });
}

/** A store on a server that is reached through the relay, and so can go away and come back. */
export async function behindRelay(
  t: Pick<TestContext, 'after'>,
  relay: Relay,
  connect: () => Promise<MessageStore>,
  changeByte: (batch: SealedBatch, offset: number) => Promise<void>,
): Promise<RemoteStoreUnderTest> {
  const opened: MessageStore[] = [];
  const open = async (): Promise<MessageStore> => {
    const store = await connect();
    opened.push(store);
    return store;
  };
  const store = await open();
  t.after(async () => {
    await Promise.all(opened.map((each) => each.close()));
    relay.close();
  });
  return {
    store,
    another: open,
    damage: async (batch, offset) => {
      await opened.at(-1)?.close();
      await changeByte(batch, offset);
      return open();
    },
    reopen: async () => {
      await opened.at(-1)?.close();
      return open();
    },
    goAway: async () => {
      relay.cut();
      return async () => relay.restore();
    },
  };
}

import type { TestContext } from 'node:test';
import type { MessageStore, SealedBatch } from '../../src/storage/store.ts';
import type { Relay } from '../servers/relay.ts';
import type { StoreUnderTest } from './message-store.ts';

/** A store on a server that is reached through the relay, and so can go away and come back. */
export async function behindRelay(
  t: Pick<TestContext, 'after'>,
  relay: Relay,
  connect: () => Promise<MessageStore>,
  changeByte: (batch: SealedBatch, offset: number) => Promise<void>,
): Promise<StoreUnderTest> {
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

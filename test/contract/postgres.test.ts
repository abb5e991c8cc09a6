/** The contract of a MessageStore, kept by PostgreSQL. */
import { randomBytes } from 'node:crypto';
import { after } from 'node:test';
import { PostgresStore, type PostgresStoreOptions } from '../../src/storage/postgres/postgres-store.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { Relay } from '../servers/relay.ts';
import { messageStoreSuite } from './message-store.ts';

const server = process.env.POSTGRES_URL === undefined ? await PostgresServer.start() : null;
const url = process.env.POSTGRES_URL ?? (server as PostgresServer).url;
after(() => server?.remove());

function options(): PostgresStoreOptions {
  return {
    url,
    schema: `t_${randomBytes(6).toString('hex')}`,
    pool: 4,
    timeoutMs: 20_000,
    tls: null,
    acceptWeakDurability: false,
  };
}

messageStoreSuite('postgres', async (t) => {
  const relay = await Relay.start(new URL(url).hostname, Number(new URL(url).port || 5432));
  const through = new URL(url);
  through.host = `127.0.0.1:${relay.port}`;
  const chosen = { ...options(), url: String(through), timeoutMs: 5_000 };
  const opened: PostgresStore[] = [];
  const open = async (): Promise<PostgresStore> => {
    const store = await PostgresStore.open(chosen);
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
    reopen: async () => {
      await opened.at(-1)?.close();
      return open();
    },
    goAway: async () => {
      relay.cut();
      return async () => relay.restore();
    },
  };
});

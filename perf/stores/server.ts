/** The real servers behind a broker with a database, and the same tables for the bare writer. */
import { randomBytes } from 'node:crypto';
import type { StoreKind } from '../../src/config/schema.ts';
import { CassandraStore } from '../../src/storage/cassandra/cassandra-store.ts';
import { PostgresStore } from '../../src/storage/postgres/postgres-store.ts';
import { chooseCassandra, choosePostgres, ServerMissing } from '../../test/servers/chosen-server.ts';
import { dataBatch, plain, subjectRef } from '../../test/unit/batch-support.ts';
import { UsageError } from '../lib/options.ts';
import type { BareTarget } from './bare.ts';

export interface StoreServer {
  /** For `broker serve`. */
  readonly flags: readonly string[];
  /** For another broker on the same server, with tables of its own. */
  moreFlags(): readonly string[];
  /** Tables like the broker's, which are not the broker's. `folder`: on the disk of the data directory. */
  bareTarget(folder: string): Promise<BareTarget>;
  stop(): Promise<void>;
}

export async function startStoreServer(store: StoreKind): Promise<StoreServer> {
  try {
    return await start(store);
  } catch (error) {
    throw error instanceof ServerMissing ? new UsageError(error.message) : error;
  }
}

async function start(store: StoreKind): Promise<StoreServer> {
  switch (store) {
    case 'embedded':
      return {
        flags: [],
        moreFlags: () => [],
        bareTarget: async (folder) => ({ kind: 'embedded', folder }),
        stop: async () => undefined,
      };
    case 'postgres':
      return await startPostgres();
    case 'cassandra':
      return await startCassandra();
  }
}

/** A row brings the partition into being, as the first one of a broker does. */
const FIRST = dataBatch(subjectRef('bare'), [plain('first')], { publishedAt: Date.now() });

async function startPostgres(): Promise<StoreServer> {
  // Sized as somebody would who means it: the default makes a checkpoint every few seconds.
  const server = await choosePostgres(['shared_buffers=256MB', 'max_wal_size=4GB']);
  const { url } = server;
  const schema = (): string => `perf_${randomBytes(6).toString('hex')}`;
  return {
    flags: server.flags(schema()),
    moreFlags: () => server.flags(schema()),
    async bareTarget() {
      const target = { kind: 'postgres', url, schema: schema() } as const;
      const options = { ...target, pool: 2, timeoutMs: 10_000, tls: null, acceptWeakDurability: false };
      const opened = await PostgresStore.open(options);
      await opened.append([FIRST]);
      await opened.close();
      return target;
    },
    stop: () => server.remove(),
  };
}

async function startCassandra(): Promise<StoreServer> {
  const server = await chooseCassandra();
  const { datacenter, credentials } = server;
  const contactPoint = server.contactPoints.split(',')[0] as string;
  const keyspace = (): string => `perf_${randomBytes(6).toString('hex')}`;
  return {
    flags: server.flags(keyspace()),
    moreFlags: () => server.flags(keyspace()),
    async bareTarget() {
      const target = { kind: 'cassandra', contactPoint, datacenter, credentials, keyspace: keyspace() } as const;
      const opened = await CassandraStore.open({
        contactPoints: [contactPoint],
        datacenter,
        keyspace: target.keyspace,
        replication: "{'class': 'SimpleStrategy', 'replication_factor': 1}",
        consistency: 'LOCAL_QUORUM',
        credentials,
        tls: null,
        inFlight: 128,
        timeoutMs: 20_000,
        acceptWeakDurability: false,
      });
      await opened.close();
      return target;
    },
    stop: () => server.remove(),
  };
}

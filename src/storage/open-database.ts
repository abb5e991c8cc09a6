/** The databases that can keep messages. Each driver is loaded only where its database is named: a broker with a log of its own has no use for it. */
import type { BirthRegistry } from './birth.ts';
import type { CassandraStoreOptions } from './cassandra/cassandra-store.ts';
import type { IncarnationRegistry } from './fence.ts';
import type { PostgresStoreOptions } from './postgres/postgres-store.ts';
import type { DatabaseStore, StoreConnections } from './store.ts';

/** How to reach one; travels to threads as it is. */
export type DatabaseOptions =
  | ({ readonly kind: 'postgres' } & Omit<PostgresStoreOptions, 'now'>)
  | ({ readonly kind: 'cassandra' } & Omit<CassandraStoreOptions, 'now'>);

/** One that is reached, and was checked. */
export interface OpenedDatabase extends DatabaseStore {
  readonly birth: BirthRegistry;
  readonly incarnations: IncarnationRegistry;
  /** Settings that lose acknowledged messages, as they were at the start; empty: acks mean `durable`, else only `replicated`. */
  readonly weaknesses: readonly string[];
  /** As they are now. Rejects if the database does not answer. */
  currentWeaknesses(): Promise<readonly string[]>;
  /** Reads that it works on at a time; more wait in the order in which they came, and writes never wait for any. */
  readonly readsMax: number;
  /** As of now; a look that costs nothing. */
  connections(): StoreConnections;
  /** Groups that it writes at a time; more wait in the order in which they came. */
  readonly writesMax: number;
}

/** Connects, checks the server, brings the layout up to date. StartError if it cannot be used. */
export async function openDatabase(options: DatabaseOptions): Promise<OpenedDatabase> {
  if (options.kind === 'postgres') {
    const { PostgresStore } = await import('./postgres/postgres-store.ts');
    return PostgresStore.open(options);
  }
  const { CassandraStore } = await import('./cassandra/cassandra-store.ts');
  return CassandraStore.open(options);
}

/** Which part of the database the messages are in, with the key that names it. */
export function placeOf(options: DatabaseOptions): string {
  return options.kind === 'postgres'
    ? `schema ${options.schema} (postgres.schema)`
    : `keyspace ${options.keyspace} (cassandra.keyspace)`;
}

/**
 * What every node that writes to this database must have alike. Of Cassandra, the data centre: what a quorum of one has acknowledged a quorum of
 * another may not have yet.
 */
export function sharedSettings(options: DatabaseOptions): string {
  return options.kind === 'cassandra' ? `cassandra.datacenter=${options.datacenter}` : '';
}

/** Where the broker of the demo keeps its messages: its own files, or a real database, started for the demo or one of the user's. */
import { randomBytes } from 'node:crypto';
import { CassandraServer, cassandraMissing } from '../test/servers/cassandra.ts';
import { PostgresServer } from '../test/servers/postgres.ts';

export const STORES = ['embedded', 'postgres', 'cassandra'] as const;
export type StoreKind = (typeof STORES)[number];

export interface DemoStore extends AsyncDisposable {
  /** For the broker. */
  readonly flags: readonly string[];
  /** What is used, for people. */
  readonly about: string;
}

/** There is no such server, and none can be started here. */
export class StoreMissing extends Error {
  override name = 'StoreMissing';
}

export async function openStore(kind: StoreKind): Promise<DemoStore> {
  switch (kind) {
    case 'embedded':
      return { flags: [], about: "embedded: the broker's own files", [Symbol.asyncDispose]: async () => undefined };
    case 'postgres':
      return await openPostgres();
    case 'cassandra':
      return await openCassandra();
  }
}

async function openPostgres(): Promise<DemoStore> {
  const given = process.env.POSTGRES_URL;
  const server = given === undefined ? await PostgresServer.start() : null;
  const schema = `demo_${randomBytes(6).toString('hex')}`;
  const place = ['--postgres-url', given ?? (server?.url as string), '--postgres-schema', schema];
  return {
    flags: ['--store', 'postgres', ...place],
    about: server === null ? `PostgreSQL of POSTGRES_URL, schema ${schema}` : 'a PostgreSQL of its own',
    [Symbol.asyncDispose]: async () => server?.remove(),
  };
}

async function openCassandra(): Promise<DemoStore> {
  const missing = cassandraMissing();
  if (missing !== null) throw new StoreMissing(missing);
  const given = process.env.CASSANDRA_CONTACT_POINTS;
  const server = given === undefined ? await CassandraServer.start() : null;
  const keyspace = `demo_${randomBytes(6).toString('hex')}`;
  const datacenter = process.env.CASSANDRA_DATACENTER ?? 'datacenter1';
  const place = [
    ...['--cassandra-contact-points', given ?? (server?.contactPoint as string)],
    ...['--cassandra-datacenter', datacenter, '--cassandra-keyspace', keyspace],
  ];
  return {
    flags: ['--store', 'cassandra', ...place],
    about:
      server === null
        ? `Cassandra of CASSANDRA_CONTACT_POINTS, keyspace ${keyspace}`
        : 'an Apache Cassandra of its own',
    [Symbol.asyncDispose]: async () => server?.remove(),
  };
}

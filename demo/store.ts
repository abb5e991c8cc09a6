/** Where the broker of the demo keeps its messages: its own files, or a real database, started for the demo or one of the user's. */
import { randomBytes } from 'node:crypto';
import type { StoreKind } from '../src/config/schema.ts';
import { chooseCassandra, choosePostgres } from '../test/servers/chosen-server.ts';

export interface DemoStore extends AsyncDisposable {
  /** For the broker. */
  readonly flags: readonly string[];
  /** What is used, for people. */
  readonly about: string;
}

/** Rejects with ServerMissing. */
export async function openStore(kind: StoreKind): Promise<DemoStore> {
  if (kind === 'embedded') {
    return { flags: [], about: "embedded: the broker's own files", [Symbol.asyncDispose]: async () => undefined };
  }
  const server = kind === 'postgres' ? await choosePostgres() : await chooseCassandra();
  const place = `demo_${randomBytes(6).toString('hex')}`;
  const [own, given] =
    kind === 'postgres'
      ? ['a PostgreSQL of its own', `PostgreSQL of POSTGRES_URL, schema ${place}`]
      : ['an Apache Cassandra of its own', `Cassandra of CASSANDRA_CONTACT_POINTS, keyspace ${place}`];
  return {
    flags: server.flags(place),
    about: server.isGiven ? given : own,
    [Symbol.asyncDispose]: () => server.remove(),
  };
}

/**
 * The database of a program that needs one: the user's, where the environment names it (POSTGRES_URL; CASSANDRA_CONTACT_POINTS with
 * CASSANDRA_DATACENTER), or one that is started for the program.
 */
import { CassandraServer, cassandraMissing } from './cassandra.ts';
import { PostgresServer } from './postgres.ts';

/** None is named, and none can be started here. */
export class ServerMissing extends Error {
  override name = 'ServerMissing';
}

interface ChosenServer {
  /** The user's: what is made there stays there. */
  readonly isGiven: boolean;
  /** Of a broker that keeps its messages there, in a schema or keyspace of this name. */
  flags(place: string): string[];
  remove(): Promise<void>;
}

export interface ChosenPostgres extends ChosenServer {
  readonly url: string;
}

export interface ChosenCassandra extends ChosenServer {
  /** HOST or HOST:PORT, several with commas between. */
  readonly contactPoints: string;
  readonly datacenter: string;
}

/** `settings`: of a server that has to be started, each `name=value`. */
export async function choosePostgres(settings: readonly string[] = []): Promise<ChosenPostgres> {
  const given = process.env.POSTGRES_URL;
  const own = given === undefined ? await PostgresServer.start(settings) : null;
  const url = own?.url ?? (given as string);
  return {
    url,
    isGiven: own === null,
    flags: (schema) => ['--store', 'postgres', '--postgres-url', url, '--postgres-schema', schema],
    remove: async () => await own?.remove(),
  };
}

/** Rejects with ServerMissing. */
export async function chooseCassandra(): Promise<ChosenCassandra> {
  const given = process.env.CASSANDRA_CONTACT_POINTS;
  const missing = given === undefined ? cassandraMissing() : null;
  if (missing !== null) throw new ServerMissing(missing);
  const own = given === undefined ? await CassandraServer.start() : null;
  const contactPoints = own?.contactPoint ?? (given as string);
  const datacenter = process.env.CASSANDRA_DATACENTER ?? 'datacenter1';
  return {
    contactPoints,
    datacenter,
    isGiven: own === null,
    flags: (keyspace) => [
      ...['--store', 'cassandra', '--cassandra-contact-points', contactPoints],
      ...['--cassandra-datacenter', datacenter, '--cassandra-keyspace', keyspace],
    ],
    remove: async () => await own?.remove(),
  };
}

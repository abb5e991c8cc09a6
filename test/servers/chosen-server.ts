/**
 * The database of a program that needs one: the user's, where the environment names it (POSTGRES_URL; CASSANDRA_CONTACT_POINTS with
 * CASSANDRA_DATACENTER and, for a login, CASSANDRA_USERNAME and CASSANDRA_PASSWORD), or one that is started for the program. What stops, kills,
 * configures or looks into a server starts its own instead: it does that to nobody else's.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConnectOptions } from '../../src/storage/cassandra/connect.ts';
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
  readonly credentials: ConnectOptions['credentials'];
  /** Flags that say where it is, without those that choose it as the store. `contactPoints`: another way to it, such as a relay. */
  access(contactPoints?: string): string[];
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
  // Those of somebody's server are nothing to one of ours.
  const datacenter = (own === null ? process.env.CASSANDRA_DATACENTER : undefined) ?? 'datacenter1';
  const credentials = own === null ? givenCredentials() : null;
  const login = credentials === null ? null : new Login(credentials);
  const access = (points = contactPoints): string[] => [
    ...['--cassandra-contact-points', points, '--cassandra-datacenter', datacenter],
    ...(login?.flags ?? []),
  ];
  return {
    contactPoints,
    datacenter,
    credentials,
    isGiven: own === null,
    access,
    flags: (keyspace) => ['--store', 'cassandra', ...access(), '--cassandra-keyspace', keyspace],
    async remove() {
      login?.remove();
      await own?.remove();
    },
  };
}

function givenCredentials(): ConnectOptions['credentials'] {
  const { CASSANDRA_USERNAME: username, CASSANDRA_PASSWORD: password } = process.env;
  if (username === undefined && password === undefined) return null;
  if (username === undefined || password === undefined) {
    throw new Error('CASSANDRA_USERNAME and CASSANDRA_PASSWORD: one is set without the other');
  }
  return { username, password };
}

/** A password goes to brokers in a file: every user of the machine sees the flags of a process. */
class Login {
  readonly flags: readonly string[];
  readonly #folder: string;

  constructor({ username, password }: NonNullable<ConnectOptions['credentials']>) {
    this.#folder = mkdtempSync(join(tmpdir(), 'broker-login-'));
    const file = join(this.#folder, 'password');
    writeFileSync(file, password, { mode: 0o600 });
    this.flags = ['--cassandra-username', username, '--cassandra-password-file', file];
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

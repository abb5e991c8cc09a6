/** What the keys of a database say. */
import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import { assert } from '../base/assert.ts';
import type { Config } from '../config/schema.ts';
import type { DatabaseOptions } from './open-database.ts';
import { StartError } from './start-error.ts';

/** Null with the embedded store. StartError if a file that the keys name cannot be read. */
export function databaseOptions(config: Config): DatabaseOptions | null {
  switch (config.store.kind) {
    case 'embedded':
      return null;
    case 'postgres':
      return postgresOptions(config);
    case 'cassandra':
      return cassandraOptions(config);
  }
}

function postgresOptions({ store, postgres }: Config): DatabaseOptions {
  const { url, schema, pool } = postgres;
  assert(url !== null, 'the rules of the configuration let no such store through');
  const tls = tlsOptions('postgres', postgres);
  const { timeoutMs, acceptWeakDurability } = store;
  return { kind: 'postgres', url, schema, pool, timeoutMs, tls, acceptWeakDurability };
}

function cassandraOptions({ store, cassandra }: Config): DatabaseOptions {
  const { contactPoints, datacenter, username, password } = cassandra;
  assert(contactPoints !== null && datacenter !== null, 'the rules of the configuration let no such store through');
  const { keyspace, replication, consistency, inFlight, tlsName } = cassandra;
  const tls = tlsOptions('cassandra', cassandra);
  return {
    kind: 'cassandra',
    contactPoints: contactPoints.split(','),
    datacenter,
    keyspace,
    replication,
    consistency,
    credentials: username === null || password === null ? null : { username, password },
    // The driver connects to addresses; a certificate that names hosts is checked against the name that is given.
    tls: tls === null || tlsName === null ? tls : { ...tls, servername: tlsName },
    inFlight,
    timeoutMs: store.timeoutMs,
    acceptWeakDurability: store.acceptWeakDurability,
  };
}

type TlsKeys = Pick<Config['postgres'], 'tls' | 'tlsCa' | 'tlsCert' | 'tlsKey'>;

function tlsOptions(section: string, { tls, tlsCa, tlsCert, tlsKey }: TlsKeys): ConnectionOptions | null {
  if (tls === 'off') return null;
  const file = (key: string, path: string): string => {
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      throw new StartError('STORE_UNUSABLE', `${section}.${key}: ${(error as Error).message}`, { cause: error });
    }
  };
  return {
    rejectUnauthorized: tls === 'verify',
    ...(tlsCa === null ? {} : { ca: file('tls_ca', tlsCa) }),
    ...(tlsCert === null ? {} : { cert: file('tls_cert', tlsCert) }),
    ...(tlsKey === null ? {} : { key: file('tls_key', tlsKey) }),
  };
}

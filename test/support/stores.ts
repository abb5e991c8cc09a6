/** Every kind of store as flags of a broker. */
import { randomBytes } from 'node:crypto';
import { CassandraServer, cassandraMissing } from '../servers/cassandra.ts';
import { PostgresServer } from '../servers/postgres.ts';

export interface Store {
  readonly name: string;
  /** Of a store that is new; a text: why there is none here. `onEnd` hears what to do when it is not needed any more. */
  readonly flags: (onEnd: (end: () => unknown) => void) => Promise<string[] | string>;
}

export const STORES: readonly Store[] = [
  { name: 'embedded', flags: async () => [] },
  {
    name: 'postgres',
    async flags(onEnd) {
      const server = await PostgresServer.start();
      onEnd(() => server.remove());
      return server.brokerFlags();
    },
  },
  {
    name: 'cassandra',
    async flags(onEnd) {
      const missing = cassandraMissing();
      if (missing !== null) return missing;
      const given = process.env.CASSANDRA_CONTACT_POINTS?.split(',')[0];
      const server = given === undefined ? await CassandraServer.start() : null;
      onEnd(() => server?.remove());
      return [
        ...['--store', 'cassandra', '--cassandra-contact-points', given ?? server?.contactPoint ?? ''],
        ...['--cassandra-datacenter', process.env.CASSANDRA_DATACENTER ?? 'datacenter1'],
        ...['--cassandra-keyspace', `t_${randomBytes(6).toString('hex')}`],
      ];
    },
  },
];

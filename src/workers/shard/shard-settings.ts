import type { Config } from '../../config/schema.ts';
import type { DatabaseOptions } from '../../storage/open-database.ts';
import type { ShardPoolOptions } from '../shard-pool.ts';

/** What the shards are told of the configuration. `database`: null with the embedded store. */
export function shardSettings(
  config: Config,
  database: DatabaseOptions | null,
): Pick<ShardPoolOptions, 'ringBytes' | 'limits' | 'store'> {
  const { ring, limits, batch, groups, store, segment } = config;
  return {
    ringBytes: ring.bytes,
    limits: {
      bodyBytes: limits.bodyBytes,
      headersBytes: limits.headersBytes,
      headersCount: limits.headersCount,
      batchBytes: batch.bytes,
      lingerMs: batch.lingerMs,
      groupsInFlight: groups.inFlight,
    },
    store: {
      segmentBytes: segment.bytes,
      lowSpaceBytes: store.lowSpaceBytes,
      cacheBytes: store.cacheBytes,
      // The start has judged the settings of the database, and the main thread watches them: a thread that comes later must not be refused for what a
      // running broker goes on with.
      database: database === null ? null : { ...database, acceptWeakDurability: true },
    },
  };
}

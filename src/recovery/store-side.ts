import type { Config } from '../config/schema.ts';
import { checkOwner } from '../storage/bind-store.ts';
import type { BirthRow } from '../storage/birth.ts';
import { databaseOptions } from '../storage/database-options.ts';
import { type Disk, NodeDisk } from '../storage/disk.ts';
import { openEmbeddedStore } from '../storage/embedded/embedded-store.ts';
import { sealLanes } from '../storage/embedded/seal-lanes.ts';
import {
  type DatabaseOptions,
  type OpenedDatabase,
  openDatabase,
  placeOf,
  sharedSettings,
} from '../storage/open-database.ts';
import type { NewestVisitor } from '../storage/store.ts';
import { Refusal } from './refusal.ts';

/** Of the embedded log's newest batches: none is read here. */
const CACHE_BYTES = 1 << 20;
/** Running brokers look at their row once a second (FenceWatch); one whose look was on its way when the row changed looks again. */
const FENCE_WAIT_MS = 3_000;

/** The store whose messages stay. */
export interface StoreSide {
  /** Of a database the row that says whose it is; null with the embedded store. Refusal if it has none, or one of another cluster name. */
  birth(): Promise<BirthRow | null>;
  /** Nodes that have started on it. */
  nodes(): Promise<readonly string[]>;
  /** Nobody but `clusterId` may start on it from now on. Refusal if it is not that of `replaces` any more. Again is harmless. */
  giveTo(clusterId: string, replaces: string): Promise<void>;
  /** Ends the processes that have started on it before; resolves when those that can write to it have noticed. */
  endOthers(clusterId: string): Promise<void>;
  /** See DatabaseStore. */
  newest(visit: NewestVisitor): Promise<number>;
  close(): Promise<void>;
}

/** StartError if it cannot be used. With the embedded store `segmentsPath` may not be there. */
export async function openStoreSide(config: Config, segmentsPath: string): Promise<StoreSide> {
  const options = databaseOptions(config);
  return options === null
    ? new SegmentsSide(config, segmentsPath)
    : new DatabaseSide(await openDatabase(options), options, config.cluster);
}

class SegmentsSide implements StoreSide {
  readonly #config: Config;
  readonly #path: string;

  constructor(config: Config, path: string) {
    this.#config = config;
    this.#path = path;
  }

  birth(): Promise<null> {
    return Promise.resolve(null);
  }

  nodes(): Promise<readonly string[]> {
    return Promise.resolve([]);
  }

  /** The lock of the directory sees to both. */
  giveTo(): Promise<void> {
    return Promise.resolve();
  }

  endOthers(): Promise<void> {
    return Promise.resolve();
  }

  async newest(visit: NewestVisitor): Promise<number> {
    const disk: Disk = new NodeDisk();
    if (disk.size(this.#path) < 0) return 0;
    // Torn ends are cut off, as a start does.
    sealLanes(disk, this.#path);
    const store = openEmbeddedStore({
      directory: this.#path,
      lane: 0,
      ownsSlot: () => true,
      countsLane: () => true,
      segmentBytes: this.#config.segment.bytes,
      lowSpaceBytes: this.#config.store.lowSpaceBytes,
      cacheBytes: CACHE_BYTES,
      // Nothing is written.
      onFatal: () => undefined,
      disk,
    });
    try {
      let newest = 0;
      store.heads((name, _hash, lastId, publishedAt) => {
        newest = Math.max(newest, publishedAt);
        visit(name, lastId);
      });
      return newest;
    } finally {
      await store.close();
    }
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

class DatabaseSide implements StoreSide {
  readonly #store: OpenedDatabase;
  readonly #options: DatabaseOptions;
  readonly #clusterName: string;

  constructor(store: OpenedDatabase, options: DatabaseOptions, clusterName: string) {
    this.#store = store;
    this.#options = options;
    this.#clusterName = clusterName;
  }

  async birth(): Promise<BirthRow> {
    const place = placeOf(this.#options);
    const row = await this.#store.birth.find();
    if (row === null) {
      throw new Refusal(
        `${place} belongs to no cluster yet: there is nothing in it to recover`,
        'name the database of the cluster; or put back its dump first',
      );
    }
    if (row.name !== this.#clusterName) {
      throw new Refusal(
        `${place} belongs to cluster "${row.name}", the configuration says "${this.#clusterName}"`,
        `correct the one that is wrong, such as with --cluster ${row.name}`,
      );
    }
    checkOwner(row, row.clusterId, place, sharedSettings(this.#options));
    return row;
  }

  nodes(): Promise<readonly string[]> {
    return this.#store.incarnations.nodes();
  }

  async giveTo(clusterId: string, replaces: string): Promise<void> {
    const row = await this.#store.birth.replace(replaces, clusterId);
    if (row?.clusterId === clusterId) return;
    throw new Refusal(
      `${placeOf(this.#options)} belongs to cluster ${row?.clusterId ?? 'nobody'} now, neither to ${replaces} nor to this recovery: somebody else has recovered it`,
      'keep one of the two: to recover it again, begin with an empty data directory',
    );
  }

  async endOthers(clusterId: string): Promise<void> {
    const { incarnations } = this.#store;
    const nodes = await incarnations.nodes();
    for (const node of nodes) await incarnations.claim(node, `recovered-${clusterId}`);
    if (nodes.length > 0) await new Promise((resolve) => setTimeout(resolve, FENCE_WAIT_MS));
  }

  newest(visit: NewestVisitor): Promise<number> {
    return this.#store.newest(visit);
  }

  close(): Promise<void> {
    return this.#store.close();
  }
}

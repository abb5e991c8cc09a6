import { join } from 'node:path';
import type { Config, StoreKind } from '../config/schema.ts';
import type { BirthRegistry } from '../storage/birth.ts';
import { databaseOptions } from '../storage/database-options.ts';
import { type Disk, NodeDisk } from '../storage/disk.ts';
import { openEmbeddedStore } from '../storage/embedded/embedded-store.ts';
import { sealLanes } from '../storage/embedded/seal-lanes.ts';
import { openDatabase, placeOf, sharedSettings } from '../storage/open-database.ts';
import type { MessageStore } from '../storage/store.ts';

/** Recent batches of the embedded log in memory: each is read once. */
const CACHE_BYTES = 1 << 20;

/** One of the two stores of a copy. */
export interface End {
  readonly kind: StoreKind;
  readonly store: MessageStore;
  /** Null where the data directory itself says whose the messages are. */
  readonly database: Database | null;
}

export interface Database {
  readonly birth: BirthRegistry;
  /** Which part of the server it is, with the key that names it. */
  readonly place: string;
  /** As a broker claims it. */
  readonly settings: string;
}

/** Opens a store as a start of the broker does, with the same checks. StartError if it cannot be used. */
export async function openEnd(kind: StoreKind, config: Config, root: string): Promise<End> {
  const options = databaseOptions({ ...config, store: { ...config.store, kind } });
  if (options === null) return { kind, store: openSegments(config, root), database: null };
  const store = await openDatabase(options);
  const database = { birth: store.birth, place: placeOf(options), settings: sharedSettings(options) };
  return { kind, store, database };
}

function openSegments(config: Config, root: string): MessageStore {
  const disk: Disk = new NodeDisk();
  const directory = join(root, 'segments');
  sealLanes(disk, directory);
  return openEmbeddedStore({
    directory,
    lane: 0,
    ownsSlot: () => true,
    countsLane: () => true,
    segmentBytes: config.segment.bytes,
    lowSpaceBytes: config.store.lowSpaceBytes,
    cacheBytes: CACHE_BYTES,
    // The write that failed rejects with it, and the copy ends.
    onFatal: () => undefined,
    disk,
  });
}

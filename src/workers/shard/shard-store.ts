import { join } from 'node:path';
import { type Disk, NodeDisk } from '../../storage/disk.ts';
import { DriverErrors } from '../../storage/driver-errors.ts';
import { type EmbeddedStore, openEmbeddedStore } from '../../storage/embedded/embedded-store.ts';
import { type SealReport, sealLane } from '../../storage/embedded/seal-lanes.ts';
import type { SegmentSummary } from '../../storage/embedded/sidecar.ts';
import type { SlotColumns } from '../../storage/embedded/slot-index.ts';
import { InFlight } from '../../storage/in-flight.ts';
import { type DatabaseOptions, type OpenedDatabase, openDatabase } from '../../storage/open-database.ts';
import type { MessageStore, ReadResult, StoreConnections, StoreStats, SubjectRef } from '../../storage/store.ts';
import type { ShardTask } from '../messages.ts';
import { Arrivals } from './arrivals.ts';
import { DatabaseTrims } from './database-trims.ts';
import type { KeptBatches } from './peer-batches.ts';
import { RecentBatches } from './recent-batches.ts';
import type { OwnedSlots } from './slot-drain.ts';
import type { LookupDatabase } from './stored-lookups.ts';

/** A store as a shard uses it. What concerns segments and the index of slots is empty where a database has the messages. */
export interface ShardStore extends MessageStore {
  readonly openBytes: number;
  sealedSegments(): readonly SegmentSummary[];
  adoptSegments(segments: readonly SegmentSummary[]): void;
  disownLane(lane: number): void;
  resizeCache(bytes: number): void;
  exportSlot(slot: number): SlotColumns | null;
  importSlot(slot: number, columns: SlotColumns | null): void;
  releaseSegments(segments: ReadonlySet<number>): void;
  trimsFor(segments: ReadonlySet<number>, each: (name: Uint8Array, hash: number, first: number) => void): void;
}

/** The embedded log, which can be asked at once. */
export type EmbeddedShardStore = EmbeddedStore;

export interface OpenedStore {
  readonly store: ShardStore;
  /** The same, if it is the embedded log. */
  readonly embedded: EmbeddedShardStore | null;
  /** What is there with a database only. */
  readonly database: (LookupDatabase & KeptBatches) | null;
  /** What the database is busy with. */
  readonly connections: () => StoreConnections;
  /** Whether what has such a life (seconds, 0 = never) may ask for ids; see DatabaseStore. */
  readonly hasRoomFor: (expiresMax: number) => boolean;
  /** Groups that it writes at a time. */
  readonly writesMax: number;
  /** Groups that are to be on their way at a time at least. */
  readonly groupsMin: number;
}

/** What is counted of reads. */
export interface ReadCounters {
  /** Of messages: from memory, or asked of the database. */
  read(isFromMemory: boolean): void;
  /** The disk or the database gave so many bytes after so long. */
  readFrom(microseconds: number, bytes: number): void;
  readFailed(): void;
}

/** With a database, beside the groups that are being written: one being given ids, one being closed in the log, and one to spare. */
const GROUPS_BESIDE = 3;
/** Reads of a subject's times and of totals that are on their way at a time: people ask for them, and some read much. */
const RARE_READS_MAX = 2;
/** More of those are refused. */
const RARE_WAITING_MAX = 256;

/** What a shard reaches the outside by. */
export interface StoreOpeners {
  readonly openDatabase: (options: DatabaseOptions) => Promise<OpenedDatabase>;
  readonly openDisk: () => Disk;
}

export const STORE_OPENERS: StoreOpeners = { openDatabase, openDisk: () => new NodeDisk() };

/** Opens the lane of the shard, or its connections to the database. StartError if the database cannot be used. */
export async function openShardStore(
  task: ShardTask,
  owned: OwnedSlots,
  onFatal: (error: unknown) => void,
  onNotice: (message: string, error: unknown) => void,
  onSealed: (report: SealReport) => void,
  counters: ReadCounters,
  outside: StoreOpeners,
): Promise<OpenedStore> {
  const { shard, store } = task;
  if (store.database !== null) {
    const database = await outside.openDatabase(store.database);
    const recent = new RecentBatches(store.cacheBytes);
    const arrivals = new Arrivals(recent);
    const { readsMax, writesMax } = database;
    const waitMs = store.database.timeoutMs;
    return {
      store: databaseStore(database, { recent, arrivals }, waitMs, onNotice, counters),
      embedded: null,
      database: { recent, arrivals, readsMax, waitMs },
      connections: () => database.connections(),
      hasRoomFor: (expiresMax) => database.hasRoomFor(expiresMax),
      writesMax,
      groupsMin: writesMax + GROUPS_BESIDE,
    };
  }
  const segments = join(task.dataDirectory, 'segments');
  const disk = outside.openDisk();
  // The thread before this one may have died in the middle of a write.
  if (task.isReplacement) onSealed(sealLane(disk, segments, shard));
  const embedded = openEmbeddedStore({
    directory: segments,
    lane: shard,
    ownsSlot: (slot) => owned.has(slot),
    countsLane: (lane) => task.countsOthers && !task.writtenLanes.includes(lane),
    segmentBytes: store.segmentBytes,
    lowSpaceBytes: store.lowSpaceBytes,
    cacheBytes: store.cacheBytes,
    onFatal,
    onNotice,
    onRead: (microseconds, bytes) => counters.readFrom(microseconds, bytes),
    disk,
  });
  return {
    store: embedded,
    embedded,
    database: null,
    connections: () => NO_CONNECTIONS,
    hasRoomFor: () => true,
    writesMax: 1,
    groupsMin: 1,
  };
}

const NO_CONNECTIONS: StoreConnections = { open: 0, busy: 0, waiting: 0 };

/** To count the rows of a database reads all of its index: people may ask for that, a scrape may not. */
export const NO_LEVELS: StoreStats = { bytes: 0, segments: 0, batches: 0, subjects: 0, damaged: 0 };

/** A database keeps no segments here, and all shards see all of it: slots move without data. */
function databaseStore(
  store: OpenedDatabase,
  { recent, arrivals }: KeptBatches,
  waitMs: number,
  onNotice: (message: string, error: unknown) => void,
  counters: ReadCounters,
): ShardStore {
  const errors = new DriverErrors(onNotice);
  const trims = new DatabaseTrims(store, (error) =>
    onNotice('trimmed messages are still in the database, and deleted later', error),
  );
  const throwWrite = (error: unknown): never => {
    throw errors.ofWrite(error);
  };
  const read = async <T>(answer: () => T | Promise<T>): Promise<T> => {
    try {
      return await answer();
    } catch (error) {
      counters.readFailed();
      throw errors.ofRead(error);
    }
  };
  const readMessages = (subject: SubjectRef, from: number, until: number, maxBytes: number): Promise<ReadResult> => {
    counters.read(false);
    const startedAt = performance.now();
    return read(() => store.read(subject, from, until, maxBytes)).then((result) => {
      counters.readFrom((performance.now() - startedAt) * 1000, bytesOf(result));
      return result;
    });
  };
  const rare = new InFlight(RARE_READS_MAX, { tasks: RARE_WAITING_MAX, ms: waitMs });
  return {
    append: (group) => store.append(group).catch(throwWrite),
    read(subject, from, until, maxBytes) {
      const found = recent.read(subject, from, until, maxBytes);
      if (found !== null) {
        counters.read(true);
        return found;
      }
      const arrival = arrivals.expect(subject, from, until, maxBytes);
      if (arrival === null) return readMessages(subject, from, until, maxBytes);
      return arrival.then((came) => {
        if (came !== null) counters.read(true);
        return came ?? readMessages(subject, from, until, maxBytes);
      });
    },
    readBack: (subject, from, until, maxBytes) => read(() => store.readBack(subject, from, until, maxBytes)),
    findTime: (subject, ms) => read(() => rare.run(() => store.findTime(subject, ms))),
    lastId: (subject) => read(() => store.lastId(subject)),
    lookup: (subject, base) => read(() => store.lookup(subject, base)),
    subjectStats: (subject) => read(() => rare.run(() => store.subjectStats(subject))),
    stats: () => read(() => rare.run(() => store.stats())),
    close() {
      trims.close();
      return store.close();
    },
    trim: (subject, first) => trims.add(subject, first),
    openBytes: 0,
    sealedSegments: () => [],
    adoptSegments: () => undefined,
    disownLane: () => undefined,
    resizeCache: (bytes) => recent.resize(bytes),
    exportSlot: () => null,
    importSlot: () => undefined,
    releaseSegments: () => undefined,
    trimsFor: () => undefined,
  };
}

function bytesOf({ items }: ReadResult): number {
  return items.reduce((bytes, item) => bytes + (item.kind === 'data' ? item.bytes.length : 0), 0);
}

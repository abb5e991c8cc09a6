/**
 * Which store a data directory belongs to. The log knows ids, the store has their messages: with another store every id would be lost, and ids
 * would be given twice to a database that has them already. So a directory says in which kind of database its messages are, and the database
 * has the id of the one cluster that writes to it.
 */
import { join } from 'node:path';
import type { StoreKind } from '../config/schema.ts';
import type { BirthRegistry, BirthRow } from './birth.ts';
import type { Disk } from './disk.ts';
import { Fence } from './fence.ts';
import { type DatabaseOptions, type OpenedDatabase, openDatabase, placeOf, sharedSettings } from './open-database.ts';
import { readSmallFile, replaceFile } from './small-file.ts';
import { StartError } from './start-error.ts';
import type { DatabaseStore, Heads } from './store.ts';
import { storeIsAhead } from './store-ahead.ts';

const MARKER = 'STORE';
/** A marker is one word. */
const MARKER_BYTES_MAX = 64;

/** What is written in the marker of a directory whose messages are in a database. The first is of a version that knew PostgreSQL only. */
const MARKED: ReadonlyMap<string, StoreKind> = new Map([
  ['database', 'postgres'],
  ['postgres', 'postgres'],
  ['cassandra', 'cassandra'],
]);

/** Which store the directory belongs to; null while no broker has started there. StartError if its marker says something else. */
export function storeKindOf(disk: Disk, root: string): StoreKind | null {
  const path = join(root, MARKER);
  const bytes = readSmallFile(disk, path, MARKER_BYTES_MAX);
  if (bytes === null) return disk.size(join(root, 'raft')) >= 0 ? 'embedded' : null;
  const kind = MARKED.get(bytes.toString('latin1').trim());
  if (kind !== undefined) return kind;
  throw new StartError('DATA_DIRECTORY_UNUSABLE', `${path} names no store that this program knows`);
}

/** StartError if the directory was written with a store of another kind. */
export function checkStoreKind(disk: Disk, root: string, kind: StoreKind): void {
  const found = storeKindOf(disk, root);
  if (found === null || found === kind) return;
  const where = found === 'embedded' ? 'in its own segments' : 'in a database';
  throw new StartError(
    'DATA_DIRECTORY_MISMATCH',
    `${root} belongs to a broker that keeps its messages ${where} (${found}), and the configuration says store ${kind}; correct the one that is wrong, or move the messages with \`broker store copy\``,
  );
}

/** From here on the directory is one of a broker with that store. The change is there whole or not at all. */
export function markStore(disk: Disk, root: string, kind: StoreKind): void {
  const path = join(root, MARKER);
  if (kind === 'embedded') {
    if (disk.size(path) < 0) return;
    disk.unlink(path);
    return;
  }
  if (disk.size(path) >= 0 && storeKindOf(disk, root) === kind) return;
  replaceFile(disk, path, Buffer.from(`${kind}\n`), 'store-file');
}

/** The database as the main thread has it: at the start, before the shards have connections of their own, and then to keep an eye on it. */
export interface ClaimedDatabase
  extends Pick<OpenedDatabase, 'probe' | 'dropExpired' | 'weaknesses' | 'currentWeaknesses'> {
  /** To be claimed when the log was compared, and looked at from then on. */
  readonly fence: Pick<Fence, 'incarnation' | 'lostTo'>;
  /** StartError if the database does not answer. */
  takeOver(): Promise<void>;
  /** StartError STORE_AHEAD_OF_LOG if the log is older than the database. `onPage` hears how many rows were compared. */
  compare(heads: Heads, onPage: (rows: number) => void): Promise<void>;
  /** Which of these batches it does not have, all of which the log has closed as stored. */
  missing<T extends { readonly subject: Uint8Array; readonly hash: number; readonly base: number }>(
    stored: readonly T[],
  ): Promise<T[]>;
  close(): Promise<void>;
}

/** One that is open and checked, and not yet this cluster's. Either `use` or `close` ends its use. */
export interface ReachedDatabase {
  /** Such as `schema broker (postgres.schema)`. */
  readonly place: string;
  /** The cluster that was born in it. StartError if it does not answer. */
  findBirth(): Promise<BirthRow | null>;
  /** Makes it the cluster's unless it is another's; the row that is there now. Harmless when it is repeated. */
  claimBirth(cluster: Pick<BirthRow, 'clusterId' | 'name'>): Promise<BirthRow>;
  /** StartError unless the row is that of the cluster, with these settings. */
  check(clusterId: string, row: BirthRow | null): void;
  /** The same; the database is closed if it is not. */
  use(node: { readonly clusterId: string; readonly nodeId: string }, row: BirthRow | null): Promise<ClaimedDatabase>;
  close(): Promise<void>;
}

/** Opens the database, checks it and brings its layout up to date. StartError if it cannot be used. */
export async function reachDatabase(options: DatabaseOptions): Promise<ReachedDatabase> {
  const store = await asStart(openDatabase(options));
  const settings = sharedSettings(options);
  const place = placeOf(options);
  return {
    place,
    findBirth: () => asStart(store.birth.find()),
    claimBirth: async (cluster) => (await asStart(store.birth.claim({ ...cluster, settings }))).row,
    check: (clusterId, row) => checkOwner(row, clusterId, place, settings),
    use: async (node, row) => {
      try {
        checkOwner(row, node.clusterId, place, settings);
      } catch (error) {
        await store.close();
        throw error;
      }
      return claimedOf(store, new Fence(store.incarnations, node.nodeId), node.clusterId, place);
    },
    close: () => store.close(),
  };
}

function claimedOf(store: OpenedDatabase, fence: Fence, clusterId: string, place: string): ClaimedDatabase {
  return {
    weaknesses: store.weaknesses,
    currentWeaknesses: () => store.currentWeaknesses(),
    fence,
    takeOver: () => asStart(takeOver(fence, store.birth, clusterId, place)),
    compare: (heads, onPage) => asStart(compare(store, heads, onPage)),
    missing: (stored) => asStart(missingOf(store, stored)),
    probe: () => store.probe(),
    dropExpired: (beforeMs) => store.dropExpired(beforeMs),
    close: () => store.close(),
  };
}

/** StartError unless the birth row of a database is that of the cluster and of these settings. */
export function checkOwner(row: BirthRow | null, clusterId: string, place: string, settings: string): void {
  if (row?.clusterId !== clusterId) {
    const whose = row === null ? 'no cluster yet' : `cluster ${row.clusterId} ("${row.name}")`;
    throw new StartError(
      'STORE_UNUSABLE',
      `${place} belongs to ${whose}, this data directory to ${clusterId}: name another one, or put back the data directory of that cluster`,
    );
  }
  // Empty: of a version that kept none.
  if (row.settings !== '' && row.settings !== settings) {
    throw new StartError(
      'STORE_UNUSABLE',
      `${place} was written with ${row.settings}, and the configuration says ${settings}; docs/stores.md says how to move`,
    );
  }
}

/**
 * `cluster recover` gives the database to a new cluster first and takes the incarnations away then; a start that passed the birth row before the one and claims
 * behind the other is found here.
 */
async function takeOver(fence: Fence, birth: BirthRegistry, clusterId: string, place: string): Promise<void> {
  await fence.claim();
  const row = await birth.find();
  checkOwner(row, clusterId, place, row?.settings ?? '');
}

async function compare(store: DatabaseStore, heads: Heads, onPage: (rows: number) => void): Promise<void> {
  const found = await store.beyond(heads, onPage);
  if (found !== null) throw storeIsAhead(found);
}

async function missingOf<T extends { readonly subject: Uint8Array; readonly hash: number; readonly base: number }>(
  store: DatabaseStore,
  stored: readonly T[],
): Promise<T[]> {
  const found = await Promise.all(
    stored.map(({ subject, hash, base }) => store.lookup({ bytes: subject, hash }, base)),
  );
  return stored.filter((_, i) => found[i] !== 'data');
}

function asStart<T>(result: Promise<T>): Promise<T> {
  return result.catch((error: unknown) => {
    throw asStartError(error);
  });
}

function asStartError(error: unknown): StartError {
  if (error instanceof StartError) return error;
  return new StartError('STORE_UNUSABLE', `the database did not answer: ${String(error)}`, { cause: error });
}

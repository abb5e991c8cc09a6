/**
 * Which store a data directory belongs to. The log knows ids, the store has their messages: with another store every id would be lost, and ids
 * would be given twice to a database that has them already. So a directory says when its messages are in a database, and the database
 * has the id of the one cluster that writes to it.
 */
import { join } from 'node:path';
import type { BirthRow } from './birth.ts';
import type { Disk } from './disk.ts';
import type { PostgresStoreOptions } from './postgres/postgres-store.ts';
import { StartError } from './start-error.ts';
import type { DatabaseStore, NewestId } from './store.ts';

const MARKER = 'STORE';

/** StartError if the directory was written with a store of another kind. */
export function checkStoreKind(disk: Disk, root: string, kind: string): void {
  const isMarked = disk.size(join(root, MARKER)) >= 0;
  const isBorn = disk.size(join(root, 'raft')) >= 0;
  const wasEmbedded = isBorn && !isMarked;
  if (kind === 'embedded' ? !isMarked : !wasEmbedded) return;
  const where = isMarked ? 'in a database' : 'in its own segments';
  throw new StartError(
    'DATA_DIRECTORY_MISMATCH',
    `${root} belongs to a broker that keeps its messages ${where}, and the configuration says store ${kind}; correct the one that is wrong`,
  );
}

/** From here on the directory is one of a broker with a database. */
export function markDatabase(disk: Disk, root: string): void {
  const path = join(root, MARKER);
  if (disk.size(path) >= 0) return;
  const bytes = Buffer.from('database\n');
  const file = disk.createOrEmpty(path, 'store-file');
  try {
    file.writeFullySync(bytes, 0, bytes.length, 0);
    file.fdatasyncSync();
  } finally {
    file.close();
  }
  disk.syncDirectory(root);
}

/** The database of a broker that starts, before its shards have connections of their own. */
export interface ClaimedDatabase {
  /** Settings of the server that lose acknowledged messages. */
  readonly weaknesses: readonly string[];
  /** For the question whether the log is older than the database. */
  readonly newest: readonly NewestId[];
  /** Which of these batches it does not have, all of which the log has closed as stored. */
  missing<T extends { readonly subject: Uint8Array; readonly hash: number; readonly base: number }>(
    stored: readonly T[],
  ): Promise<T[]>;
  close(): Promise<void>;
}

/**
 * Opens the database: checks it, brings its schema up to date, and makes it this cluster's unless it is another's. StartError if it cannot be used.
 */
export async function claimDatabase(options: PostgresStoreOptions, row: BirthRow): Promise<ClaimedDatabase> {
  // Loaded only here: a broker with a log of its own has no use for a driver.
  const { PostgresStore } = await import('./postgres/postgres-store.ts');
  const store = await PostgresStore.open(options);
  try {
    const born = await store.birth.claim(row);
    if (!born.won) {
      throw new StartError(
        'STORE_UNUSABLE',
        `schema ${options.schema} of the database belongs to cluster ${born.row.clusterId} ("${born.row.name}"), this data directory to ${row.clusterId}: name another postgres.schema, or put back the data directory of that cluster`,
      );
    }
    const newest = await store.newest();
    return {
      weaknesses: store.weaknesses,
      newest,
      missing: (stored) => asStart(missingOf(store, stored)),
      close: () => store.close(),
    };
  } catch (error) {
    await store.close();
    throw asStartError(error);
  }
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

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

/**
 * Opens the database once: checks it, brings its schema up to date, and makes it this cluster's unless it is another's. Returns the settings of the
 * server that lose acknowledged messages. StartError if it cannot be used.
 */
export async function claimDatabase(options: PostgresStoreOptions, row: BirthRow): Promise<readonly string[]> {
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
    return store.weaknesses;
  } catch (error) {
    if (error instanceof StartError) throw error;
    throw new StartError('STORE_UNUSABLE', `the database did not answer: ${String(error)}`, { cause: error });
  } finally {
    await store.close();
  }
}

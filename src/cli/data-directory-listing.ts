import { lstatSync, readdirSync, readFileSync, statfsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Bundle } from './bundle.ts';
import { usageError } from './failure.ts';

/** Files of a data directory that are listed. */
const LISTED_MAX = 20_000;
const NODE_BYTES_MAX = 64 * 1024;

/** Names, sizes and times; of the files themselves only the one that says whose directory it is. */
export function gatherFiles(bundle: Bundle, dataDir: string): void {
  const root = resolve(dataDir);
  let names: readonly string[];
  try {
    names = readdirSync(root, { recursive: true, encoding: 'utf8' }).sort();
  } catch (error) {
    throw usageError(`--data-dir ${dataDir}: cannot be read: ${(error as Error).message}`);
  }
  const files = names.slice(0, LISTED_MAX).map((name) => listed(root, name));
  if (names.length > LISTED_MAX)
    bundle.miss('data-directory.json', `only ${LISTED_MAX} of ${names.length} files are listed`);
  const { bsize, bavail, blocks } = statfsSync(root);
  bundle.json('data-directory.json', { path: root, disk_bytes: blocks * bsize, free_bytes: bavail * bsize, files });
  try {
    if (lstatSync(join(root, 'node.json')).size <= NODE_BYTES_MAX)
      bundle.append('node.json', readFileSync(join(root, 'node.json')));
  } catch (error) {
    bundle.miss('node.json', (error as Error).message);
  }
}

/** A file may go while its folder is read. */
function listed(root: string, name: string): object {
  const found = lstatSync(join(root, name), { throwIfNoEntry: false });
  if (found === undefined) return { path: name, gone: true };
  const kind = found.isDirectory() ? 'folder' : found.isFile() ? 'file' : 'other';
  return {
    path: name,
    kind,
    bytes: found.size,
    modified_at: found.mtime.toISOString(),
    mode: (found.mode & 0o777).toString(8),
  };
}

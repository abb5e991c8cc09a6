import { randomBytes, randomUUID } from 'node:crypto';
import { dirname, join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { failpoint } from '../base/failpoint.ts';
import { type Disk, errorCode } from './disk.ts';
import { checkNoRecovery, RECOVERY_NAMES, type RecoveryMarker, readMarker } from './recovery-marker.ts';
import { replaceFile } from './small-file.ts';
import { StartError } from './start-error.ts';

/**
 * The data directory of one node:
 *
 *   LOCK        held by the running process, see {@link DirectoryLock}
 *   node.json   whose directory this is; changed by a node that joins a cluster, one whose damaged log is put aside, and `cluster recover`
 *   raft/       Raft log and snapshots (raft-wal/)
 *   segments/   messages (embedded/)
 *   STORE       which database has the messages instead (bind-store.ts)
 *   RECOVERY    while `cluster recover` or `restore` is at work (recovery-marker.ts)
 */
export const LAYOUT_VERSION = 1;

const LOCK_NAME = 'LOCK';
const NODE_NAME = 'node.json';
const NODE_TEMPORARY_NAME = 'node.json.tmp';
/** What may be in a directory in which a first start was cut off, or in a fresh file system. */
const UNBORN_NAMES: ReadonlySet<string> = new Set([
  LOCK_NAME,
  `${LOCK_NAME}-journal`,
  NODE_TEMPORARY_NAME,
  'lost+found',
]);
/** A node.json is about 300 bytes; more than this was not written by us. */
const NODE_BYTES_MAX = 64 * 1024;

export interface NodeIdentity {
  readonly version: number;
  readonly clusterId: string;
  readonly clusterName: string;
  readonly nodeId: string;
  /**
   * 128 random bits in hex, new with every new data directory and when a damaged log is put aside: a voter is (node id, instance id), so a node that lost
   * what it had voted is another voter.
   */
  readonly instanceId: string;
  /** ISO 8601. */
  readonly createdAt: string;
}

export interface DataDirectoryOptions {
  readonly clusterName: string;
  readonly nodeId: string;
  /** For a node that joins; a first node makes one up. Compared when the directory has one already. */
  readonly clusterId?: string;
  /** Epoch ms, for `createdAt`. */
  readonly now: number;
}

export interface DataDirectory {
  /** Absolute. */
  readonly path: string;
  readonly raftPath: string;
  readonly segmentsPath: string;
  readonly node: NodeIdentity;
  /** True if this call made the directory. */
  readonly created: boolean;
  /** Gives the lock back. Call it after everything in the directory is closed. */
  close(): void;
}

/**
 * Makes or checks the directory and locks it (StartError with one of the DATA_DIRECTORY codes). A directory that is not ours is left
 * untouched: it is judged before the lock file is made.
 */
export function openDataDirectory(disk: Disk, path: string, options: DataDirectoryOptions): DataDirectory {
  const root = resolve(path);
  try {
    makeDirectories(disk, root);
    const names = disk.list(root);
    checkNoRecovery(root, names);
    refuseForeign(root, names);
  } catch (error) {
    throw asStartError(error, root);
  }
  const lock = new DirectoryLock(root);
  try {
    const { node, created } = readOrCreateNode(disk, root, options);
    compareNode(root, node, options);
    return {
      path: root,
      raftPath: join(root, 'raft'),
      segmentsPath: join(root, 'segments'),
      node,
      created,
      close: () => lock.release(),
    };
  } catch (error) {
    lock.release();
    throw asStartError(error, root);
  }
}

/** The node is one of that cluster from now on. Only for a directory without a Raft log. The change is there whole or not at all. */
export function adoptCluster(
  disk: Disk,
  directory: Pick<DataDirectory, 'path' | 'node'>,
  clusterId: string,
): NodeIdentity {
  const node = { ...directory.node, clusterId };
  if (clusterId !== directory.node.clusterId) writeNode(disk, directory.path, node);
  return node;
}

/** A data directory that is given new Raft state: maybe one without a node yet, maybe one in which that was cut off. */
export interface RecoveringDirectory {
  /** Absolute. */
  readonly path: string;
  readonly raftPath: string;
  readonly segmentsPath: string;
  readonly node: NodeIdentity | null;
  /** Of a run that was cut off. */
  readonly marker: RecoveryMarker | null;
  /** Gives the lock back. */
  close(): void;
}

/** Makes the directory if need be and locks it, for `cluster recover` and `restore`. StartError as for `openDataDirectory`. */
export function openRecoveringDirectory(disk: Disk, path: string): RecoveringDirectory {
  const root = resolve(path);
  let names: readonly string[];
  try {
    makeDirectories(disk, root);
    names = disk.list(root);
    if (!names.some((name) => RECOVERY_NAMES.has(name))) refuseForeign(root, names);
  } catch (error) {
    throw asStartError(error, root);
  }
  const lock = new DirectoryLock(root);
  try {
    return {
      path: root,
      raftPath: join(root, 'raft'),
      segmentsPath: join(root, 'segments'),
      node: readNode(disk, root),
      marker: readMarker(disk, root),
      close: () => lock.release(),
    };
  } catch (error) {
    lock.release();
    throw asStartError(error, root);
  }
}

/** The directory is another node's from now on. The change is there whole or not at all. */
export function replaceNode(disk: Disk, root: string, node: NodeIdentity): void {
  replaceFile(disk, join(root, NODE_NAME), Buffer.from(`${JSON.stringify(node, null, 2)}\n`));
}

/** The identity in a data directory, without its lock: for commands that only look. Null if there is none. Throws StartError. */
export function readNodeIdentity(disk: Disk, path: string): NodeIdentity | null {
  const root = resolve(path);
  try {
    return readNode(disk, root);
  } catch (error) {
    throw asStartError(error, root);
  }
}

/**
 * Node has no flock. An exclusive SQLite transaction takes fcntl locks, which the kernel releases when the process ends, however it
 * ends; nothing is ever written to the file. A pid file would outlive a kill -9, and a socket is bound to a network namespace, so that
 * two containers on one volume would not see each other. Beware: fcntl locks are lost when *any* descriptor of the file in this process
 * is closed, so nothing else may open LOCK (SQLite's own handles know of each other).
 */
class DirectoryLock {
  #database: DatabaseSync | null;

  constructor(root: string) {
    const path = join(root, LOCK_NAME);
    let database: DatabaseSync | null = null;
    try {
      database = new DatabaseSync(path, { timeout: 0 });
      // Without it a LOCK-journal appears beside the file and stays after a kill. (OFF is refused by SQLite's defensive mode.)
      database.exec('PRAGMA journal_mode = MEMORY');
      database.exec('BEGIN EXCLUSIVE');
    } catch (cause) {
      database?.close();
      throw lockError(root, cause);
    }
    this.#database = database;
  }

  release(): void {
    this.#database?.close();
    this.#database = null;
  }
}

const SQLITE_BUSY = 5;

function lockError(root: string, cause: unknown): StartError {
  const errcode = typeof cause === 'object' && cause !== null && 'errcode' in cause ? cause.errcode : undefined;
  if (errcode === SQLITE_BUSY) {
    return new StartError(
      'DATA_DIRECTORY_LOCKED',
      `the data directory ${root} is in use by another process; stop that broker, or give this one a data directory of its own`,
      { cause },
    );
  }
  const detail = cause instanceof Error ? cause.message : String(cause);
  return new StartError('DATA_DIRECTORY_UNUSABLE', `cannot lock ${join(root, LOCK_NAME)}: ${detail}`, { cause });
}

/** Makes the missing part of a path, each directory durable before the next. */
function makeDirectories(disk: Disk, path: string): void {
  if (disk.size(path) >= 0) return;
  const parent = dirname(path);
  if (parent !== path) makeDirectories(disk, parent);
  disk.mkdir(path);
}

function refuseForeign(root: string, names: readonly string[]): void {
  if (names.includes(NODE_NAME)) return;
  const foreign = names.find((name) => !UNBORN_NAMES.has(name));
  if (foreign === undefined) return;
  throw new StartError(
    'DATA_DIRECTORY_FOREIGN',
    `${root} has files in it (such as ${foreign}) but no ${NODE_NAME}, so it is not a broker's data directory; ` +
      'name an empty or a new directory (nothing was touched)',
  );
}

function readOrCreateNode(
  disk: Disk,
  root: string,
  options: DataDirectoryOptions,
): { node: NodeIdentity; created: boolean } {
  const found = readNode(disk, root);
  if (found !== null) return { node: found, created: false };
  const node: NodeIdentity = {
    version: LAYOUT_VERSION,
    clusterId: options.clusterId ?? randomUUID(),
    clusterName: options.clusterName,
    nodeId: options.nodeId,
    instanceId: randomBytes(16).toString('hex'),
    createdAt: new Date(options.now).toISOString(),
  };
  writeNode(disk, root, node);
  return { node, created: true };
}

function writeNode(disk: Disk, root: string, node: NodeIdentity): void {
  const temporary = join(root, NODE_TEMPORARY_NAME);
  const bytes = Buffer.from(`${JSON.stringify(node, null, 2)}\n`);
  const file = disk.createOrEmpty(temporary, 'node-file');
  try {
    file.writeFullySync(bytes, 0, bytes.length, 0);
    file.fdatasyncSync();
  } finally {
    file.close();
  }
  failpoint('data-directory.node-written');
  disk.rename(temporary, join(root, NODE_NAME));
}

function readNode(disk: Disk, root: string): NodeIdentity | null {
  const path = join(root, NODE_NAME);
  const size = disk.size(path);
  if (size < 0) return null;
  if (size > NODE_BYTES_MAX) throw damagedNode(path, `it has ${size} bytes`);
  const bytes = Buffer.alloc(size);
  const file = disk.open(path, 'read');
  try {
    file.preadSync(bytes, 0, size, 0);
  } finally {
    file.close();
  }
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw damagedNode(path, 'it is not JSON', cause);
  }
  return parseNode(path, value);
}

function parseNode(path: string, value: unknown): NodeIdentity {
  if (typeof value !== 'object' || value === null) throw damagedNode(path, 'it is not a JSON object');
  const fields = value as Record<string, unknown>;
  if (!Number.isSafeInteger(fields.version)) throw damagedNode(path, 'its version is not a number');
  if (fields.version !== LAYOUT_VERSION) {
    throw new StartError(
      'DATA_DIRECTORY_VERSION',
      `${path} says layout version ${fields.version}, this program knows version ${LAYOUT_VERSION} only; ` +
        'start the release that wrote it (nothing was changed)',
    );
  }
  const text = (name: string, pattern: RegExp): string => {
    const field = fields[name];
    if (typeof field !== 'string' || !pattern.test(field)) throw damagedNode(path, `its ${name} is not valid`);
    return field;
  };
  return {
    version: LAYOUT_VERSION,
    clusterId: text('clusterId', /./u),
    clusterName: text('clusterName', /./u),
    nodeId: text('nodeId', /./u),
    instanceId: text('instanceId', /^[0-9a-f]{32}$/),
    createdAt: text('createdAt', /^\d{4}-/),
  };
}

function compareNode(root: string, node: NodeIdentity, options: DataDirectoryOptions): void {
  const differs = (what: string, stored: string, configured: string): StartError =>
    new StartError(
      'DATA_DIRECTORY_MISMATCH',
      `${root} belongs to ${what} "${stored}", the configuration says "${configured}"; correct the one that is wrong`,
    );
  if (node.clusterName !== options.clusterName) throw differs('cluster', node.clusterName, options.clusterName);
  if (node.nodeId !== options.nodeId) throw differs('node', node.nodeId, options.nodeId);
  if (options.clusterId !== undefined && node.clusterId !== options.clusterId) {
    throw differs('cluster id', node.clusterId, options.clusterId);
  }
}

function damagedNode(path: string, detail: string, cause?: unknown): StartError {
  return new StartError(
    'DATA_DIRECTORY_UNUSABLE',
    `${path} is damaged: ${detail}; restore it from a backup made since the node joined its cluster, was recovered or put a damaged log aside`,
    { cause },
  );
}

function asStartError(error: unknown, root: string): StartError {
  if (error instanceof StartError) return error;
  const detail = error instanceof Error ? error.message : String(error);
  return new StartError(
    'DATA_DIRECTORY_UNUSABLE',
    `cannot use the data directory ${root} (${errorCode(error)}): ${detail}`,
    {
      cause: error,
    },
  );
}

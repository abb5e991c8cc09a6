import * as nodeFs from 'node:fs';
import { dirname } from 'node:path';
import { assert } from '../base/assert.ts';
import { failpoint } from '../base/failpoint.ts';

/**
 * The one door to the disk for everything that must survive: Raft log, snapshots, segments. What it promises beyond node:fs:
 *
 * - A write is whole or an error. A short write is continued, a write of 0 bytes is an error (traps S7).
 * - An error of a sync is never retried and never forgotten: after it the kernel may have dropped the dirty pages and marked them
 *   clean, so that a second, successful sync proves nothing (traps S2; "Can applications recover from fsync failures?", ATC 2020).
 *   The caller gets {@link SyncFailed}, every later write or sync of that file throws it again, and the thread's entry point ends the
 *   process within 1 s with a non-zero code.
 * - "No space" on a write is {@link DiskFull} and can be recovered from: free space, then write again *at the same position*. How much of
 *   the failed write reached the file is unknown.
 * - Changes of names (rename, unlink, mkdir) are durable when the call returns; a created file's name is durable after `syncDirectory`.
 *
 * Failpoint sites: for files `<site>.write`, `<site>.written`, `<site>.sync`, `<site>.synced` and `<site>.truncate` with the site given
 * at opening; for names `disk.create`, `disk.rename`, `disk.renamed` (before its directory fsync), `disk.unlink`, `disk.dirsync`, `disk.mkdir`.
 */
export interface Disk {
  /** Creates `path` for reading and writing; an error (EEXIST) if it is there. Its name is durable only after `syncDirectory`. */
  createExclusive(path: string, site?: string): DiskFile;
  /** Opens `path` for reading and writing, made or emptied as needed: for temporary files that a rename will publish. `mode`: of a file that is made. */
  createOrEmpty(path: string, site?: string, mode?: number): DiskFile;
  open(path: string, access: 'read' | 'write', site?: string): DiskFile;
  /** Renames over `target` if it exists; then fsyncs the directory of `target` and, if another, of `source`. */
  rename(source: string, target: string): void;
  unlink(path: string): void;
  /** Makes one directory (its parent must exist) and fsyncs the parent. False if it was there. */
  mkdir(path: string): boolean;
  syncDirectory(path: string): void;
  /** Names in a directory, sorted by code unit. */
  list(path: string): string[];
  /** Size of a file in bytes, or -1 if there is none. */
  size(path: string): number;
  /** Bytes that this process may still use on the file system of `path`. */
  freeBytes(path: string): number;
}

/** An open file. Positions and lengths are bytes. One writer; the caller keeps the end position. */
export interface DiskFile {
  readonly path: string;
  /** Writes `bytes[start, end)` at `position`. */
  writeFullySync(bytes: Uint8Array, start: number, end: number, position: number): void;
  /** Writes the buffers one behind the other at `position`; returns the number of bytes. */
  writevFullySync(buffers: readonly Uint8Array[], position: number): number;
  writevFully(buffers: readonly Uint8Array[], position: number): Promise<number>;
  /** Everything written so far is durable when it returns. Throws SyncFailed. */
  fdatasyncSync(): void;
  /** Everything written *before the call* is durable when it resolves; nothing is said of later writes (traps S3). Rejects with SyncFailed. */
  fdatasync(): Promise<void>;
  /** Fills `target[start, end)` from `position`; returns the bytes read, fewer only at the end of the file. */
  preadSync(target: Uint8Array, start: number, end: number, position: number): number;
  pread(target: Uint8Array, start: number, end: number, position: number): Promise<number>;
  /** Cuts or extends (with zeros) to `length`. Durable after the next sync. */
  truncate(length: number): void;
  size(): number;
  /** Writes zeros over [from, to), so that later writes there need neither space nor a change of the file's size. */
  preallocate(from: number, to: number): void;
  /** Closing twice is allowed. Does not sync. */
  close(): void;
}

export class DiskError extends Error {
  override name = 'DiskError';
  readonly operation: string;
  readonly path: string;
  /** The errno name, such as EIO; UNKNOWN if there was none. */
  readonly code: string;

  constructor(operation: string, path: string, cause: unknown, advice = '') {
    const code = errorCode(cause);
    const detail = cause instanceof Error ? cause.message : String(cause);
    super(`cannot ${operation} ${path}: ${detail}${advice}`, { cause });
    this.operation = operation;
    this.path = path;
    this.code = code;
  }

  /** The process must end: what is on the disk is no longer known. */
  get fatal(): boolean {
    return false;
  }
}

/** No space, or over quota. Nothing is lost: free space and write again at the same position. */
export class DiskFull extends DiskError {
  override name = 'DiskFull';
}

/** A failed sync. The process ends within 1 s with a non-zero code; nothing that waits for this sync is ever acknowledged. */
export class SyncFailed extends DiskError {
  override name = 'SyncFailed';

  constructor(operation: string, path: string, cause: unknown) {
    super(operation, path, cause, '; what is on the disk is unknown, so the process must end');
  }

  override get fatal(): boolean {
    return true;
  }
}

/** The calls of node:fs that are used: a test hands in its own to make faults that a kernel makes rarely. */
export type FsCalls = Pick<
  typeof nodeFs,
  | 'openSync'
  | 'closeSync'
  | 'writeSync'
  | 'writevSync'
  | 'writev'
  | 'readSync'
  | 'read'
  | 'fdatasyncSync'
  | 'fdatasync'
  | 'fsyncSync'
  | 'ftruncateSync'
  | 'fstatSync'
  | 'statSync'
  | 'statfsSync'
  | 'renameSync'
  | 'unlinkSync'
  | 'mkdirSync'
  | 'readdirSync'
>;

const FILE_MODE = 0o640;
const DIRECTORY_MODE = 0o750;
const ZEROS_BYTES = 256 * 1024;

export class NodeDisk implements Disk {
  readonly #fs: FsCalls;

  constructor(calls: FsCalls = nodeFs) {
    this.#fs = calls;
  }

  createExclusive(path: string, site = 'file'): DiskFile {
    const { O_RDWR, O_CREAT, O_EXCL } = nodeFs.constants;
    return this.#open(path, O_RDWR | O_CREAT | O_EXCL, 'create', site);
  }

  createOrEmpty(path: string, site = 'file', mode = FILE_MODE): DiskFile {
    const { O_RDWR, O_CREAT, O_TRUNC } = nodeFs.constants;
    return this.#open(path, O_RDWR | O_CREAT | O_TRUNC, 'create', site, mode);
  }

  open(path: string, access: 'read' | 'write', site = 'file'): DiskFile {
    const { O_RDWR, O_RDONLY } = nodeFs.constants;
    return this.#open(path, access === 'write' ? O_RDWR : O_RDONLY, 'open', site);
  }

  rename(source: string, target: string): void {
    guard('rename', source, () => {
      failpoint('disk.rename');
      this.#fs.renameSync(source, target);
      failpoint('disk.renamed');
    });
    this.syncDirectory(dirname(target));
    if (dirname(source) !== dirname(target)) this.syncDirectory(dirname(source));
  }

  unlink(path: string): void {
    guard('unlink', path, () => {
      failpoint('disk.unlink');
      this.#fs.unlinkSync(path);
    });
    this.syncDirectory(dirname(path));
  }

  mkdir(path: string): boolean {
    try {
      failpoint('disk.mkdir');
      this.#fs.mkdirSync(path, DIRECTORY_MODE);
    } catch (cause) {
      if (errorCode(cause) === 'EEXIST' && this.#fs.statSync(path).isDirectory()) return false;
      throw toDiskError('mkdir', path, cause);
    }
    this.syncDirectory(dirname(path));
    return true;
  }

  /** fsync and not fdatasync: for a directory the names are the data, and file systems differ in what they call metadata. */
  syncDirectory(path: string): void {
    const fd = guard('open', path, () => this.#fs.openSync(path, nodeFs.constants.O_RDONLY));
    try {
      failpoint('disk.dirsync');
      this.#fs.fsyncSync(fd);
    } catch (cause) {
      throw new SyncFailed('fsync directory', path, cause);
    } finally {
      this.#fs.closeSync(fd);
    }
  }

  list(path: string): string[] {
    return guard('list', path, () => this.#fs.readdirSync(path).sort());
  }

  size(path: string): number {
    try {
      return this.#fs.statSync(path).size;
    } catch (cause) {
      if (errorCode(cause) === 'ENOENT') return -1;
      throw toDiskError('stat', path, cause);
    }
  }

  freeBytes(path: string): number {
    return guard('statfs', path, () => {
      const { bavail, bsize } = this.#fs.statfsSync(path);
      return bavail * bsize;
    });
  }

  #open(path: string, flags: number, operation: string, site: string, mode = FILE_MODE): DiskFile {
    const fd = guard(operation, path, () => {
      if (operation === 'create') failpoint('disk.create');
      return this.#fs.openSync(path, flags, mode);
    });
    return new NodeDiskFile(this.#fs, fd, path, site);
  }
}

/** Failpoint names of one file, built once so that a write builds no string. */
interface Sites {
  readonly write: string;
  readonly written: string;
  readonly sync: string;
  readonly synced: string;
  readonly truncate: string;
}

class NodeDiskFile implements DiskFile {
  readonly path: string;
  readonly #fs: FsCalls;
  readonly #sites: Sites;
  /** -1 once closed. */
  #fd: number;
  /** Set by the first failed sync and thrown by every later write and sync. */
  #failed: SyncFailed | null = null;

  constructor(calls: FsCalls, fd: number, path: string, site: string) {
    this.#fs = calls;
    this.#fd = fd;
    this.path = path;
    this.#sites = {
      write: `${site}.write`,
      written: `${site}.written`,
      sync: `${site}.sync`,
      synced: `${site}.synced`,
      truncate: `${site}.truncate`,
    };
  }

  writeFullySync(bytes: Uint8Array, start: number, end: number, position: number): void {
    assert(start >= 0 && start <= end && end <= bytes.length, 'write outside of its buffer');
    this.#assertUsable();
    let done = start;
    try {
      failpoint(this.#sites.write);
      while (done < end) {
        const written = this.#fs.writeSync(this.#fd, bytes, done, end - done, position + (done - start));
        if (written <= 0) throw new Error(`${written} of ${end - done} bytes were written`);
        done += written;
      }
      failpoint(this.#sites.written);
    } catch (cause) {
      throw toDiskError('write', this.path, cause);
    }
  }

  writevFullySync(buffers: readonly Uint8Array[], position: number): number {
    this.#assertUsable();
    const total = byteLength(buffers);
    let rest = buffers;
    let done = 0;
    try {
      failpoint(this.#sites.write);
      while (done < total) {
        const written = this.#fs.writevSync(this.#fd, rest, position + done);
        if (written <= 0) throw new Error(`${written} of ${total - done} bytes were written`);
        done += written;
        if (done < total) rest = withoutFirst(rest, written);
      }
      failpoint(this.#sites.written);
    } catch (cause) {
      throw toDiskError('write', this.path, cause);
    }
    return total;
  }

  async writevFully(buffers: readonly Uint8Array[], position: number): Promise<number> {
    this.#assertUsable();
    const total = byteLength(buffers);
    let rest = buffers;
    let done = 0;
    try {
      failpoint(this.#sites.write);
      while (done < total) {
        const written = await this.#writevOnce(rest, position + done);
        if (written <= 0) throw new Error(`${written} of ${total - done} bytes were written`);
        done += written;
        if (done < total) rest = withoutFirst(rest, written);
      }
      failpoint(this.#sites.written);
    } catch (cause) {
      throw toDiskError('write', this.path, cause);
    }
    return total;
  }

  #writevOnce(buffers: readonly Uint8Array[], position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#fs.writev(this.#fd, buffers as Uint8Array[], position, (error, written) => {
        if (error) reject(error);
        else resolve(written);
      });
    });
  }

  fdatasyncSync(): void {
    this.#assertUsable();
    try {
      failpoint(this.#sites.sync);
      this.#fs.fdatasyncSync(this.#fd);
      failpoint(this.#sites.synced);
    } catch (cause) {
      throw this.#syncFailed(cause);
    }
  }

  fdatasync(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#assertUsable();
      try {
        failpoint(this.#sites.sync);
      } catch (cause) {
        reject(this.#syncFailed(cause));
        return;
      }
      this.#fs.fdatasync(this.#fd, (error) => {
        try {
          if (error) throw error;
          failpoint(this.#sites.synced);
        } catch (cause) {
          reject(this.#syncFailed(cause));
          return;
        }
        // Of two syncs in flight the later may succeed because the earlier has already reported the error and cleared it.
        if (this.#failed === null) resolve();
        else reject(this.#failed);
      });
    });
  }

  preadSync(target: Uint8Array, start: number, end: number, position: number): number {
    assert(start >= 0 && start <= end && end <= target.length, 'read outside of its buffer');
    this.#assertOpen();
    let done = start;
    try {
      while (done < end) {
        const read = this.#fs.readSync(this.#fd, target, done, end - done, position + (done - start));
        if (read === 0) break;
        done += read;
      }
    } catch (cause) {
      throw toDiskError('read', this.path, cause);
    }
    return done - start;
  }

  async pread(target: Uint8Array, start: number, end: number, position: number): Promise<number> {
    assert(start >= 0 && start <= end && end <= target.length, 'read outside of its buffer');
    this.#assertOpen();
    let done = start;
    try {
      while (done < end) {
        const read = await this.#readOnce(target, done, end - done, position + (done - start));
        if (read === 0) break;
        done += read;
      }
    } catch (cause) {
      throw toDiskError('read', this.path, cause);
    }
    return done - start;
  }

  #readOnce(target: Uint8Array, start: number, length: number, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#fs.read(this.#fd, target, start, length, position, (error, read) => {
        if (error) reject(error);
        else resolve(read);
      });
    });
  }

  truncate(length: number): void {
    this.#assertUsable();
    guard('truncate', this.path, () => {
      failpoint(this.#sites.truncate);
      this.#fs.ftruncateSync(this.#fd, length);
    });
  }

  size(): number {
    this.#assertOpen();
    return guard('stat', this.path, () => this.#fs.fstatSync(this.#fd).size);
  }

  preallocate(from: number, to: number): void {
    const zeros = Buffer.alloc(Math.max(0, Math.min(ZEROS_BYTES, to - from)));
    for (let position = from; position < to; position += zeros.length) {
      this.writeFullySync(zeros, 0, Math.min(zeros.length, to - position), position);
    }
  }

  close(): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    guard('close', this.path, () => this.#fs.closeSync(fd));
  }

  #syncFailed(cause: unknown): SyncFailed {
    this.#failed ??= new SyncFailed('fdatasync', this.path, cause);
    return this.#failed;
  }

  #assertUsable(): void {
    this.#assertOpen();
    if (this.#failed !== null) throw this.#failed;
  }

  #assertOpen(): void {
    assert(this.#fd >= 0, () => `${this.path} is closed`);
  }
}

/** The errno name of a system error, UNKNOWN for anything else. */
export function errorCode(error: unknown): string {
  if (typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string')
    return error.code;
  return 'UNKNOWN';
}

function toDiskError(operation: string, path: string, cause: unknown): DiskError {
  if (cause instanceof DiskError) return cause;
  const code = errorCode(cause);
  if (code === 'ENOSPC' || code === 'EDQUOT') return new DiskFull(operation, path, cause);
  return new DiskError(operation, path, cause);
}

function guard<T>(operation: string, path: string, body: () => T): T {
  try {
    return body();
  } catch (cause) {
    throw toDiskError(operation, path, cause);
  }
}

function byteLength(buffers: readonly Uint8Array[]): number {
  let total = 0;
  for (const buffer of buffers) total += buffer.length;
  return total;
}

/** The buffers without their first `bytes` bytes: what is left after a short write. */
function withoutFirst(buffers: readonly Uint8Array[], bytes: number): Uint8Array[] {
  const rest: Uint8Array[] = [];
  let skip = bytes;
  for (const buffer of buffers) {
    if (skip >= buffer.length) skip -= buffer.length;
    else {
      rest.push(skip === 0 ? buffer : buffer.subarray(skip));
      skip = 0;
    }
  }
  return rest;
}

/**
 * A disk in memory that forgets, at a power cut, what was not synced: sectors written since the last fdatasync are each old, new or, behind the
 * old end of the file, zero; a name is there only if its directory was synced. It can fail any call on demand.
 */
import { dirname } from 'node:path';
import { Prng } from '../../src/base/prng.ts';
import { type Disk, DiskError, type DiskFile, DiskFull, SyncFailed } from '../../src/storage/disk.ts';

const SECTOR = 512;

interface Inode {
  data: Buffer;
  /** As of the last sync. */
  durable: Buffer;
}

export class PowerCut extends Error {
  override name = 'PowerCut';
}

export type Operation = 'create' | 'write' | 'sync' | 'truncate' | 'rename' | 'unlink' | 'mkdir' | 'dirsync' | 'read';

export class MemoryDisk implements Disk {
  readonly #inodes = new Map<string, Inode>();
  readonly #durableNames = new Map<string, Inode>();
  readonly #directories = new Set<string>(['/']);
  readonly unlinked: string[] = [];
  /** Operations that change something, so far. */
  operations = 0;
  /** The power goes out at this operation. */
  cutAt = Number.POSITIVE_INFINITY;
  free = 2 ** 40;
  freeAsked = 0;
  /** Asked before every operation; an error code makes it fail. A failing write leaves `partial` of its bytes behind. */
  fault: (operation: Operation, path: string) => string | null = () => null;
  partial = 0.5;
  /** Resolves asynchronous calls: by default at once. */
  gate: (operation: Operation) => Promise<void> = () => Promise.resolve();

  createExclusive(path: string): DiskFile {
    if (this.#inodes.has(path))
      throw new DiskError('create', path, Object.assign(new Error('EEXIST'), { code: 'EEXIST' }));
    return this.#create(path);
  }

  createOrEmpty(path: string): DiskFile {
    const inode = this.#inodes.get(path);
    if (inode === undefined) return this.#create(path);
    this.#step('create', path);
    inode.data = Buffer.alloc(0);
    return new MemoryFile(this, path, inode);
  }

  open(path: string): DiskFile {
    const inode = this.#inodes.get(path);
    if (inode === undefined) throw new DiskError('open', path, Object.assign(new Error('ENOENT'), { code: 'ENOENT' }));
    return new MemoryFile(this, path, inode);
  }

  rename(source: string, target: string): void {
    this.#step('rename', source);
    const inode = this.#inodes.get(source) as Inode;
    this.#inodes.delete(source);
    this.#inodes.set(target, inode);
    this.syncDirectory(dirname(target));
  }

  unlink(path: string): void {
    this.#step('unlink', path);
    this.#inodes.delete(path);
    this.unlinked.push(path);
    this.syncDirectory(dirname(path));
  }

  mkdir(path: string): boolean {
    if (this.#directories.has(path)) return false;
    this.#step('mkdir', path);
    this.#directories.add(path);
    return true;
  }

  syncDirectory(path: string): void {
    this.#step('dirsync', path);
    for (const name of this.#durableNames.keys()) {
      if (dirname(name) === path && !this.#inodes.has(name)) this.#durableNames.delete(name);
    }
    for (const [name, inode] of this.#inodes) if (dirname(name) === path) this.#durableNames.set(name, inode);
  }

  list(path: string): string[] {
    const names = [...this.#inodes.keys(), ...this.#directories].filter(
      (name) => name !== '/' && dirname(name) === path,
    );
    return names.map((name) => name.slice(path === '/' ? 1 : path.length + 1)).sort();
  }

  size(path: string): number {
    return this.#inodes.get(path)?.data.length ?? (this.#directories.has(path) ? 0 : -1);
  }

  freeBytes(): number {
    this.freeAsked += 1;
    return this.free;
  }

  /** The file's bytes as programs see them; writing to them is damage. */
  bytes(path: string): Buffer {
    return (this.#inodes.get(path) as Inode).data;
  }

  /** Replaces a file, durably. */
  put(path: string, bytes: Buffer): void {
    const inode = { data: Buffer.from(bytes), durable: Buffer.from(bytes) };
    this.#inodes.set(path, inode);
    this.#durableNames.set(path, inode);
    for (let folder = dirname(path); folder !== '/'; folder = dirname(folder)) this.#directories.add(folder);
  }

  /** A copy in which everything is durable. */
  copy(): MemoryDisk {
    const copy = new MemoryDisk();
    for (const directory of this.#directories) copy.#directories.add(directory);
    for (const [path, { data }] of this.#inodes) copy.put(path, data);
    return copy;
  }

  /** What is found when the power is back: one of the possible outcomes, chosen by the seed. */
  afterCut(seed: number): MemoryDisk {
    const random = new Prng(seed);
    const disk = new MemoryDisk();
    for (const directory of this.#directories) disk.#directories.add(directory);
    for (const [path, inode] of this.#durableNames) disk.put(path, survivor(inode, random));
    return disk;
  }

  step(operation: Operation, path: string): void {
    this.#step(operation, path);
  }

  #create(path: string): DiskFile {
    this.#step('create', path);
    const inode = { data: Buffer.alloc(0), durable: Buffer.alloc(0) };
    this.#inodes.set(path, inode);
    return new MemoryFile(this, path, inode);
  }

  #step(operation: Operation, path: string): void {
    if (operation !== 'read') {
      this.operations += 1;
      if (this.operations >= this.cutAt) throw new PowerCut();
    }
    const code = this.fault(operation, path);
    if (code === null) return;
    const cause = Object.assign(new Error(`${code}: made by the test`), { code });
    if (operation === 'sync' || operation === 'dirsync') throw new SyncFailed('fdatasync', path, cause);
    throw code === 'ENOSPC' ? new DiskFull(operation, path, cause) : new DiskError(operation, path, cause);
  }
}

/** Which of the unsynced sectors reached the device is chance; the size may be anything between. */
function survivor({ data, durable }: Inode, random: Prng): Buffer {
  const isTrue = (): boolean => random.chance(1, 2);
  const sizes = [durable.length, data.length];
  const between = Math.min(...sizes) + random.nextBelow(Math.abs(data.length - durable.length) + 1);
  const length = random.chance(1, 3) ? between : (sizes[random.nextBelow(2)] as number);
  const found = Buffer.alloc(length);
  durable.copy(found, 0, 0, Math.min(length, durable.length));
  for (let at = 0; at < length; at += SECTOR) {
    if (isTrue()) data.copy(found, at, at, Math.min(at + SECTOR, data.length, length));
  }
  return found;
}

class MemoryFile implements DiskFile {
  readonly path: string;
  readonly #disk: MemoryDisk;
  readonly #inode: Inode;
  #failed: SyncFailed | null = null;

  constructor(disk: MemoryDisk, path: string, inode: Inode) {
    this.#disk = disk;
    this.path = path;
    this.#inode = inode;
  }

  writeFullySync(bytes: Uint8Array, start: number, end: number, position: number): void {
    if (this.#failed !== null) throw this.#failed;
    try {
      this.#disk.step('write', this.path);
    } catch (error) {
      const part = start + Math.floor((end - start) * this.#disk.partial);
      this.#write(bytes.subarray(start, part), position);
      throw error;
    }
    this.#write(bytes.subarray(start, end), position);
  }

  writevFullySync(buffers: readonly Uint8Array[], position: number): number {
    const bytes = Buffer.concat(buffers);
    this.writeFullySync(bytes, 0, bytes.length, position);
    return bytes.length;
  }

  async writevFully(buffers: readonly Uint8Array[], position: number): Promise<number> {
    await this.#disk.gate('write');
    return this.writevFullySync(buffers, position);
  }

  fdatasyncSync(): void {
    if (this.#failed !== null) throw this.#failed;
    try {
      this.#disk.step('sync', this.path);
    } catch (error) {
      if (error instanceof SyncFailed) this.#failed = error;
      throw error;
    }
    this.#inode.durable = Buffer.from(this.#inode.data);
  }

  async fdatasync(): Promise<void> {
    // What is covered is fixed by the call, not by its end.
    const covered = Buffer.from(this.#inode.data);
    await this.#disk.gate('sync');
    this.#disk.step('sync', this.path);
    this.#inode.durable = covered;
  }

  preadSync(target: Uint8Array, start: number, end: number, position: number): number {
    this.#disk.step('read', this.path);
    const found = this.#inode.data.subarray(position, position + (end - start));
    target.set(found, start);
    return found.length;
  }

  async pread(target: Uint8Array, start: number, end: number, position: number): Promise<number> {
    await this.#disk.gate('read');
    return this.preadSync(target, start, end, position);
  }

  truncate(length: number): void {
    if (this.#failed !== null) throw this.#failed;
    this.#disk.step('truncate', this.path);
    const cut = Buffer.alloc(length);
    this.#inode.data.copy(cut, 0, 0, length);
    this.#inode.data = cut;
  }

  size(): number {
    return this.#inode.data.length;
  }

  preallocate(from: number, to: number): void {
    this.writeFullySync(Buffer.alloc(to - from), 0, to - from, from);
  }

  close(): void {
    this.#failed = null;
  }

  #write(bytes: Uint8Array, position: number): void {
    const end = position + bytes.length;
    if (end > this.#inode.data.length) {
      const grown = Buffer.alloc(end);
      this.#inode.data.copy(grown);
      this.#inode.data = grown;
    }
    this.#inode.data.set(bytes, position);
  }
}

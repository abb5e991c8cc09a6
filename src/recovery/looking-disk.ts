import { type DiskFile, NodeDisk } from '../storage/disk.ts';

const nothing = (): void => undefined;

/**
 * A disk that shows what is there and keeps nothing that is done to it: for commands that look at a data directory and leave it as it is. Whoever
 * opens a log cuts its torn end off and takes its reserve; here that is done in the mind only.
 */
export class LookingDisk extends NodeDisk {
  override createExclusive(path: string): DiskFile {
    return nowhere(path);
  }

  override createOrEmpty(path: string): DiskFile {
    return nowhere(path);
  }

  override open(path: string, _access: 'read' | 'write', site?: string): DiskFile {
    const file = super.open(path, 'read', site);
    return Object.assign(file, unwritten(file));
  }

  override rename(): void {
    // Only looked at.
  }

  override unlink(): void {
    // Only looked at.
  }

  override mkdir(path: string): boolean {
    return this.size(path) < 0;
  }

  override syncDirectory(): void {
    // Only looked at.
  }
}

/** What an open file does when it is told to change. */
function unwritten(file: Pick<DiskFile, 'path'>): Omit<DiskFile, 'preadSync' | 'pread' | 'size' | 'close'> {
  const total = (buffers: readonly Uint8Array[]): number => buffers.reduce((sum, { length }) => sum + length, 0);
  return {
    path: file.path,
    writeFullySync: nothing,
    writevFullySync: total,
    writevFully: (buffers) => Promise.resolve(total(buffers)),
    fdatasyncSync: nothing,
    fdatasync: () => Promise.resolve(),
    truncate: nothing,
    preallocate: nothing,
  };
}

function nowhere(path: string): DiskFile {
  return {
    ...unwritten({ path }),
    preadSync: () => 0,
    pread: () => Promise.resolve(0),
    size: () => 0,
    close: nothing,
  };
}

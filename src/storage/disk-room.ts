import { statfs } from 'node:fs/promises';

export interface DiskRoom {
  /** For this process: what the system keeps for its administrator is not in it. */
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** Of the file system that a path is on. */
export async function diskRoom(path: string): Promise<DiskRoom> {
  const { bavail, blocks, bsize } = await statfs(path);
  return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
}

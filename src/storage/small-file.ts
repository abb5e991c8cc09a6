/** Markers and manifests: read at once, replaced as a whole. */
import type { Disk } from './disk.ts';

/** The first `bytesMax` bytes, which is all of what we write; null: there is no such file. */
export function readSmallFile(disk: Disk, path: string, bytesMax: number): Buffer | null {
  const size = disk.size(path);
  if (size < 0) return null;
  const bytes = Buffer.alloc(Math.min(size, bytesMax));
  const file = disk.open(path, 'read');
  try {
    file.preadSync(bytes, 0, bytes.length, 0);
  } finally {
    file.close();
  }
  return bytes;
}

/**
 * Puts a small file in place of what was there: after a crash the one or the other is there, whole, and the new one is durable when the call returns. `site`: its
 * name among the places where a disk may fail (disk.ts). `mode`: who may read it, if not whoever may read the rest.
 */
export function replaceFile(disk: Disk, path: string, bytes: Uint8Array, site = 'small-file', mode?: number): void {
  const temporary = `${path}.tmp`;
  const file = disk.createOrEmpty(temporary, site, mode);
  try {
    file.writeFullySync(bytes, 0, bytes.length, 0);
    file.fdatasyncSync();
  } finally {
    file.close();
  }
  disk.rename(temporary, path);
}

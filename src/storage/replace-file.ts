import type { Disk } from './disk.ts';

/** Puts a small file in place of what was there: after a crash the one or the other is there, whole. */
export function replaceFile(disk: Disk, path: string, bytes: Uint8Array): void {
  const temporary = `${path}.tmp`;
  const file = disk.createOrEmpty(temporary, 'small-file');
  try {
    file.writeFullySync(bytes, 0, bytes.length, 0);
    file.fdatasyncSync();
  } finally {
    file.close();
  }
  disk.rename(temporary, path);
}

import { statSync } from 'node:fs';

/**
 * Changes when another file is at `path`, or when the one there was written, moved or opened up to others. Links are followed, which is how Kubernetes
 * changes several files at once. A file that is not there, or that this process may not look at, is a state like any other: whoever watches files by a
 * timer must not end by what somebody does to them, and has to see them come back.
 */
export function fileStamp(path: string): string {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join(':');
  } catch (error) {
    return `unreadable (${(error as NodeJS.ErrnoException).code ?? String(error)})`;
  }
}

/** Secrets that are files, as Docker and Kubernetes hand them over: `BROKER_GOSSIP_KEY_FILE=/run/secrets/gossip-key`. */
import { closeSync, openSync, readSync, statSync } from 'node:fs';

/** Largest file that is read for a secret. */
export const SECRET_BYTES_MAX = 64 * 1024;

/** The text of the file without the line break at its end. Throws an error whose message says what is wrong, and nothing of what is in the file. */
export function readSecretFile(path: string): string {
  const file = openSync(path, 'r');
  try {
    const buffer = Buffer.alloc(SECRET_BYTES_MAX + 1);
    let length = 0;
    while (length < buffer.length) {
      const read = readSync(file, buffer, length, buffer.length - length, null);
      if (read === 0) break;
      length += read;
    }
    if (length > SECRET_BYTES_MAX) throw new Error(`larger than ${SECRET_BYTES_MAX} bytes`);
    const text = buffer.toString('utf8', 0, length).replace(/\r?\n$/, '');
    if (text === '') throw new Error('it is empty');
    return text;
  } finally {
    closeSync(file);
  }
}

/** Whether every user of the machine can read it. What is no ordinary file, such as a pipe, is nobody's but the one who opened it. */
export function isReadableByAll(path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  return found?.isFile() === true && (found.mode & 0o004) !== 0;
}

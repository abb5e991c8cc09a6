import { join } from 'node:path';
import { z } from 'zod';
import type { Disk } from '../../storage/disk.ts';
import { readSmallFile, replaceFile } from '../../storage/small-file.ts';
import { StartError } from '../../storage/start-error.ts';
import type { Log } from '../../telemetry/log.ts';

const FILE = 'keyring.json';
const FILE_BYTES_MAX = 64 * 1024;
const OWNER_ONLY = 0o600;
/** AES-128, AES-192, AES-256. */
const KEY_BYTES: readonly number[] = [16, 24, 32];

const FORMAT = z.array(
  z.base64().refine((text) => KEY_BYTES.includes(Buffer.from(text, 'base64').length), 'a key has 16, 24 or 32 bytes'),
);

/**
 * The gossip keys of a node as `serf keys` left them, in Serf's own format: a JSON array of base64, the primary key first. What it says goes before the
 * configuration: after a rotation the key of the configuration may be one that the cluster has given up.
 */
export class KeyringFile {
  readonly path: string;
  readonly #disk: Disk;

  /** `folder` exists. */
  constructor(disk: Disk, folder: string) {
    this.#disk = disk;
    this.path = join(folder, FILE);
  }

  /** The keys to start with, primary first; empty: no encryption. StartError if the file is damaged: without it the node could not even be asked for its keys. */
  choose(configured: readonly Uint8Array[], log: Log): Uint8Array[] {
    const kept = this.#read();
    if (kept === null) return [...configured];
    const unknown = configured.filter((key) => !kept.some((other) => Buffer.compare(key, other) === 0));
    if (unknown.length > 0 || configured.length === 0) {
      log.info('gossip keys of the data directory are used, not those of the configuration', { file: this.path });
    }
    return kept;
  }

  /** Durable when it returns. Throws a DiskError; the old file is then still there. */
  write(keys: readonly Uint8Array[]): void {
    const text = JSON.stringify(keys.map((key) => Buffer.from(key).toString('base64')));
    replaceFile(this.#disk, this.path, Buffer.from(`${text}\n`), 'keyring-file', OWNER_ONLY);
  }

  #read(): Uint8Array[] | null {
    const bytes = readSmallFile(this.#disk, this.path, FILE_BYTES_MAX);
    if (bytes === null) return null;
    const found = FORMAT.safeParse(parse(bytes.toString('utf8')));
    if (found.success && found.data.length > 0) return found.data.map((text) => Buffer.from(text, 'base64'));
    throw new StartError(
      'DATA_DIRECTORY_UNUSABLE',
      `${this.path} is not a list of gossip keys: remove it to start with the keys of the configuration`,
    );
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

import { unreachable } from '../../base/assert.ts';
import type { KeyOperation, SerfKeyring } from '../../gossip/serf/types.ts';
import { type KeyRefusal, Keyring } from '../../net/gossip/wire/keyring.ts';
import { DiskError } from '../../storage/disk.ts';
import type { Log } from '../../telemetry/log.ts';
import type { KeyringFile } from './keyring-file.ts';

const WORDS: Readonly<Record<KeyRefusal, string>> = {
  size: 'a key has 16, 24 or 32 bytes',
  unknown: 'this node does not have that key',
  primary: 'that is the primary key: use another one first',
  full: 'this node has as many keys as it can hold: remove one first',
};

/** The keys of this node as `serf keys` changes them: what holds is in the file before the answer says so. */
export class KeptKeyring implements SerfKeyring {
  readonly #keyring: Keyring;
  /** Null: nothing is kept, a restart begins with the configured keys. */
  readonly #file: KeyringFile | null;
  readonly #log: Log;
  readonly #now: () => number;

  constructor(keyring: Keyring, file: KeyringFile | null, log: Log, now: () => number) {
    this.#keyring = keyring;
    this.#file = file;
    this.#log = log;
    this.#now = now;
  }

  change(operation: KeyOperation, key: Uint8Array, done: (failure: string | null, now: number) => void): void {
    const next = new Keyring();
    for (const one of this.#keyring.keys) next.add(one);
    const refusal = apply(next, operation, key);
    const failure = refusal === null ? this.#write(next) : WORDS[refusal];
    if (failure === null) apply(this.#keyring, operation, key);
    this.#log.info('gossip keys were to be changed', {
      operation,
      failure: failure ?? 'none',
      keys: this.#keyring.keys.length,
    });
    done(failure, this.#now());
  }

  list(): { readonly keys: readonly string[]; readonly primaryKey: string } {
    const keys = this.#keyring.keys.map((key) => Buffer.from(key).toString('base64'));
    return { keys, primaryKey: keys[0] ?? '' };
  }

  #write(next: Keyring): string | null {
    try {
      this.#file?.write(next.keys);
      return null;
    } catch (error) {
      // A failed sync ends the process; a disk that is full does not.
      if (!(error instanceof DiskError) || error.fatal) throw error;
      return error.message;
    }
  }
}

function apply(keyring: Keyring, operation: KeyOperation, key: Uint8Array): KeyRefusal | null {
  switch (operation) {
    case 'install-key':
      return keyring.add(key);
    case 'use-key':
      return keyring.use(key);
    case 'remove-key':
      return keyring.remove(key);
    default:
      return unreachable(operation);
  }
}

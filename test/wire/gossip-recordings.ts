/** What gossip-capture.ts has recorded. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Keyring } from '../../src/net/gossip/wire/keyring.ts';
import { ROOT } from '../support/source-tree.ts';

export interface Recorded {
  /** Name of the sender and its program, if that is known. */
  readonly from: string;
  /** `packet`, `request` or `answer`, and the kinds of its messages. */
  readonly kind: string;
  readonly hex: string;
}

export interface Recording {
  readonly name: string;
  /** Empty for none. */
  readonly key: Buffer;
  readonly label: string;
  readonly keyring: Keyring;
  readonly recorded: readonly Recorded[];
}

export function readRecordings(): readonly Recording[] {
  const folder = join(ROOT, 'test', 'wire', 'golden', 'gossip');
  return readdirSync(folder).map((file) => {
    const { key, label, recorded } = JSON.parse(readFileSync(join(folder, file), 'utf8')) as {
      key: string;
      label: string;
      recorded: Recorded[];
    };
    const bytes = Buffer.from(key, 'hex');
    return { name: file.replace('.json', ''), key: bytes, label, keyring: ringOf(bytes), recorded };
  });
}

export function ringOf(...keys: readonly Uint8Array[]): Keyring {
  const ring = new Keyring();
  for (const key of keys) {
    if (key.length > 0) assert.equal(ring.add(key), null);
  }
  return ring;
}

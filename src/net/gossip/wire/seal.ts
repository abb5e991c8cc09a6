import { createCipheriv, createDecipheriv } from 'node:crypto';
import { assert } from '../../../base/assert.ts';
import type { Keyring } from './keyring.ts';
import type { WireRefusal } from './refusal.ts';

/**
 * Encryption of memberlist (security.go): [version: 1] [nonce: 12] [AES-GCM ciphertext] [tag: 16]. Version 0 pads the plaintext as PKCS7 does and is spoken by
 * protocol 1, version 1 does not. What is bound to it and not in it: the label of a packet; of a stream its header too (stream.ts).
 *
 * It proves that a holder of a key wrote these bytes for this cluster, at any time: there is no protection against replays in this protocol, here or
 * upstream. The incarnations of memberlist's messages and the clocks of Serf's make most of them harmless; an old `ack` or user message is not told apart.
 */
export type EncryptVersion = 0 | 1;

export const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const BLOCK_BYTES = 16;
const HEAD_BYTES = 1 + NONCE_BYTES;

/** Bytes of `length` bytes when they are sealed. */
export function sealedBytes(version: EncryptVersion, length: number): number {
  const padding = version === 0 ? BLOCK_BYTES - (length % BLOCK_BYTES) : 0;
  return HEAD_BYTES + length + padding + TAG_BYTES;
}

export interface Seal {
  /** 16, 24 or 32 bytes. */
  readonly key: Uint8Array;
  readonly version: EncryptVersion;
  /** NONCE_BYTES that no other sealing with this key has had: random ones. */
  readonly nonce: Uint8Array;
}

export function seal(plain: Uint8Array, bound: Uint8Array, { key, version, nonce }: Seal): Uint8Array {
  assert(nonce.length === NONCE_BYTES, () => `a nonce of ${nonce.length} bytes`);
  const cipher = createCipheriv(algorithmOf(key), key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(bound);
  const parts: Uint8Array[] = [Uint8Array.of(version), nonce, cipher.update(plain)];
  if (version === 0) {
    const padding = BLOCK_BYTES - (plain.length % BLOCK_BYTES);
    parts.push(cipher.update(new Uint8Array(padding).fill(padding)));
  }
  parts.push(cipher.final(), cipher.getAuthTag());
  return Buffer.concat(parts);
}

/** The plaintext, or why there is none. Bytes that no version of this starts are called not encrypted. */
export function unseal(sealed: Uint8Array, bound: Uint8Array, keyring: Keyring): Uint8Array | WireRefusal {
  const version = sealed[0];
  if (version === undefined) return 'empty';
  if (version !== 0 && version !== 1) return 'notEncrypted';
  if (sealed.length < sealedBytes(version, 0)) return 'truncated';
  for (const key of keyring.keys) {
    const plain = tryKey(sealed, bound, key);
    if (plain !== null) return version === 0 ? withoutPadding(plain) : plain;
  }
  return 'noKey';
}

function tryKey(sealed: Uint8Array, bound: Uint8Array, key: Uint8Array): Uint8Array | null {
  const decipher = createDecipheriv(algorithmOf(key), key, sealed.subarray(1, HEAD_BYTES), {
    authTagLength: TAG_BYTES,
  });
  decipher.setAAD(bound);
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  const plain = decipher.update(sealed.subarray(HEAD_BYTES, sealed.length - TAG_BYTES));
  try {
    decipher.final();
  } catch {
    // The one thing that can go wrong here: the tag is not that of these bytes.
    return null;
  }
  return plain;
}

function withoutPadding(plain: Uint8Array): Uint8Array | WireRefusal {
  const padding = plain.at(-1) ?? 0;
  if (padding < 1 || padding > BLOCK_BYTES || padding > plain.length) return 'malformed';
  return plain.subarray(0, plain.length - padding);
}

function algorithmOf(key: Uint8Array): 'aes-128-gcm' | 'aes-192-gcm' | 'aes-256-gcm' {
  switch (key.length) {
    case 16:
      return 'aes-128-gcm';
    case 24:
      return 'aes-192-gcm';
    default:
      assert(key.length === 32, () => `a key of ${key.length} bytes`);
      return 'aes-256-gcm';
  }
}

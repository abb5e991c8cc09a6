import { KEYS_MAX } from './limits.ts';

/** `size`: not 16, 24 or 32 bytes. `unknown`: not on the ring. `primary`: the one in use stays. `full`: KEYS_MAX are there. */
export type KeyRefusal = 'size' | 'unknown' | 'primary' | 'full';

/**
 * The keys of a cluster (memberlist keyring.go): the first, the primary one, encrypts; all of them decrypt, tried in their order. A ring without keys means
 * no encryption. Keys are AES-128, -192 or -256 by their length.
 */
export class Keyring {
  #keys: readonly Uint8Array[] = [];

  /** Primary first, then the others in the order in which they were added. */
  get keys(): readonly Uint8Array[] {
    return this.#keys;
  }

  get primary(): Uint8Array | null {
    return this.#keys[0] ?? null;
  }

  /** One that is there already stays where it is. The first is the primary one. */
  add(key: Uint8Array): KeyRefusal | null {
    if (key.length !== 16 && key.length !== 24 && key.length !== 32) return 'size';
    if (this.#indexOf(key) >= 0) return null;
    if (this.#keys.length >= KEYS_MAX) return 'full';
    this.#keys = [...this.#keys, Uint8Array.from(key)];
    return null;
  }

  /** Makes a key of the ring the primary one. Only when all others have it, or they cannot read us. */
  use(key: Uint8Array): KeyRefusal | null {
    const found = this.#keys[this.#indexOf(key)];
    if (found === undefined) return 'unknown';
    this.#keys = [found, ...this.#keys.filter((other) => other !== found)];
    return null;
  }

  /** One that is not there is removed already. */
  remove(key: Uint8Array): KeyRefusal | null {
    const index = this.#indexOf(key);
    if (index === 0) return 'primary';
    if (index > 0) this.#keys = this.#keys.toSpliced(index, 1);
    return null;
  }

  #indexOf(key: Uint8Array): number {
    return this.#keys.findIndex((other) => Buffer.compare(other, key) === 0);
  }
}

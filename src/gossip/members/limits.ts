import type { Address, Versions } from '../types.ts';

export const NAME_BYTES_MAX = 128;

/** Whether a name has 1 to 128 bytes of UTF-8. */
export function isNameAllowed(name: string): boolean {
  return name.length > 0 && isNameShort(name);
}

/** The same for a name that may be missing (who accuses). */
export function isNameShort(name: string): boolean {
  return name.length <= NAME_BYTES_MAX && utf8Length(name) <= NAME_BYTES_MAX;
}

export function isAddressAllowed(address: Address): boolean {
  return address.host.length > 0 && address.host.length <= 64 && address.port >= 1 && address.port <= 0xffff;
}

/** state.go aliveNode: the versions of the protocol have to be known, and in order. */
export function isVersionsAllowed(versions: Versions): boolean {
  return versions[0] > 0 && versions[1] > 0 && versions[0] <= versions[1];
}

export function isSameAddress(a: Address, b: Address): boolean {
  return a.port === b.port && a.host === b.host;
}

export function isSameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

export function isSameVersions(a: Versions, b: Versions): boolean {
  return a.every((version, index) => version === b[index]);
}

/** A surrogate pair is two units of 2 bytes here and 4 in UTF-8, so units can be counted one by one. */
function utf8Length(text: string): number {
  let length = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) length += 1;
    else if (unit < 0x800 || (unit >= 0xd800 && unit < 0xe000)) length += 2;
    else length += 3;
  }
  return length;
}

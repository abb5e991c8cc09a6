import { crc32 as zlibCrc32 } from 'node:zlib';

/**
 * CRC-32 (IEEE 802.3, zlib's), unsigned 32 bits. Native in Node, which is why the formats use it and not CRC-32C:
 * that one would be JavaScript. `seed` continues a checksum: crc32(b, crc32(a)) equals crc32(a + b).
 */
export function crc32(bytes: Uint8Array, seed = 0): number {
  return zlibCrc32(bytes, seed);
}

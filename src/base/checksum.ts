import { crc32 as zlibCrc32 } from 'node:zlib';

/**
 * CRC-32 (IEEE 802.3, zlib's), unsigned 32 bits. Native in Node, which is why the formats use it and not CRC-32C:
 * that one would be JavaScript. `seed` continues a checksum: crc32(b, crc32(a)) equals crc32(a + b).
 */
export function crc32(bytes: Uint8Array, seed = 0): number {
  return zlibCrc32(bytes, seed);
}

/** The polynomial of CRC-32, bits reversed: bit 31 is x^0. */
const POLYNOMIAL = 0xedb88320 | 0;
const ONE = 1 << 31;
/** x^(2^n) for n = 0 to 31, modulo the polynomial. */
const POWERS = powersOfX();

/**
 * The checksum of two pieces one behind the other, from the checksum of each: nothing is read again. `secondLength` in bytes, up to 2^31-1.
 * A CRC is the remainder of a polynomial, so the first is multiplied by x^(8 * secondLength) and the second added (as in crc32_combine of zlib's
 * crc32.c). It takes about as long as the checksum of 1 KiB.
 */
export function joinCrc32(first: number, second: number, secondLength: number): number {
  let shift = ONE;
  // x^8 is the fourth of the powers: a byte is eight bits.
  for (let rest = secondLength, n = 3; rest > 0; rest >>>= 1, n = (n + 1) & 31) {
    if ((rest & 1) === 1) shift = multiply(POWERS[n] as number, shift);
  }
  return (multiply(shift, first | 0) ^ second) >>> 0;
}

/** a * b modulo the polynomial. */
function multiply(a: number, b: number): number {
  let product = 0;
  for (let rest = a, times = b; rest !== 0; rest <<= 1) {
    if (rest < 0) product ^= times;
    times = (times >>> 1) ^ (POLYNOMIAL & -(times & 1));
  }
  return product;
}

function powersOfX(): Int32Array {
  const powers = new Int32Array(32);
  powers[0] = 1 << 30;
  for (let n = 1; n < powers.length; n++) {
    const before = powers[n - 1] as number;
    powers[n] = multiply(before, before);
  }
  return powers;
}

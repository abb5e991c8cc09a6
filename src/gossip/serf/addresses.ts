import type { Address } from '../types.ts';

const MAPPED = '::ffff:';

/** As Go compares and prints them (net.IP Equal, String): an IPv4 address in the clothes of IPv6 is the same address. */
export function plainHost(host: string): string {
  return host.startsWith(MAPPED) && host.includes('.') ? host.slice(MAPPED.length) : host;
}

export function isSameAddress(a: Address, b: Address): boolean {
  return a.port === b.port && plainHost(a.host) === plainHost(b.host);
}

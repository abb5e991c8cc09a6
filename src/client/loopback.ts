import { isIPv4, isIPv6 } from 'node:net';

/** What gRPC reads in front of an address: `dns:` with or without a server to ask, `ipv4:`, `ipv6:`. */
const SCHEME = /^(?:dns:(?:\/\/[^/]*\/)?|ipv[46]:)/;

/**
 * True if an address (HOST:PORT, as gRPC takes it) is of this machine by its name: there a proxy from `http_proxy`, which is for the way out,
 * would look on its own machine.
 */
export function isLoopback(address: string): boolean {
  const plain = address.replace(SCHEME, '');
  const [, bracketed, named] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d+)?$/.exec(plain) ?? [];
  const host = (bracketed ?? named ?? plain).toLowerCase();
  if (isIPv4(host)) return host.startsWith('127.');
  if (isIPv6(host)) return /^(?:0*:)*:?0*1$/.test(host) || host.startsWith('::ffff:127.');
  return host === 'localhost' || host.endsWith('.localhost');
}

import { lookup } from 'node:dns/promises';
import { isIP, SocketAddress } from 'node:net';
import { networkInterfaces } from 'node:os';
import type { Address } from '../../gossip/types.ts';

const MAPPED = '::ffff:';

/**
 * The one way in which an address is written, so that two of them can be compared: an IPv4-mapped IPv6 address as IPv4, IPv6 as RFC 5952 has it.
 * Names, and what is no address, stay as they are.
 */
export function normalHost(host: string): string {
  // Almost every packet of an IPv4 cluster.
  if (!host.includes(':')) return host;
  const [plain, zone] = splitZone(host);
  if (isIP(plain) !== 6) return host;
  const { address } = new SocketAddress({ address: plain, family: 'ipv6' });
  if (address.startsWith(MAPPED) && isIP(address.slice(MAPPED.length)) === 4) return address.slice(MAPPED.length);
  return zone === '' ? address : `${address}%${zone}`;
}

function splitZone(host: string): [string, string] {
  const at = host.indexOf('%');
  return at < 0 ? [host, ''] : [host.slice(0, at), host.slice(at + 1)];
}

/** As the key of a map. */
export function addressKey({ host, port }: Address): string {
  return `${host} ${port}`;
}

export function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || host === '::';
}

/** All addresses of a name, or the address itself. Rejects as DNS does. */
export async function resolveHost(host: string): Promise<string[]> {
  if (isIP(splitZone(host)[0]) !== 0) return [normalHost(host)];
  const found = await lookup(host, { all: true, order: 'verbatim' });
  return [...new Set(found.map(({ address }) => normalHost(address)))];
}

/** What others may reach this machine at when nothing was said: an address of a network interface, IPv4 first; loopback if there is none. */
export function ownAddress(wildcard: string): string {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const outer = all.filter(({ internal, scopeid }) => !internal && (scopeid ?? 0) === 0);
  const v4 = outer.find(({ family }) => family === 'IPv4');
  const v6 = wildcard === '::' ? outer.find(({ family }) => family === 'IPv6') : undefined;
  return (v4 ?? v6)?.address ?? '127.0.0.1';
}

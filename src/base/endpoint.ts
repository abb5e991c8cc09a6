import { isIP } from 'node:net';

/** Where to listen or connect. `host` has no brackets; port 0 lets the system choose (listen only). */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** What Serf and memberlist listen on where nobody says otherwise (serf cmd/serf/command/agent/config.go, DefaultBindPort). */
export const GOSSIP_PORT = 7_946;

const HOST_NAME =
  /^(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$/;

/**
 * Reads `HOST:PORT`, with IPv6 addresses in brackets (`[::1]:8081`). Null if it is not one. An IPv4 address may have them too: who writes
 * `[$(POD_IP)]:8081` does not know which it is.
 */
export function parseEndpoint(text: string): Endpoint | null {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  if (match === null) return null;
  const [, bracketed, plain, digits] = match;
  const port = Number(digits);
  if (port > 65_535) return null;
  if (bracketed !== undefined) return isIP(bracketed) !== 0 ? { host: bracketed, port } : null;
  return plain !== undefined && HOST_NAME.test(plain) ? { host: plain, port } : null;
}

export function formatEndpoint(endpoint: Endpoint): string {
  return endpoint.host.includes(':') ? `[${endpoint.host}]:${endpoint.port}` : `${endpoint.host}:${endpoint.port}`;
}

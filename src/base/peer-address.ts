interface Remote {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
}

/** HOST of the other side of a socket. IPv4 addresses come as those of IPv6 where the port listens on both. */
export function hostOf(socket: Remote | undefined): string {
  const { remoteAddress = '' } = socket ?? {};
  const host = remoteAddress.startsWith('::ffff:') ? remoteAddress.slice(7) : remoteAddress;
  return host.includes(':') ? `[${host}]` : host;
}

/** The same as HOST:PORT. */
export function peerOf(socket: Remote | undefined): string {
  return `${hostOf(socket)}:${socket?.remotePort ?? 0}`;
}

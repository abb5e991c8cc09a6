/** How addresses of brokers may be written. */

/** A scheme in front of HOST:PORT that says whether it is TLS; not those that gRPC resolves names by, such as `dns:`. */
const SCHEME = /^(https?|grpcs?):\/\/([^/]+)\/?$/i;

export interface WrittenAddress {
  /** As gRPC takes it. */
  readonly address: string;
  /** What the scheme says; null: there is none. */
  readonly isTls: boolean | null;
}

export function readAddress(text: string): WrittenAddress {
  const [, scheme, address] = SCHEME.exec(text) ?? [];
  if (scheme === undefined || address === undefined) return { address: text, isTls: null };
  return { address, isTls: scheme.toLowerCase().endsWith('s') };
}

/** Whether they want TLS; null: they leave it open. Throws RangeError if they do not agree: they are nodes of one cluster. */
export function tlsWanted(addresses: readonly WrittenAddress[]): boolean | null {
  const said = new Set(addresses.map(({ isTls }) => isTls).filter((isTls) => isTls !== null));
  if (said.size > 1) throw new RangeError('addresses of one cluster are either all https:// or all http://');
  return [...said][0] ?? null;
}

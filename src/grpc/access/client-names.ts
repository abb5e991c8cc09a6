import { alternativeNames, parseCertificateName } from '../../access/certificate-name.ts';
import { certificateOf, type PeerSocket } from '../../tls/client-certificates.ts';

/** As RFC 3986 has it. A URI without one is no other name for what the access file calls NAME. */
const SCHEME = /^[a-z][a-z0-9+.-]*:/i;

/** What the access file may call somebody, by a certificate: for each URI among its names, what it may be called by that. Or why it is nobody. */
export type ClientNames = { readonly uris: readonly (readonly string[])[] } | { readonly distrust: string };

/**
 * Who the client of a connection is by its certificate: NAME for `broker://CLUSTER/client/NAME` of this cluster, and each URI among its names as it
 * is. No names if it has shown none that is good. Certificates of nodes are nobody's here.
 */
export function clientNamesOf(socket: PeerSocket, cluster: string): ClientNames {
  const uris = alternativeNames(certificateOf(socket)?.subjectAltName ?? '').flatMap(({ type, value }) =>
    type === 'URI' && SCHEME.test(value) ? [value] : [],
  );
  const ours = uris.filter((uri) => uri.toLowerCase().startsWith('broker:'));
  // It would be the choice of the client which one is refused something.
  if (ours.length > 1) return { distrust: 'its certificate has two names of the kind broker://' };
  const [own] = ours;
  if (own === undefined) return { uris: uris.map((uri) => [uri]) };
  const name = parseCertificateName(own);
  if (name === null) return { distrust: 'its certificate has a broker: URI that is not broker://CLUSTER/client/NAME' };
  if (name.kind === 'node') return { uris: [] };
  return { uris: uris.map((uri) => (uri === own && name.cluster === cluster ? [name.name, uri] : [uri])) };
}

import { alternativeNames, parseCertificateName } from '../../access/certificate-name.ts';
import { certificateOf, type PeerSocket } from '../../tls/client-certificates.ts';

/**
 * What the access file may call the client of a connection, by its certificate: NAME for `broker://CLUSTER/client/NAME` of this cluster, and each URI
 * among its names as it is. Empty if it has shown none that is good. Certificates of nodes are nobody's here.
 */
export function clientNamesOf(socket: PeerSocket, cluster: string): string[] {
  const uris = alternativeNames(certificateOf(socket)?.subjectAltName ?? '').flatMap(({ type, value }) =>
    type === 'URI' ? [value] : [],
  );
  const ours = uris.filter((uri) => uri.toLowerCase().startsWith('broker:'));
  // Two identities of ours in one certificate are none: it would be the choice of the client which one is refused something.
  if (ours.length > 1) return [];
  const [own] = ours;
  const name = own === undefined ? null : parseCertificateName(own);
  if (name?.kind === 'node') return [];
  return name !== null && name.cluster === cluster ? [name.name, ...uris] : uris;
}

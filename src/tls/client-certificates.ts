/** What a server makes of the certificate that somebody has shown: that it is good, why it is refused, and whether it still is later on. */
import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { type CertificateName, certificateNameOf } from '../access/certificate-name.ts';
import { isIssuedBy } from './material.ts';

/** What is read of a connection; a session of HTTP/2 gives out no more than this of its socket. */
export type PeerSocket = Pick<TLSSocket, 'authorized' | 'authorizationError' | 'getPeerX509Certificate'>;

/** The certificate of the other side if it has shown a good one, else null. */
export function certificateOf(socket: PeerSocket): X509Certificate | null {
  return socket.authorized ? (socket.getPeerX509Certificate() ?? null) : null;
}

/** Who the other side is by its certificate; null if it has shown none, or one that names nobody. */
export function peerNameOf(socket: PeerSocket): CertificateName | null {
  return certificateNameOf(certificateOf(socket)?.subjectAltName);
}

/** Why a certificate that was shown is not taken, in the words of OpenSSL, such as CERT_HAS_EXPIRED. Null if it is good, or there is none. */
export function refusalOf(socket: PeerSocket): string | null {
  if (socket.authorized || socket.getPeerX509Certificate() === undefined) return null;
  return String(socket.authorizationError);
}

/**
 * Whether one that was good when it was shown certainly is so still: issued by one of these authorities. Of one between it and them nothing is
 * known any more, since Node keeps no chains of clients: its client has to show it again.
 */
export function isStillGood(leaf: X509Certificate, authorities: readonly X509Certificate[]): boolean {
  return authorities.some((authority) => isIssuedBy(leaf, authority));
}

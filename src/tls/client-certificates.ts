/** What a server makes of the certificate that somebody has shown: that it is good, why it is refused, and whether it still is later on. */
import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { certificateNameOf, formatCertificateName } from '../access/certificate-name.ts';
import { isIssuedBy, type TlsMaterial } from './material.ts';
import { certificatesIn, subjectOf } from './pem.ts';

/** What is read of a connection; a session of HTTP/2 gives out no more than this of its socket. */
export type PeerSocket = Pick<TLSSocket, 'authorized' | 'authorizationError' | 'getPeerX509Certificate'>;

/** The certificate of the other side if it has shown a good one, else null. */
export function certificateOf(socket: PeerSocket): X509Certificate | null {
  return socket.authorized ? (socket.getPeerX509Certificate() ?? null) : null;
}

/** Longest name of a certificate that is shown, in characters: whoever issues it may have put anything there. */
const NAME_MAX = 200;

/** What a certificate is called in logs and metrics: the URI that says who it is for, else its subject. */
export function certificateLabel(certificate: X509Certificate): string {
  const name = certificateNameOf(certificate.subjectAltName);
  return (name === null ? subjectOf(certificate) : formatCertificateName(name)).slice(0, NAME_MAX);
}

/** Why a certificate that was shown is not taken, in the words of OpenSSL, such as CERT_HAS_EXPIRED. Null if it is good, or there is none. */
export function refusalOf(socket: PeerSocket): string | null {
  if (socket.authorized || socket.getPeerX509Certificate() === undefined) return null;
  return String(socket.authorizationError);
}

/** Those of `tls.ca`. */
export function authoritiesOf({ ca }: Pick<TlsMaterial, 'ca'>): readonly X509Certificate[] {
  return ca === null ? [] : certificatesIn(ca, 'tls.ca');
}

/** Whether one of them was taken away: another one more ends nobody. */
export function isAnyGone(before: readonly X509Certificate[], now: readonly X509Certificate[]): boolean {
  return before.some((one) => !now.some((other) => other.raw.equals(one.raw)));
}

/**
 * Whether one that was good when it was shown certainly is so still: issued by one of these authorities. Of one between it and them nothing is
 * known any more, since Node keeps no chains of clients: its client has to show it again.
 */
export function isStillGood(leaf: X509Certificate, authorities: readonly X509Certificate[]): boolean {
  return authorities.some((authority) => isIssuedBy(leaf, authority));
}

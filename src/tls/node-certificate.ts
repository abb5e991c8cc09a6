import type { X509Certificate } from 'node:crypto';
import { certificateNameOf, formatCertificateName } from '../access/certificate-name.ts';

/** A certificate of a node of this cluster. */
export interface NodeCertificate {
  readonly node: string;
  readonly certificate: X509Certificate;
  /** In ms since 1970. */
  readonly expiresAtMs: number;
}

/** What is wrong with the other side of a connection between nodes: a few constants, so that the log can be limited by them. */
export type DistrustKind =
  | 'clear-text'
  | 'handshake'
  | 'no-certificate'
  | 'untrusted-certificate'
  | 'not-a-node'
  | 'wrong-cluster'
  | 'expired';

export interface Distrust {
  readonly distrust: DistrustKind;
  /** For people. */
  readonly words: string;
}

/** The node that a certificate is for, whose chain was found to be good; or why it is none of `cluster`, the name of this cluster. */
export function nodeOf(certificate: X509Certificate | undefined, cluster: string): NodeCertificate | Distrust {
  if (certificate === undefined) return distrust('no-certificate', 'it shows no certificate');
  const expiresAtMs = certificate.validToDate.getTime();
  if (Date.now() > expiresAtMs) return expired(certificate);
  const name = certificateNameOf(certificate.subjectAltName);
  if (name === null || name.kind !== 'node') {
    const wanted = formatCertificateName({ cluster, kind: 'node', name: 'NODE' });
    const found = certificate.subjectAltName ?? 'none';
    return distrust(
      'not-a-node',
      `its certificate is not for a node, which needs URI:${wanted} among the names: ${found}`,
    );
  }
  if (name.cluster !== cluster) {
    return distrust('wrong-cluster', `its certificate is for cluster ${name.cluster}, this is ${cluster}`);
  }
  return { node: name.name, certificate, expiresAtMs };
}

export function expired(certificate: X509Certificate): Distrust {
  return distrust('expired', `its certificate has expired: ${certificate.validTo}`);
}

export function distrust(kind: DistrustKind, words: string): Distrust {
  return { distrust: kind, words };
}

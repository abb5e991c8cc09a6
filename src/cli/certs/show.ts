/** What is in a certificate, for people. */
import type { X509Certificate } from 'node:crypto';
import { alternativeNames, certificateNameOf, formatCertificateName } from '../../access/certificate-name.ts';
import { subjectOf } from '../../tls/pem.ts';
import type { Row } from '../output.ts';

const DAY_MS = 86_400_000;
/** Extended key usages by their numbers (RFC 5280, 4.2.1.12). */
const USAGES: Readonly<Record<string, string>> = {
  '1.3.6.1.5.5.7.3.1': 'server',
  '1.3.6.1.5.5.7.3.2': 'client',
};

/** `nowMs`: ms since 1970. */
export function certificateRow(certificate: X509Certificate, nowMs: number): Row {
  const { subjectAltName, validFromDate, validToDate, serialNumber, fingerprint256 } = certificate;
  const name = certificateNameOf(subjectAltName);
  const hosts = alternativeNames(subjectAltName ?? '').filter(({ type }) => type !== 'URI');
  const key = certificate.publicKey;
  return {
    subject: subjectOf(certificate),
    issuer: certificate.issuer.split('\n').join(', '),
    identity: name === null ? null : formatCertificateName(name),
    hosts: hosts.map(({ value }) => value).join(', '),
    usage: certificate.ca ? 'authority' : usageOf(certificate.keyUsage),
    not_before: validFromDate.toISOString(),
    not_after: validToDate.toISOString(),
    days_left: Math.floor((validToDate.getTime() - nowMs) / DAY_MS),
    key: `${key.asymmetricKeyType} ${key.asymmetricKeyDetails?.namedCurve ?? key.asymmetricKeyDetails?.modulusLength ?? ''}`.trim(),
    serial: serialNumber.toLowerCase(),
    sha256: fingerprint256.replaceAll(':', '').toLowerCase(),
  };
}

function usageOf(usages: readonly string[] | undefined): string {
  return usages === undefined ? 'any' : usages.map((usage) => USAGES[usage] ?? usage).join(', ');
}

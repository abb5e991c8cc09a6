import { X509Certificate } from 'node:crypto';
import { TlsError } from './tls-error.ts';

const BLOCK = /-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[^-]*-----END (?:X509 |TRUSTED )?CERTIFICATE-----/g;

/** The certificates of a PEM text in their order. TlsError if there are none, or one cannot be read. `what`: the file, for the message. */
export function certificatesIn(pem: string, what: string): X509Certificate[] {
  const blocks = pem.match(BLOCK) ?? [];
  if (blocks.length === 0)
    throw new TlsError(`${what}: there is no certificate in it (PEM: -----BEGIN CERTIFICATE-----)`);
  return blocks.map((block, index) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw new TlsError(`${what}: certificate ${index + 1} of ${blocks.length} cannot be read`, { cause });
    }
  });
}

/** A certificate in the words of people: what its subject is called, on one line. */
export function subjectOf({ subject, subjectAltName }: X509Certificate): string {
  const text = (subject ?? '').split('\n').join(', ');
  return text === '' ? (subjectAltName ?? 'without a name') : text;
}

import { NAME_PATTERN } from '../base/node-name.ts';

/**
 * Who a certificate says it is: a URI among its alternative names, `broker://CLUSTER/node/NAME` of a node and `broker://CLUSTER/client/NAME` of a
 * client. That it is true is what the chain of the certificate says; this only reads.
 */
export interface CertificateName {
  readonly cluster: string;
  readonly kind: 'node' | 'client';
  readonly name: string;
}

const IDENTITY = new RegExp(`^broker://(${NAME_PATTERN})/(node|client)/(${NAME_PATTERN})$`);

export function formatCertificateName({ cluster, kind, name }: CertificateName): string {
  return `broker://${cluster}/${kind}/${name}`;
}

/** Null for a URI that is none of the two. Upper and lower case differ. */
export function parseCertificateName(uri: string): CertificateName | null {
  const [, cluster, kind, name] = IDENTITY.exec(uri) ?? [];
  if (cluster === undefined || kind === undefined || name === undefined) return null;
  return { cluster, kind: kind as CertificateName['kind'], name };
}

/**
 * The identity among the alternative names as Node writes them (`subjectAltName`: `DNS:a, URI:b`). Null if there is none, and also if there
 * are two: whoever reads the first one and whoever reads the last one would take it for two different callers.
 */
export function certificateNameOf(subjectAltName: string | undefined): CertificateName | null {
  const uris = alternativeNames(subjectAltName ?? '').filter(({ type }) => type === 'URI');
  const found = uris.filter(({ value }) => value.toLowerCase().startsWith('broker:'));
  const [first] = found;
  return first === undefined || found.length > 1 ? null : parseCertificateName(first.value);
}

export interface AlternativeName {
  /** DNS, URI, IP Address, … */
  readonly type: string;
  readonly value: string;
}

/**
 * Node puts values with commas, quotes and the like into quotes, as JSON: a name that is made to look like the end of one name and the begin of
 * another stays one name. Empty for what is not written so.
 */
export function alternativeNames(text: string): AlternativeName[] {
  const names: AlternativeName[] = [];
  const one = /([^:",]+):("(?:[^"\\]|\\.)*"|[^",]*)(?:, |$)/y;
  while (one.lastIndex < text.length) {
    const [, type, written] = one.exec(text) ?? [];
    if (type === undefined || written === undefined) return [];
    const value = unquoted(written);
    if (value === null) return [];
    names.push({ type, value });
  }
  return names;
}

function unquoted(written: string): string | null {
  if (!written.startsWith('"')) return written;
  try {
    return String(JSON.parse(written));
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

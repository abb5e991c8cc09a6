/** What a node needs to speak TLS: read from files, and checked before anything of it is used. */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { createSecureContext, rootCertificates } from 'node:tls';
import { type CertificateName, certificateNameOf } from '../access/certificate-name.ts';
import { readSmallFile, UnfitFile } from '../base/small-file.ts';
import { certificatesIn, subjectOf } from './pem.ts';
import { TlsError } from './tls-error.ts';

/** Paths of PEM files. */
export interface TlsFiles {
  /** The chain of the node: its own certificate first, then those between it and the authority. */
  readonly cert: string;
  readonly key: string;
  /** Whose certificates of clients and of other nodes are taken; null: nobody's. */
  readonly ca: string | null;
}

/** Plain data, so that it can be posted to another thread. All of it fits together. */
export interface TlsMaterial {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
  readonly ca: string | null;
  /** When the first certificate of the chain, or of the authorities, expires. In ms since 1970. */
  readonly expiresAtMs: number;
  /** Who the node's own certificate says it is; null if it names nobody. */
  readonly name: CertificateName | null;
  /** What is allowed and yet hardly meant, one line each. */
  readonly warnings: readonly string[];
}

/** Largest file that is read. */
const FILE_BYTES_MAX = 1 << 20;
const OTHERS_MAY_READ = 0o004;
/** Extended key usages (RFC 5280, 4.2.1.12). */
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

/** Throws TlsError, which says of all files what is wrong with the first one that is. `nowMs`: ms since 1970. */
export function readMaterial(files: TlsFiles, nowMs: number): TlsMaterial {
  const { text: cert } = read('tls.cert', files.cert);
  const { text: key, mode: modeOfKey } = read('tls.key', files.key);
  const ca = files.ca === null ? null : read('tls.ca', files.ca).text;
  const chain = certificatesIn(cert, `tls.cert ${files.cert}`);
  const authorities = ca === null ? [] : certificatesIn(ca, `tls.ca ${files.ca}`);
  const leaf = chain[0] as X509Certificate;
  checkKey(leaf, privateKey(key, files.key), files);
  checkChain(chain, files.cert);
  for (const one of chain) checkTime(one, `tls.cert ${files.cert}`, nowMs);
  // One that has expired among others is left over from a change of the authority, and takes nobody in.
  if (ca !== null && authorities.every((one) => one.validToDate.getTime() <= nowMs)) {
    throw new TlsError(`tls.ca ${files.ca}: every certificate in it has expired`);
  }
  if ((leaf.subjectAltName ?? '') === '') {
    throw new TlsError(
      `tls.cert ${files.cert}: the certificate has no alternative names (SAN), and clients look at nothing else; make one with the host names or addresses that clients use`,
    );
  }
  if (leaf.keyUsage !== undefined && !leaf.keyUsage.includes(SERVER_AUTH)) {
    throw new TlsError(
      `tls.cert ${files.cert}: ${subjectOf(leaf)} is not for servers (extended key usage serverAuth): is it that of a client?`,
    );
  }
  checkUsable({ cert, key, ca });
  const valid = [...chain, ...authorities].map((one) => one.validToDate.getTime()).filter((ms) => ms > nowMs);
  return {
    ...{ cert, key, ca },
    expiresAtMs: Math.min(...valid),
    name: certificateNameOf(leaf.subjectAltName),
    warnings: [...looseKey(files.key, modeOfKey), ...cutChain(chain, authorities, files), ...noClient(leaf, files)],
  };
}

/** `mode`: who may read it. */
function read(setting: string, path: string): { readonly text: string; readonly mode: number } {
  try {
    return readSmallFile(path, FILE_BYTES_MAX);
  } catch (cause) {
    if (cause instanceof UnfitFile) throw new TlsError(`${setting} ${path}: ${cause.message}`, { cause });
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new TlsError(
      `${setting} ${path}: cannot be read (${code}); put the file there, and let the user of the broker read it and pass the folders above it`,
      { cause },
    );
  }
}

/** The error of OpenSSL is not passed on: it may show a part of what it could not read. */
function privateKey(pem: string, path: string): KeyObject {
  if (pem.includes('ENCRYPTED')) {
    throw new TlsError(`tls.key ${path}: is encrypted; write it without a passphrase, readable by the broker alone`);
  }
  try {
    return createPrivateKey(pem);
  } catch {
    throw new TlsError(`tls.key ${path}: there is no private key in it (PEM: -----BEGIN PRIVATE KEY-----)`);
  }
}

function checkKey(leaf: X509Certificate, key: KeyObject, { cert, key: path }: TlsFiles): void {
  if (leaf.checkPrivateKey(key)) return;
  throw new TlsError(
    `tls.key ${path}: is not the key of the first certificate of tls.cert ${cert} (${subjectOf(leaf)})`,
  );
}

/** Each certificate of the file must have been issued by the next one. */
function checkChain(chain: readonly X509Certificate[], path: string): void {
  for (let index = 0; index + 1 < chain.length; index += 1) {
    const [one, next] = [chain[index] as X509Certificate, chain[index + 1] as X509Certificate];
    if (isIssuedBy(one, next)) continue;
    throw new TlsError(
      `tls.cert ${path}: certificate ${index + 1} (${subjectOf(one)}) was not issued by the next one (${subjectOf(next)}): the chain is cut or out of order`,
    );
  }
}

export function isIssuedBy(one: X509Certificate, issuer: X509Certificate): boolean {
  return one.checkIssued(issuer) && one.verify(issuer.publicKey);
}

function checkTime(one: X509Certificate, what: string, nowMs: number): void {
  if (one.validToDate.getTime() <= nowMs) {
    throw new TlsError(`${what}: ${subjectOf(one)} has expired on ${one.validToDate.toISOString()}`);
  }
  if (one.validFromDate.getTime() > nowMs) {
    throw new TlsError(`${what}: ${subjectOf(one)} is not valid before ${one.validFromDate.toISOString()}`);
  }
}

/** What OpenSSL does not take, such as an RSA key that is too short, would otherwise come up with the first connection. */
function checkUsable(material: Pick<TlsMaterial, 'cert' | 'key' | 'ca'>): void {
  try {
    createSecureContext({ ...material, ca: material.ca ?? undefined });
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'unknown';
    throw new TlsError(`tls.cert, tls.key and tls.ca cannot be used together (${code})`, { cause });
  }
}

function looseKey(path: string, mode: number): string[] {
  if ((mode & OTHERS_MAY_READ) === 0) return [];
  return [`tls.key ${path}: every user of the machine can read it; chmod 600 it`];
}

/** Nodes show the same certificate when they connect to each other. */
function noClient({ keyUsage }: X509Certificate, { cert, ca }: TlsFiles): string[] {
  if (ca === null || keyUsage === undefined || keyUsage.includes(CLIENT_AUTH)) return [];
  return [`tls.cert ${cert}: is not for clients (extended key usage clientAuth), so other nodes will not take it`];
}

/** Whether a client can follow the chain to its end cannot be known here: only that nobody whom this node knows stands there. */
function cutChain(
  chain: readonly X509Certificate[],
  authorities: readonly X509Certificate[],
  files: TlsFiles,
): string[] {
  const last = chain.at(-1) as X509Certificate;
  if (isIssuedBy(last, last) || authorities.some((one) => isIssuedBy(last, one))) return [];
  const isPublic = rootCertificates.some((pem) => isIssuedBy(last, new X509Certificate(pem)));
  if (isPublic) return [];
  const where = files.ca === null ? '' : 'tls.ca, nor in ';
  return [
    `tls.cert ${files.cert}: who issued the last certificate of it (${subjectOf(last)}) is not in ${where}the authorities that Node knows: if that is not the root that clients trust, the chain is cut`,
  ];
}

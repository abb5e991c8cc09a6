/** Certificates of a development authority: ECDSA with P-256, each with a random serial number. What is made here is PEM. */
import 'reflect-metadata';
import { randomBytes, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { type CertificateName, formatCertificateName } from '../../access/certificate-name.ts';

/** A certificate and its private key. */
export interface Issued {
  readonly cert: string;
  readonly key: string;
}

export interface Authority {
  readonly certificate: X509Certificate;
  readonly key: webcrypto.CryptoKey;
  /** Which its certificates are for. */
  readonly cluster: string;
}

/** From when until when, in ms since 1970. */
export interface Validity {
  readonly nowMs: number;
  readonly days: number;
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const DAY_MS = 86_400_000;
/** Clocks of other machines may be behind by this. */
const SKEW_MS = 5 * 60_000;
const SERIAL_BYTES = 16;

/** It signs nodes and clients of one cluster, and no further authorities. */
export async function issueAuthority(cluster: string, validity: Validity): Promise<Issued> {
  const keys = await newKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    ...dates(validity),
    name: `CN=${cluster} development authority,O=${cluster}`,
    serialNumber: serialNumber(),
    keys,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { cert: pem(certificate), key: await keyPem(keys.privateKey) };
}

/** Throws an Error with what is wrong if the texts are no authority that was made here. */
export async function readAuthority(cert: string, key: string): Promise<Authority> {
  const certificate = new X509Certificate(cert);
  const cluster = certificate.subjectName.getField('O')[0];
  if (cluster === undefined) throw new Error('its subject names no cluster (O)');
  const der = Buffer.from(key.replace(/-----[^-]+-----/g, ''), 'base64');
  const privateKey = await webcrypto.subtle.importKey('pkcs8', der, ALGORITHM, false, ['sign']);
  return { certificate, key: privateKey, cluster };
}

/** `hosts`: names and addresses under which a node is reached; clients have none. */
export async function issueCertificate(
  authority: Authority,
  who: Pick<CertificateName, 'kind' | 'name'>,
  hosts: readonly string[],
  validity: Validity,
): Promise<Issued> {
  const keys = await newKeys();
  const { certificate: issuer, key: signingKey, cluster } = authority;
  const certificate = await X509CertificateGenerator.create({
    ...dates(validity, issuer.notAfter),
    subject: `CN=${who.name},O=${cluster}`,
    issuer: issuer.subject,
    serialNumber: serialNumber(),
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: ALGORITHM,
    extensions: await leafExtensions(issuer, keys.publicKey, { ...who, cluster }, hosts),
  });
  return { cert: pem(certificate), key: await keyPem(keys.privateKey) };
}

async function leafExtensions(
  issuer: X509Certificate,
  publicKey: webcrypto.CryptoKey,
  who: CertificateName,
  hosts: readonly string[],
): Promise<Extension[]> {
  const { clientAuth, serverAuth } = ExtendedKeyUsage;
  const names = hosts.map((host) => ({ type: isIP(host) === 0 ? ('dns' as const) : ('ip' as const), value: host }));
  return [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    // Nodes are clients of each other.
    new ExtendedKeyUsageExtension(who.kind === 'node' ? [serverAuth, clientAuth] : [clientAuth]),
    new SubjectAlternativeNameExtension([...names, { type: 'url', value: formatCertificateName(who) }]),
    await SubjectKeyIdentifierExtension.create(publicKey),
    await AuthorityKeyIdentifierExtension.create(issuer),
  ];
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

/** `end`: of the authority, after which nothing of it counts any more. */
function dates({ nowMs, days }: Validity, end?: Date): { readonly notBefore: Date; readonly notAfter: Date } {
  const last = Math.min(nowMs + days * DAY_MS, end?.getTime() ?? Number.POSITIVE_INFINITY);
  return { notBefore: new Date(nowMs - SKEW_MS), notAfter: new Date(last) };
}

/** Positive, and of the same length each time: the first bit is 0 and the second 1. */
function serialNumber(): string {
  const bytes = randomBytes(SERIAL_BYTES);
  bytes[0] = ((bytes[0] as number) & 0x3f) | 0x40;
  return bytes.toString('hex');
}

function pem(certificate: X509Certificate): string {
  return `${certificate.toString('pem')}\n`;
}

async function keyPem(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)).toString('base64');
  return `-----BEGIN PRIVATE KEY-----\n${der.replace(/.{64}(?=.)/g, '$&\n')}\n-----END PRIVATE KEY-----\n`;
}

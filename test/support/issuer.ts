/** Certificates with anything in them that a test wants, made in memory: wrong ones too, which `broker certs` does not make. */
import 'reflect-metadata';
import { randomBytes, webcrypto } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  SubjectAlternativeNameExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

/** PEM. */
export interface Pair {
  readonly cert: string;
  readonly key: string;
}

export interface Wanted {
  /** Names, addresses and URIs. Default: localhost and 127.0.0.1. */
  readonly names?: readonly string[];
  /** Numbers of extended key usages. Default: of servers and clients. */
  readonly usages?: readonly string[];
  /** Days from now. Default: from yesterday to a month from now. */
  readonly from?: number;
  readonly to?: number;
}

export const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
export const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const DAY_MS = 86_400_000;

export class Issuer {
  readonly #certificate: X509Certificate;
  readonly #keys: webcrypto.CryptoKeyPair;
  /** PEM of itself. */
  readonly cert: string;

  private constructor(certificate: X509Certificate, keys: webcrypto.CryptoKeyPair) {
    this.#certificate = certificate;
    this.#keys = keys;
    this.cert = `${certificate.toString('pem')}\n`;
  }

  static async root(name: string): Promise<Issuer> {
    const keys = await newKeys();
    const extensions = [new BasicConstraintsExtension(true, undefined, true)];
    const made = {
      ...dates({}),
      serialNumber: serial(),
      name: `CN=${name}`,
      keys,
      signingAlgorithm: ALGORITHM,
      extensions,
    };
    return new Issuer(await X509CertificateGenerator.createSelfSigned(made), keys);
  }

  /** Somebody who signs himself. */
  static async selfSigned(name: string): Promise<Pair> {
    const { cert, keys } = await Issuer.root(name).then((root) => ({ cert: root.cert, keys: root.#keys }));
    return { cert, key: await keyPem(keys.privateKey) };
  }

  /** An authority below this one. */
  async intermediate(name: string): Promise<Issuer> {
    const keys = await newKeys();
    const certificate = await this.#sign(name, keys.publicKey, {}, [new BasicConstraintsExtension(true, 0, true)]);
    return new Issuer(certificate, keys);
  }

  async issue(name: string, wanted: Wanted = {}): Promise<Pair> {
    const keys = await newKeys();
    const names = (wanted.names ?? ['localhost', '127.0.0.1']).map((value) => ({ type: typeOf(value), value }));
    const certificate = await this.#sign(name, keys.publicKey, wanted, [
      ...(names.length === 0 ? [] : [new SubjectAlternativeNameExtension(names)]),
      new ExtendedKeyUsageExtension([...(wanted.usages ?? [SERVER_AUTH, CLIENT_AUTH])]),
    ]);
    return { cert: `${certificate.toString('pem')}\n`, key: await keyPem(keys.privateKey) };
  }

  #sign(
    name: string,
    publicKey: webcrypto.CryptoKey,
    wanted: Wanted,
    extensions: NonNullable<Parameters<typeof X509CertificateGenerator.create>[0]['extensions']>,
  ): Promise<X509Certificate> {
    return X509CertificateGenerator.create({
      ...dates(wanted),
      serialNumber: serial(),
      subject: `CN=${name}`,
      issuer: this.#certificate.subject,
      publicKey,
      signingKey: this.#keys.privateKey,
      signingAlgorithm: ALGORITHM,
      extensions,
    });
  }
}

/** Writes NAME.pem and NAME.key; their paths. */
export function writePair(
  folder: string,
  name: string,
  { cert, key }: Pair,
): { readonly cert: string; readonly key: string } {
  const paths = { cert: join(folder, `${name}.pem`), key: join(folder, `${name}.key`) };
  writeFileSync(paths.cert, cert);
  writeFileSync(paths.key, key, { mode: 0o600 });
  return paths;
}

function typeOf(value: string): 'url' | 'ip' | 'dns' {
  if (value.includes(':') && isIP(value) === 0) return 'url';
  return isIP(value) === 0 ? 'dns' : 'ip';
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

function dates({ from = -1, to = 30 }: Wanted): { readonly notBefore: Date; readonly notAfter: Date } {
  const now = Date.now();
  return { notBefore: new Date(now + from * DAY_MS), notAfter: new Date(now + to * DAY_MS) };
}

function serial(): string {
  return `40${randomBytes(8).toString('hex')}`;
}

async function keyPem(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)).toString('base64');
  return `-----BEGIN PRIVATE KEY-----\n${der}\n-----END PRIVATE KEY-----\n`;
}

/** What every port of the broker that speaks TLS agrees on, and what is done with certificates of clients. */
import { constants } from 'node:crypto';
import type { SecureContextOptions } from 'node:tls';
import type { TlsMaterial } from './material.ts';

export const TLS_VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const;
export type TlsVersion = (typeof TLS_VERSIONS)[number];

export const CLIENT_CERTIFICATES = ['off', 'optional', 'required'] as const;
export type ClientCertificates = (typeof CLIENT_CERTIFICATES)[number];

/** Of TLS 1.3 all that Node has; of TLS 1.2 those with a key of their own for each connection and with authenticated encryption. */
const CIPHERS = [
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'TLS_AES_128_GCM_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');

/** How long somebody may take from the connection to the end of the handshake. Node's own two minutes are for the slowest of browsers. */
export const HANDSHAKE_TIMEOUT_MS = 5_000;

/**
 * For `createSecureContext`, `setSecureContext`, and the server or client that begins with it. `ca`: whose certificates are taken; without one
 * nobody's, instead of those of the authorities that Node knows. No session is resumed: it would take a client in again whose certificate is not
 * looked at, after it has expired or its authority has been taken away. Connections of gRPC are long, so few handshakes are saved by it.
 */
export function contextOptions(
  { cert, key, ca }: Pick<TlsMaterial, 'cert' | 'key' | 'ca'>,
  minVersion: TlsVersion,
): SecureContextOptions {
  const secureOptions = constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION;
  return { cert, key, ca: ca ?? [], minVersion, ciphers: CIPHERS, secureOptions };
}

/** How a server asks for certificates. What is wrong with one that nobody had to show is for whoever takes the connection to refuse (`refusalOf`). */
export function askingFor(certificates: ClientCertificates): {
  readonly requestCert: boolean;
  readonly rejectUnauthorized: boolean;
} {
  return { requestCert: certificates !== 'off', rejectUnauthorized: certificates === 'required' };
}

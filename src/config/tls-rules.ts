/** Rules between the keys of TLS, and what they come to. A part of `RULES`. */
import type { ClientCertificates, TlsVersion } from '../tls/contexts.ts';
import type { TlsFiles } from '../tls/material.ts';
import { hasPeers, PEERS } from './membership-rules.ts';
import type { Rule } from './rules.ts';
import type { Config } from './schema.ts';

/** Null: no port of this node speaks TLS. */
export function tlsFiles({ tls: { cert, key, ca } }: Pick<Config, 'tls'>): TlsFiles | null {
  return cert === null || key === null ? null : { cert, key, ca };
}

/** What the gRPC port begins with. */
export function portTls({ tls }: Pick<Config, 'tls'>): {
  readonly minVersion: TlsVersion;
  readonly clientCertificates: ClientCertificates;
  readonly takesClearText: boolean;
} {
  const clientCertificates = tls.clientCerts ?? (tls.ca === null ? 'off' : 'optional');
  return { minVersion: tls.minVersion, clientCertificates, takesClearText: peersTls({ tls }) === 'optional' };
}

/** How nodes speak with each other, where nothing was said of it: by TLS if they can. */
export function peersTls({ tls }: Pick<Config, 'tls'>): NonNullable<Config['tls']['peers']> {
  return tls.peers ?? (tls.cert !== null && tls.ca !== null ? 'required' : 'off');
}

export function hasAdminTls({ tls, admin }: Pick<Config, 'tls' | 'admin'>): boolean {
  return admin.tls ?? tls.cert !== null;
}

/**
 * Whether nodes could not call this one, nor it them: the gRPC port takes TLS alone then, and the node has nobody's certificate to trust. They would only
 * wait for each other.
 */
export function lacksAuthorities({ tls }: Pick<Config, 'tls'>): boolean {
  return tls.cert !== null && tls.ca === null && tls.peers === null;
}

export const TLS_RULES: readonly Rule[] = [
  {
    key: 'tls.cert',
    text: 'tls.cert and tls.key must be given both or neither',
    holds: ({ tls }) => (tls.cert === null) === (tls.key === null),
    against: ({ tls }) => `tls.key is ${tls.key === null ? 'not set' : 'set'}`,
  },
  {
    key: 'tls.ca',
    text: 'tls.ca needs tls.cert and tls.key',
    holds: ({ tls }) => tls.ca === null || tls.cert !== null,
    against: () => 'they are not set',
  },
  {
    key: 'tls.ca',
    text: `tls.ca is needed with tls.cert and ${PEERS}, unless tls.peers is off`,
    holds: (config) => !lacksAuthorities(config) || !hasPeers(config),
    against: () =>
      'it is not set: calls between nodes would time out at gRPC ports that take TLS alone; set it on all nodes, to the authority of their certificates',
  },
  {
    key: 'tls.client_certs',
    text: 'tls.client_certs other than off needs tls.ca',
    holds: ({ tls }) => tls.clientCerts === null || tls.clientCerts === 'off' || tls.ca !== null,
    against: () => 'it is not set',
  },
  {
    key: 'tls.peers',
    text: 'tls.peers other than off needs tls.cert, tls.key and tls.ca',
    holds: ({ tls }) => tls.peers === null || tls.peers === 'off' || (tls.cert !== null && tls.ca !== null),
    against: ({ tls }) => `${tls.cert === null ? 'tls.cert' : 'tls.ca'} is not set`,
  },
  {
    key: 'tls.client_certs',
    text: 'tls.client_certs must not be off where nodes speak TLS: their calls come to the gRPC port with certificates',
    holds: (config) => config.tls.clientCerts !== 'off' || peersTls(config) === 'off' || !hasPeers(config),
    against: (config) => `tls.peers is ${peersTls(config)}`,
  },
  {
    key: 'admin.tls',
    text: 'admin.tls needs tls.cert and tls.key',
    holds: ({ tls, admin }) => admin.tls !== true || tls.cert !== null,
    against: () => 'they are not set',
  },
];

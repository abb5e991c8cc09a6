import type { X509Certificate } from 'node:crypto';
import { createSecureContext, createServer, type SecureContext, type Server } from 'node:tls';
import { contextOptions } from '../tls/contexts.ts';
import type { TlsMaterial } from '../tls/material.ts';
import { type Distrust, type NodeCertificate, nodeOf } from '../tls/node-certificate.ts';

export type PeerMaterial = Pick<TlsMaterial, 'cert' | 'key' | 'ca'>;

export interface PeerTlsSettings {
  /** Name of the cluster, as certificates have it. */
  readonly cluster: string;
  /** While a cluster is on its way to TLS: clear text is taken too, and spoken with peers that know nothing else. */
  readonly isOptional: boolean;
  readonly material: PeerMaterial;
}

/** TLS between nodes: 1.3 alone, both sides show a certificate, and what it says of cluster and node counts, not its chain alone. */
export class PeerTls {
  readonly cluster: string;
  readonly isOptional: boolean;
  /** Makes the handshakes of connections that another server has accepted; it never listens. */
  readonly server: Server;
  #context: SecureContext;

  constructor({ cluster, isOptional, material }: PeerTlsSettings) {
    this.cluster = cluster;
    this.isOptional = isOptional;
    this.#context = createSecureContext(optionsOf(material));
    // What is wrong with a certificate is looked at afterwards, and told: OpenSSL would only say that the handshake failed.
    this.server = createServer({ ...optionsOf(material), requestCert: true, rejectUnauthorized: false });
  }

  /** For the next connection that is dialed. */
  get context(): SecureContext {
    return this.#context;
  }

  /** For connections from now on; those that are open go on. */
  set(material: PeerMaterial): void {
    this.#context = createSecureContext(optionsOf(material));
    this.server.setSecureContext(optionsOf(material));
  }

  /** The node that a certificate is for, once its chain is known to be good. */
  judge(certificate: X509Certificate | undefined): NodeCertificate | Distrust {
    return nodeOf(certificate, this.cluster);
  }
}

function optionsOf(material: PeerMaterial) {
  return contextOptions(material, 'TLSv1.3');
}

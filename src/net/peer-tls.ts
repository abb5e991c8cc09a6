import type { X509Certificate } from 'node:crypto';
import { createSecureContext, createServer, type SecureContext, type Server } from 'node:tls';
import { authoritiesOf, isAnyGone, isStillGood } from '../tls/client-certificates.ts';
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

/** What is open because of a certificate. */
interface Standing {
  readonly certificate: X509Certificate | null;
  readonly onGone: () => void;
}

/** In words, of a connection that is cut for it. */
export const AUTHORITY_GONE = 'its authority is not in tls.ca any more';

/** TLS between nodes: 1.3 alone, both sides show a certificate, and what it says of cluster and node counts, not its chain alone. */
export class PeerTls {
  readonly cluster: string;
  readonly isOptional: boolean;
  /** Makes the handshakes of connections that another server has accepted; it never listens. */
  readonly server: Server;
  #context: SecureContext;
  #authorities: readonly X509Certificate[];
  readonly #standing = new Set<Standing>();

  constructor({ cluster, isOptional, material }: PeerTlsSettings) {
    this.cluster = cluster;
    this.isOptional = isOptional;
    this.#context = createSecureContext(optionsOf(material));
    this.#authorities = authoritiesOf(material);
    // What is wrong with a certificate is looked at afterwards, and told: OpenSSL would only say that the handshake failed.
    this.server = createServer({ ...optionsOf(material), requestCert: true, rejectUnauthorized: false });
  }

  /** For the next connection that is dialed. */
  get context(): SecureContext {
    return this.#context;
  }

  /** For connections from now on. Those that are open go on, unless an authority was taken away that they may have come by: they have to come again. */
  set(material: PeerMaterial): void {
    this.#context = createSecureContext(optionsOf(material));
    this.server.setSecureContext(optionsOf(material));
    const before = this.#authorities;
    const authorities = authoritiesOf(material);
    this.#authorities = authorities;
    if (!isAnyGone(before, authorities)) return;
    for (const standing of [...this.#standing]) {
      const { certificate, onGone } = standing;
      if (certificate === null || !isStillGood(certificate, authorities)) onGone();
    }
  }

  /**
   * From now on `onGone` is called when an authority is taken away that `certificate` may have come by; null: in a handshake it is not known yet, and may be any.
   * Until what is returned is called.
   */
  stand(certificate: X509Certificate | null, onGone: () => void): () => void {
    const standing: Standing = { certificate, onGone };
    this.#standing.add(standing);
    return () => void this.#standing.delete(standing);
  }

  /** Connections and handshakes that are open. */
  get standing(): number {
    return this.#standing.size;
  }

  /** The node that a certificate is for, once its chain is known to be good. */
  judge(certificate: X509Certificate | undefined): NodeCertificate | Distrust {
    return nodeOf(certificate, this.cluster);
  }
}

function optionsOf(material: PeerMaterial) {
  return contextOptions(material, 'TLSv1.3');
}

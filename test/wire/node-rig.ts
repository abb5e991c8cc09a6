/** Certificates of nodes, and what calls with them. */
import { PeerCredentials } from '../../src/grpc/peer-credentials.ts';
import type { TlsMaterial } from '../../src/tls/material.ts';
import { type Certificate, CertificateAuthority, pem } from '../support/certificates.ts';

export type Material = Pick<TlsMaterial, 'cert' | 'key' | 'ca'>;

const LOCAL = 'IP:127.0.0.1,DNS:localhost';

export class Authority extends CertificateAuthority {
  material({ cert, key }: Certificate): Material {
    return { cert: pem(cert), key: pem(key), ca: pem(this.cert) };
  }

  named(name: string, uri: string): Material {
    return this.material(this.issue(name, `URI:${uri},${LOCAL}`));
  }

  node(node: string, cluster = 'c'): Material {
    return this.named(`${cluster}-${node}`, `broker://${cluster}/node/${node}`);
  }
}

/** As a keeper of files has it. */
export function keeperOf(material: Material): { readonly material: TlsMaterial; readonly listen: () => void } {
  const whole: TlsMaterial = { ...material, expiresAtMs: Number.POSITIVE_INFINITY, name: null, warnings: [] };
  return { material: whole, listen: () => undefined };
}

export function peer(material: Material, isOptional = false): PeerCredentials {
  return new PeerCredentials({ cluster: 'c', isOptional, material: () => material });
}

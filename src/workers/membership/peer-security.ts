import { formatCertificateName } from '../../access/certificate-name.ts';
import { type CallerSource, OpenCallers } from '../../grpc/callers.ts';
import { NodeCallers, type NodeNotes } from '../../grpc/node-callers.ts';
import { PeerCredentials } from '../../grpc/peer-credentials.ts';
import type { PeerMaterial, PeerTlsSettings } from '../../net/peer-tls.ts';
import { StartError } from '../../storage/start-error.ts';
import type { Log } from '../../telemetry/log.ts';
import { authoritiesOf, isAnyGone } from '../../tls/client-certificates.ts';
import type { TlsNews } from '../../tls/handshake-watch.ts';
import type { TlsMaterial } from '../../tls/material.ts';
import type { TlsKeeper } from '../../tls/tls-keeper.ts';

export interface PeerSecurityOptions {
  /** Name of the cluster, as certificates have it. */
  readonly cluster: string;
  readonly nodeId: string;
  /** How nodes speak with each other. */
  readonly mode: 'off' | 'optional' | 'required';
  /** Null: this node has no certificate. */
  readonly keeper: Pick<TlsKeeper, 'material' | 'listen'> | null;
  readonly log: Log;
  /** Takes what strangers can cause to be said. */
  readonly news: TlsNews;
}

/** How this node and the others know each other: one setting for the Raft port, for calls to other nodes and for calls from them. */
export class PeerSecurity {
  /** For calls to others. */
  readonly credentials: PeerCredentials;
  readonly #options: PeerSecurityOptions;
  readonly #keeper: PeerSecurityOptions['keeper'];

  constructor(options: PeerSecurityOptions) {
    const { cluster, mode, keeper } = options;
    this.#options = options;
    this.#keeper = mode === 'off' ? null : keeper;
    const isOptional = mode === 'optional';
    const material = (): TlsMaterial | undefined => this.#keeper?.material;
    const first = material();
    this.credentials = new PeerCredentials(
      first === undefined ? null : { cluster, isOptional, material: () => material() ?? first },
    );
  }

  /** For the Raft port; null: clear text. StartError if the certificate of this node is for another one: nobody would take it. */
  get raft(): PeerTlsSettings | null {
    const { cluster, mode, nodeId } = this.#options;
    if (this.#keeper === null) return null;
    const { material } = this.#keeper;
    const problem = this.#problemOf(material);
    if (problem !== null) {
      throw new StartError('TLS_UNUSABLE', `tls.cert: ${problem}; this is node ${nodeId} of cluster ${cluster}`);
    }
    return { cluster, isOptional: mode === 'optional', material };
  }

  /** New certificates reach the Raft port of this node, and end its calls to others whose authority may be gone. */
  follow(raft: { useCertificates(material: PeerMaterial): void }, peers: { dialAnew(why: string): void }): void {
    let authorities = this.#keeper === null ? [] : authoritiesOf(this.#keeper.material);
    this.#keeper?.listen((material) => {
      const problem = this.#problemOf(material);
      if (problem !== null) this.#options.log.error('other nodes will not take the new certificate', { problem });
      raft.useCertificates(material);
      const before = authorities;
      authorities = authoritiesOf(material);
      if (isAnyGone(before, authorities))
        peers.dialAnew('an authority was taken out of tls.ca: it has to show itself again');
    });
  }

  /** Knows callers that are nodes; `asking` says who everybody else is, null: nobody has to say. `notes` is told who is refused. */
  callers(asking: CallerSource | null, notes: NodeNotes | null): CallerSource {
    const { cluster, mode, news } = this.#options;
    const others = asking ?? new OpenCallers();
    const isRequired = this.#keeper !== null && mode === 'required';
    return new NodeCallers({ others, isOpen: asking === null, cluster, news, notes, isRequired });
  }

  #problemOf({ name }: TlsMaterial): string | null {
    const { cluster, nodeId } = this.#options;
    if (name?.kind === 'node' && name.cluster === cluster && name.name === nodeId) return null;
    const wanted = formatCertificateName({ cluster, kind: 'node', name: nodeId });
    return `the certificate is for ${name === null ? 'nobody' : formatCertificateName(name)}, and other nodes want URI:${wanted}`;
  }
}

import { X509Certificate } from 'node:crypto';
import { connect, createSecureContext, type SecureContext } from 'node:tls';
import { ChannelCredentials, credentials } from '@grpc/grpc-js';
import { parseEndpoint } from '../base/endpoint.ts';
import { contextOptions } from '../tls/contexts.ts';
import type { TlsMaterial } from '../tls/material.ts';
import { nodeOf } from '../tls/node-certificate.ts';

type Material = Pick<TlsMaterial, 'cert' | 'key' | 'ca'>;

export interface PeerCredentialsOptions {
  /** Name of the cluster, as certificates have it. */
  readonly cluster: string;
  /** Clear text is spoken with nodes that know nothing else. */
  readonly isOptional: boolean;
  /** In force now. */
  readonly material: () => Material;
}

/** How long a node may take to show whether it speaks TLS, in ms. */
const PROBE_MS = 2_000;
/** Of a server that takes the first bytes of TLS for something else, or answers in clear text. */
const NO_TLS = new Set(['ECONNRESET', 'EPIPE', 'ERR_SSL_WRONG_VERSION_NUMBER', 'ERR_SSL_PACKET_LENGTH_TOO_LONG']);
/** Names of hosts are not looked at, and TLS allows no address in their place. */
const ANY_NAME = 'node.broker';

/** What a call to another node needs of its channel: the certificate of this node, and the other one's identity checked. */
export class PeerCredentials {
  /** Null: clear text. */
  readonly #options: PeerCredentialsOptions | null;
  #of: Material | null = null;
  #context: SecureContext | null = null;

  constructor(options: PeerCredentialsOptions | null) {
    this.#options = options;
  }

  /** Nothing is said but to nodes that have shown their certificates. */
  get isRequired(): boolean {
    return this.#options !== null && !this.#options.isOptional;
  }

  /** For a channel to `address`, HOST:PORT of a gRPC port. `node`: who has to answer there; null: any node of the cluster. */
  async to(address: string, node: string | null): Promise<ChannelCredentials> {
    const options = this.#options;
    if (options === null || (options.isOptional && !(await speaksTls(address)))) return credentials.createInsecure();
    return ChannelCredentials.createFromSecureContext(this.#contextOf(options), {
      checkServerIdentity: (_, { raw }) => mistake(new X509Certificate(raw), options.cluster, node),
    });
  }

  /** Options of a channel that go with it. */
  get channelOptions(): Record<string, string> {
    return this.#options === null ? {} : { 'grpc.ssl_target_name_override': ANY_NAME };
  }

  #contextOf({ material }: PeerCredentialsOptions): SecureContext {
    const current = material();
    if (this.#context === null || this.#of !== current) {
      this.#of = current;
      this.#context = createSecureContext(contextOptions(current, 'TLSv1.3'));
    }
    return this.#context;
  }
}

export const CLEAR_TEXT = new PeerCredentials(null);

function mistake(certificate: X509Certificate, cluster: string, wanted: string | null): Error | undefined {
  const found = nodeOf(certificate, cluster);
  if ('distrust' in found) return new Error(found.words);
  if (wanted === null || found.node === wanted) return undefined;
  return new Error(`its certificate is for node ${found.node}, this one wanted ${wanted}`);
}

/** Whoever does not answer in time may: what is wrong then is said by the call itself. */
function speaksTls(address: string): Promise<boolean> {
  const endpoint = parseEndpoint(address);
  if (endpoint === null) return Promise.resolve(true);
  return new Promise((resolve) => {
    // Only whether it shakes hands: nothing is said to it, and nothing believed.
    const socket = connect({ ...endpoint, rejectUnauthorized: false, ALPNProtocols: ['h2'] });
    const timer = setTimeout(() => end(true), PROBE_MS);
    const end = (isTls: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(isTls);
    };
    socket.once('secureConnect', () => end(true));
    socket.on('error', ({ code = '' }: NodeJS.ErrnoException) => end(!NO_TLS.has(code)));
  });
}

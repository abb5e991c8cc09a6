/** TLS of the client: what it is given, and what is said when a handshake comes to nothing. */
import { isIP, type Socket } from 'node:net';
import { createSecureContext, type SecureContext, connect as tlsConnect } from 'node:tls';
import { type CallCredentials, ChannelCredentials, credentials, experimental } from '@grpc/grpc-js';

/** PEM texts. */
export interface TlsOptions {
  /** Authorities that vouch for the broker. Default: those that Node knows. */
  readonly ca?: string | Buffer | undefined;
  /** With which the client shows who it is, together with `key`. Default: it shows nothing. */
  readonly cert?: string | Buffer | undefined;
  readonly key?: string | Buffer | undefined;
  /** Name that the certificate of the broker must carry. Default: the host of each address. */
  readonly serverName?: string | undefined;
}

/** Why the last connection to an address failed, in words that say what to do; null if nothing is known. */
export interface ConnectFailures {
  failureOf(address: string): string | null;
}

type SecureConnector = ReturnType<ChannelCredentials['_createSecureConnector']>;
type Target = Parameters<ChannelCredentials['_createSecureConnector']>[0];

/** Throws RangeError if certificate and key do not fit, or one of them cannot be read. */
export function tlsCredentials(options: TlsOptions): ChannelCredentials & ConnectFailures {
  const { ca, cert, key, serverName } = options;
  if ((cert === undefined) !== (key === undefined)) throw new RangeError('tls: cert and key belong together');
  try {
    const context = createSecureContext({ ca, cert, key, minVersion: 'TLSv1.2' });
    return new TlsCredentials(context, serverName ?? null, cert !== undefined);
  } catch (cause) {
    const { code = 'unknown' } = cause as NodeJS.ErrnoException;
    throw new RangeError(`tls: the certificates or the key cannot be used (${code})`, { cause });
  }
}

/**
 * Those of grpc-js keep to themselves why a handshake failed, and send an address as a server name, which TLS has no place for and Node warns of
 * (grpc-node#1919).
 */
class TlsCredentials extends ChannelCredentials implements ConnectFailures {
  readonly #context: SecureContext;
  readonly #serverName: string | null;
  readonly #hasCertificate: boolean;
  readonly #failures = new Map<string, string>();

  constructor(context: SecureContext, serverName: string | null, hasCertificate: boolean) {
    super();
    this.#context = context;
    this.#serverName = serverName;
    this.#hasCertificate = hasCertificate;
  }

  failureOf(address: string): string | null {
    return this.#failures.get(address) ?? null;
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(
    target: Target,
    _options: object,
    callCredentials?: CallCredentials,
  ): SecureConnector {
    const address = target.path;
    const name = this.#serverName ?? experimental.splitHostPort(address)?.host ?? address;
    return {
      connect: (socket) => this.#connect(socket, name, address),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => callCredentials ?? credentials.createEmpty(),
      destroy: () => undefined,
    };
  }

  #connect(socket: Socket, name: string, address: string): Promise<{ socket: Socket; secure: boolean }> {
    return new Promise((resolve, reject) => {
      const secured = tlsConnect({
        socket,
        secureContext: this.#context,
        host: name,
        ...(isIP(name) === 0 ? { servername: name } : {}),
        ALPNProtocols: ['h2'],
      });
      let isOpen = false;
      secured.once('secureConnect', () => {
        isOpen = true;
        this.#failures.delete(address);
        resolve({ socket: secured, secure: true });
      });
      secured.on('error', (error: NodeJS.ErrnoException) => {
        const isReset = isOpen && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
        if (!isReset) this.#failures.set(address, this.#explain(error, name));
        else if (secured.bytesRead === 0) this.#failures.set(address, this.#refused());
        reject(error);
      });
      secured.once('close', () => {
        // What a server has against a certificate comes after the handshake, in place of its first bytes.
        if (isOpen && secured.bytesRead === 0 && !this.#failures.has(address))
          this.#failures.set(address, this.#refused());
      });
    });
  }

  #refused(): string {
    return this.#hasCertificate
      ? 'the broker closed the connection after the handshake: it does not take the certificate of this client; its log says why'
      : 'the broker closed the connection after the handshake: perhaps it wants a certificate of this client';
  }

  #explain(error: NodeJS.ErrnoException, name: string): string {
    const { code = '' } = error;
    if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
      return `the certificate of the broker is not for ${name}: ${error.message}`;
    }
    if (CLEAR_TEXT.has(code)) return 'the broker speaks no TLS at this address';
    if (code.includes('CERTIFICATE_REQUIRED')) return 'the broker wants a certificate of this client';
    if (code.includes('NO_APPLICATION_PROTOCOL')) return 'there is TLS at this address, but no gRPC (HTTP/2)';
    if (code.includes('_ALERT_')) return `the broker refused the handshake (${code})`;
    if (UNTRUSTED.has(code)) return `the authority of the certificate of the broker is not known here (${code})`;
    if (code === 'CERT_HAS_EXPIRED') return 'the certificate of the broker has expired';
    return `${error.message}${error.message.includes(code) ? '' : ` (${code})`}`;
  }
}

const CLEAR_TEXT = new Set([
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'ERR_SSL_PACKET_LENGTH_TOO_LONG',
  'ERR_SSL_HTTP_REQUEST',
  'ERR_SSL_UNEXPECTED_MESSAGE',
]);
const UNTRUSTED = new Set([
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
]);

/** TLS on the gRPC port: with what it begins, what is done with new certificates, and who is refused. */
import type { X509Certificate } from 'node:crypto';
import { constants, type Http2Server, type SecureServerOptions, type ServerHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { ServerCredentials } from '@grpc/grpc-js';
import { peerOf } from '../base/peer-address.ts';
import {
  authoritiesOf,
  certificateLabel,
  certificateOf,
  isAnyGone,
  isStillGood,
  refusalOf,
} from '../tls/client-certificates.ts';
import {
  askingFor,
  type ClientCertificates,
  contextOptions,
  HANDSHAKE_TIMEOUT_MS,
  type TlsVersion,
} from '../tls/contexts.ts';
import { carrierOf, HandshakeWatch, type TlsNews } from '../tls/handshake-watch.ts';
import type { TlsKeeper } from '../tls/tls-keeper.ts';
import { takeClearTextToo } from './either-way.ts';

export interface DoorTls {
  readonly keeper: Pick<TlsKeeper, 'material' | 'listen'>;
  readonly minVersion: TlsVersion;
  readonly clientCertificates: ClientCertificates;
  /** Clear text is taken beside TLS. */
  readonly takesClearText?: boolean;
}

/** Between two looks for certificates that have expired on open connections, in ms. */
const EXPIRED_MS = 30_000;

/** Credentials whose certificates change while servers run with them. */
class ChangingCredentials extends ServerCredentials {
  constructor({ keeper, minVersion, clientCertificates }: DoorTls) {
    const fixed: SecureServerOptions = { ...askingFor(clientCertificates), handshakeTimeout: HANDSHAKE_TIMEOUT_MS };
    super(fixed, contextOptions(keeper.material, minVersion));
    keeper.listen((material) => this.updateSecureContextOptions(contextOptions(material, minVersion)));
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

export class TlsDoor {
  readonly credentials: ServerCredentials;
  readonly handshakes: HandshakeWatch;
  readonly #news: TlsNews;
  readonly #takesClearText: boolean;
  /** Of sessions that are open. */
  readonly #certificates = new Map<
    ServerHttp2Session,
    { readonly certificate: X509Certificate; readonly label: string }
  >();
  /** Connections whose handshake is not done: whose certificate it will bring is not known yet. */
  readonly #shaking = new Set<Socket>();
  #authorities: readonly X509Certificate[];
  readonly #timer: NodeJS.Timeout;

  constructor(tls: DoorTls, news: TlsNews) {
    this.#news = news;
    this.#takesClearText = tls.takesClearText === true;
    this.credentials = new ChangingCredentials(tls);
    this.handshakes = new HandshakeWatch('grpc', news);
    this.#authorities = authoritiesOf(tls.keeper.material);
    tls.keeper.listen((material, isAuthorityNew) => {
      if (isAuthorityNew) this.#changeAuthorities(authoritiesOf(material));
    });
    this.#timer = setInterval(() => this.#endExpired(), EXPIRED_MS).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Open connections of clients and nodes, by what their certificate is called. */
  get clients(): ReadonlyMap<string, number> {
    const clients = new Map<string, number>();
    for (const { label } of this.#certificates.values()) clients.set(label, (clients.get(label) ?? 0) + 1);
    return clients;
  }

  /** Before its first connection. */
  watch(server: Http2Server): void {
    if (this.#takesClearText) takeClearTextToo(server);
    this.handshakes.watch(server);
    server.on('connection', (socket: Socket) => {
      this.#shaking.add(socket);
      socket.once('close', () => this.#shaking.delete(socket));
    });
    server.on('secureConnection', (socket: Socket) => this.#shaking.delete(carrierOf(socket)));
  }

  /** Whether it may stay. A bad certificate is refused also where none is needed: who shows one wants to be somebody. */
  admits(session: ServerHttp2Session): boolean {
    // Without encryption it is the look at this server itself (http2-tuning.ts), or clear text is taken: others come by the handshake alone.
    if (session.encrypted !== true) return true;
    const socket = session.socket as TLSSocket;
    const refusal = refusalOf(socket);
    if (refusal !== null) {
      this.handshakes.tell('', refusal, peerOf(socket));
      return false;
    }
    const certificate = certificateOf(socket);
    if (certificate !== null) {
      this.#certificates.set(session, { certificate, label: certificateLabel(certificate) });
      session.once('close', () => this.#certificates.delete(session));
    }
    return true;
  }

  /** Ends the connections of those who may have come by an authority that has been taken away. Another one more ends nobody. */
  #changeAuthorities(authorities: readonly X509Certificate[]): void {
    const before = this.#authorities;
    this.#authorities = authorities;
    if (!isAnyGone(before, authorities)) return;
    // A handshake ends by the authorities with which it began.
    for (const socket of this.#shaking) socket.destroy();
    this.#endUnless((certificate) => isStillGood(certificate, authorities), 'its authority is not in tls.ca any more');
  }

  #endExpired(): void {
    const now = Date.now();
    this.#endUnless((certificate) => certificate.validToDate.getTime() > now, 'it has expired');
  }

  #endUnless(isGood: (certificate: X509Certificate) => boolean, reason: string): void {
    for (const [session, { certificate }] of this.#certificates) {
      if (isGood(certificate)) continue;
      this.#certificates.delete(session);
      const message = 'a connection is ended: the certificate of its client is not good any more';
      this.#news.warn('certificate_ended', message, { peer: peerOf(session.socket), reason });
      session.destroy(undefined, constants.NGHTTP2_CANCEL);
    }
  }
}

/** The other mistake: a client by TLS at a port in clear text. What it sends first is no beginning of HTTP/2, and nothing more can be known. */
export function tellOfTls(server: Http2Server, news: TlsNews): void {
  server.on(
    'sessionError',
    (error: NodeJS.ErrnoException & { readonly errno?: number }, session?: ServerHttp2Session) => {
      if (error.errno !== BAD_CLIENT_MAGIC) return;
      news.warn('not_http2', 'a connection was refused: what came is no HTTP/2', {
        peer: peerOf(session?.socket),
        reason: 'the port speaks clear text (tls.cert is not set), and the client TLS or something else',
      });
    },
  );
}

/** Of nghttp2. */
const BAD_CLIENT_MAGIC = -903;

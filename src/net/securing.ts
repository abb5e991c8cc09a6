import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { peerOf } from '../base/peer-address.ts';
import { onFirstByte } from '../tls/first-byte.ts';
import { type Distrust, distrust, expired, type NodeCertificate } from '../tls/node-certificate.ts';
import { Deadline } from './deadline.ts';
import type { HandshakePace } from './handshake-pace.ts';
import { AUTHORITY_GONE, type PeerTls } from './peer-tls.ts';

export interface SecuringHost {
  readonly tls: PeerTls;
  /** From the connection to the end of the handshake, in ms. */
  readonly handshakeMs: number;
  readonly pace: HandshakePace;
  /** `certificate`: null with clear text, where that is taken. */
  onReady(securing: Securing, socket: Socket, certificate: NodeCertificate | null): void;
  /** Null: it has closed the connection before anything was wrong. Not after `close`. */
  onEnd(securing: Securing, distrust: Distrust | 'late' | null): void;
}

/** A connection that was accepted, until it is known who is at the other end. Whatever comes, no more happens than that it is closed. */
export class Securing {
  /** HOST:PORT of the dialer's side. */
  readonly remote: string;
  readonly #socket: Socket;
  readonly #host: SecuringHost;
  readonly #deadline = new Deadline();
  readonly #unlook: () => void;
  #unstand: (() => void) | null = null;
  #isOver = false;

  constructor(socket: Socket, host: SecuringHost) {
    this.#socket = socket;
    this.#host = host;
    this.remote = peerOf(socket);
    this.#unlook = onFirstByte(socket, (isTls) => this.#begun(isTls));
    this.#deadline.set(host.handshakeMs, () => this.#end('late'));
    socket.on('error', this.#onGone).on('close', this.#onGone);
  }

  /** Without an event. */
  close(): void {
    this.#settle();
    this.#socket.destroy();
  }

  /** The handshake is done, by PeerTls.server. */
  secured(socket: TLSSocket): void {
    const found = this.#isOver ? null : this.#judge(socket);
    if (found !== null && !('distrust' in found)) {
      this.#ready(socket, found);
      return;
    }
    // The server lets go of it here, with whatever happens to it from now on.
    socket.on('error', () => socket.destroy()).destroy();
    if (found !== null) this.#end(found);
  }

  /** The handshake has failed. */
  failed(error: Error): void {
    // `reason` is of OpenSSL, without the place in its source.
    const { code, reason } = error as NodeJS.ErrnoException & { readonly reason?: string };
    const words = `the TLS handshake failed: ${reason ?? error.message}`;
    this.#end(code === 'ECONNRESET' ? null : distrust('handshake', words));
  }

  #judge(socket: TLSSocket): NodeCertificate | Distrust {
    const { tls } = this.#host;
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined || socket.isSessionReused()) return tls.judge(undefined);
    if (socket.authorized) return tls.judge(certificate);
    const { authorizationError } = socket;
    if (String(authorizationError).includes('CERT_HAS_EXPIRED')) {
      return expired(certificate);
    }
    return distrust('untrusted-certificate', `tls.ca does not vouch for its certificate: ${authorizationError}`);
  }

  #begun(isTls: boolean): void {
    if (isTls) this.#host.pace.turn(this.#shake);
    else if (this.#host.tls.isOptional) this.#ready(this.#socket, null);
    else this.#end(distrust('clear-text', 'it speaks clear text, and this node TLS only'));
  }

  readonly #shake = (): void => {
    if (this.#isOver) return;
    const { tls } = this.#host;
    this.#unstand = tls.stand(null, () => this.#end(distrust('untrusted-certificate', AUTHORITY_GONE)));
    tls.server.emit('connection', this.#socket);
  };

  readonly #onGone = (): void => this.#end(null);

  #ready(socket: Socket, certificate: NodeCertificate | null): void {
    if (this.#isOver) return;
    this.#settle();
    if (socket === this.#socket) this.#socket.off('error', this.#onGone);
    this.#host.onReady(this, socket, certificate);
  }

  #settle(): void {
    this.#isOver = true;
    this.#deadline.clear();
    this.#unlook();
    this.#unstand?.();
    this.#host.pace.drop(this.#shake);
    this.#socket.off('close', this.#onGone);
  }

  #end(how: Distrust | 'late' | null): void {
    if (this.#isOver) return;
    this.close();
    this.#host.onEnd(this, how);
  }
}

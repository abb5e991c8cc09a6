import type { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { peerOf } from '../base/peer-address.ts';
import { HANDSHAKE_FAILURES, type HandshakeFailureKind, handshakeFailure } from './handshake-failure.ts';

/** Takes what strangers can cause to be said; of each kind little is written. */
export interface TlsNews {
  warn(kind: string, message: string, fields: Readonly<Record<string, unknown>>): void;
}

/** Counts handshakes that come to nothing on one port, and tells who it was and why. */
export class HandshakeWatch {
  /** How many, by why. */
  readonly failures = new Map<HandshakeFailureKind, number>(HANDSHAKE_FAILURES.map((kind) => [kind, 0]));
  readonly #port: string;
  readonly #news: TlsNews;

  /** `port`: as people call it. */
  constructor(port: string, news: TlsNews) {
    this.#port = port;
    this.#news = news;
  }

  /** Before the first connection of the server, which is one of tls, https or http2. */
  watch(server: EventEmitter): void {
    // Of one that Node refuses nothing is known any more when it says so.
    const peers = new WeakMap<object, string>();
    server.on('connection', (socket: Socket) => peers.set(socket, peerOf(socket)));
    server.on('tlsClientError', (error: NodeJS.ErrnoException, socket: TLSSocket) => {
      const { code = 'unknown' } = error;
      const certificateError = socket.authorizationError as unknown as string | null | undefined;
      // Somebody who only looks whether the port is open, such as a load balancer.
      if (code === 'ECONNRESET' && !certificateError && socket.bytesRead === 0) return;
      this.tell(code, certificateError ?? null, peers.get(carrierOf(socket)) ?? peerOf(socket));
    });
  }

  /** `code`: of Node's error; `certificateError`: what is wrong with a certificate of a client, if that is why. */
  tell(code: string, certificateError: string | null, peer: string): void {
    const { kind, reason } = handshakeFailure(code, certificateError);
    this.failures.set(kind, (this.failures.get(kind) ?? 0) + 1);
    const fields = { port: this.#port, peer, reason, detail: certificateError ?? code };
    this.#news.warn(`tls_${this.#port}_${certificateError ?? kind}`, 'a connection by TLS was refused', fields);
  }
}

/** The socket under one of TLS, which servers are told of first; any other is its own. Node has it and does not document it. */
export function carrierOf(socket: Socket): Socket {
  return (socket as Socket & { readonly _parent?: Socket | null })._parent ?? socket;
}

import { X509Certificate } from 'node:crypto';
import { createConnection, Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { parseEndpoint } from '../base/endpoint.ts';
import type { NodeId } from '../raft/messages.ts';
import { PROTOCOL_VERSION, PROTOCOL_VERSION_MIN } from '../replica/types.ts';
import type { NetworkCaps } from './caps.ts';
import { Deadline } from './deadline.ts';
import { Expiry } from './expiry.ts';
import { type GreetingCodec, GreetingReader } from './hello.ts';
import { AUTHORITY_GONE, type PeerTls } from './peer-tls.ts';
import type { Peer, Purpose, Refusal } from './types.ts';
import { WireError } from './wire-error.ts';

/** What all connections that a node dials have in common. */
export interface DialContext {
  readonly clusterId: string;
  readonly node: string;
  readonly instance: string;
  readonly greetings: GreetingCodec;
  readonly caps: NetworkCaps;
  /** Null: clear text. */
  readonly tls: PeerTls | null;
}

/** Why a dialed connection is over. */
export interface DialEnd {
  readonly wasOpen: boolean;
  /** What the acceptor said, if that is the reason. */
  readonly refusal: Refusal | null;
  readonly words: string;
  /** The peer did not take part in the handshake of TLS: it may speak clear text alone. */
  readonly isUnsecured: boolean;
}

export interface DialEvents {
  /** The hello was answered: frames may be written. */
  onOpen(): void;
  /** A byte behind the answer (Signal). */
  onSignal(signal: number): void;
  /** Once, however it ends, but not after `close`. */
  onEnd(end: DialEnd): void;
}

/** A connection to a peer: connect, hello, answer, and then as long as the peer says that it is alive. */
export class Dialed {
  readonly socket: Socket;
  readonly #context: DialContext;
  readonly #events: DialEvents;
  readonly #deadline = new Deadline();
  readonly #greeting = new GreetingReader();
  readonly #isTls: boolean;
  #isUnsecured = false;
  #expiry: Expiry | null = null;
  #unstand: (() => void) | undefined;
  /** `securing`: connected, and in the handshake of TLS. */
  #state: 'connecting' | 'securing' | 'greeting' | 'open' | 'over' = 'connecting';

  constructor(peer: Peer, purpose: Purpose, context: DialContext, events: DialEvents) {
    this.#context = context;
    this.#events = events;
    const { caps, tls } = context;
    this.#isTls = tls !== null && peer.isClear !== true;
    this.socket = connect(peer, this.#isTls ? tls : null);
    if (this.#isTls) this.#stand(null);
    this.#deadline.set(caps.connectMs, () => this.#end(`no connection within ${caps.connectMs} ms`));
    this.socket
      .on('connect', () => (this.#isTls ? this.#secure() : this.#greet(peer, purpose)))
      .on('secureConnect', () => this.#secured(peer, purpose))
      .on('data', (chunk) => this.#handleData(chunk))
      .on('error', (error) => this.#handleError(error))
      .on('close', () => this.#end(this.#lossWords()));
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  /** Without an event. */
  close(): void {
    this.#state = 'over';
    this.#deadline.clear();
    this.#expiry?.clear();
    this.#unstand?.();
    this.socket.destroy();
  }

  #handleError(error: NodeJS.ErrnoException): void {
    // Who does not know TLS closes the connection at the first byte of it; a certificate that is not taken ends it in another way.
    this.#isUnsecured = this.#state === 'securing' && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
    this.#end(error.message === '' ? String(error) : error.message);
  }

  #secure(): void {
    if (this.#state !== 'connecting') return;
    this.#state = 'securing';
    const { helloMs } = this.#context.caps;
    this.#deadline.set(helloMs, () => this.#end(`no end of the TLS handshake within ${helloMs} ms`));
  }

  #secured(peer: Peer, purpose: Purpose): void {
    const { tls } = this.#context;
    if (this.#state !== 'securing' || tls === null) return;
    const found = tls.judge((this.socket as TLSSocket).getPeerX509Certificate());
    // Looked at in the handshake already: only the clock may have something to add.
    if ('distrust' in found) {
      this.#end(found.words);
      return;
    }
    this.#stand(found.certificate);
    this.#expiry = new Expiry(found.expiresAtMs, () => this.#end("the peer's certificate has expired"));
    this.#greet(peer, purpose);
  }

  /** As long as the authority of that certificate is there. */
  #stand(certificate: X509Certificate | null): void {
    this.#unstand?.();
    const words = `the peer's certificate is not good any more: ${AUTHORITY_GONE}`;
    this.#unstand = this.#context.tls?.stand(certificate, () => this.#end(words));
  }

  #lossWords(): string {
    if (this.#isTls && this.#state === 'greeting') {
      return 'the peer closed the connection before it answered the hello: its log says why, such as that it does not take the certificate of this node';
    }
    return 'the peer closed the connection';
  }

  #greet(peer: Peer, purpose: Purpose): void {
    if (this.#state !== 'connecting' && this.#state !== 'securing') return;
    this.#state = 'greeting';
    const { clusterId, node, instance, greetings, caps } = this.#context;
    const versions = { versionMin: PROTOCOL_VERSION_MIN, versionMax: PROTOCOL_VERSION };
    const target = { targetNode: peer.node, targetInstance: peer.instance ?? '' };
    this.#deadline.set(caps.helloMs, () => this.#end(`no answer to the hello within ${caps.helloMs} ms`));
    this.socket.write(greetings.encodeHello({ ...versions, clusterId, node, instance, ...target, purpose }));
  }

  #handleData(chunk: Buffer): void {
    if (this.#state === 'over') return;
    this.#deadline.restart();
    if (this.#state === 'open') this.#handleSignals(chunk);
    else this.#handleAnswer(chunk);
  }

  #handleAnswer(chunk: Buffer): void {
    try {
      const greeting = this.#greeting.push(chunk);
      if (greeting === null) return;
      const answer = this.#context.greetings.decodeAnswer(greeting.body);
      if ('refusal' in answer) {
        this.#end(answer.refusal.words, answer.refusal);
      } else if (answer.version < PROTOCOL_VERSION_MIN || answer.version > PROTOCOL_VERSION) {
        this.#end(`the peer chose version ${answer.version} of frames, which was not offered`);
      } else {
        this.#open(greeting.rest);
      }
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#end(`the answer to the hello is none: ${error.message}`);
    }
  }

  #open(rest: Buffer): void {
    this.#state = 'open';
    const { silenceMs } = this.#context.caps;
    this.#deadline.set(silenceMs, () => this.#end(`the peer said nothing for ${silenceMs} ms`));
    this.#events.onOpen();
    this.#handleSignals(rest);
  }

  #handleSignals(signals: Buffer): void {
    for (const signal of signals) {
      if (this.#state === 'open') this.#events.onSignal(signal);
    }
  }

  #end(words: string, refusal: Refusal | null = null): void {
    if (this.#state === 'over') return;
    const wasOpen = this.#state === 'open';
    this.close();
    this.#events.onEnd({ wasOpen, refusal, words, isUnsecured: this.#isUnsecured });
  }
}

/** What is no address fails as one does at which nobody listens: later, by an event. */
function connect({ address, node }: Peer, tls: PeerTls | null): Socket {
  const endpoint = parseEndpoint(address);
  if (endpoint === null) return new Socket().destroy(new Error(`${address} is not HOST:PORT`));
  if (tls === null) return createConnection({ ...endpoint, noDelay: true, keepAlive: true });
  const socket = connectTls({
    ...endpoint,
    secureContext: tls.context,
    rejectUnauthorized: true,
    // Where it was reached proves nothing, and may be an address without a name: who it is counts.
    checkServerIdentity: (_, { raw }) => mistakenFor(node, tls.judge(new X509Certificate(raw))),
  });
  return socket.setNoDelay(true).setKeepAlive(true);
}

function mistakenFor(wanted: NodeId, found: ReturnType<PeerTls['judge']>): Error | undefined {
  if ('distrust' in found) return new Error(found.words);
  return found.node === wanted
    ? undefined
    : new Error(`its certificate is for node ${found.node}, this one wanted ${wanted}`);
}

import { createServer, type Server, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { peerOf } from '../base/peer-address.ts';
import { PROTOCOL_VERSION, PROTOCOL_VERSION_MIN } from '../replica/types.ts';
import type { Distrust, NodeCertificate } from '../tls/node-certificate.ts';
import { HandshakePace } from './handshake-pace.ts';
import { type Answer, commonVersion } from './hello.ts';
import { Incoming, type IncomingEnd, type IncomingHost } from './incoming.ts';
import { LogLimit } from './log-limit.ts';
import type { PeerTls } from './peer-tls.ts';
import { Securing } from './securing.ts';
import type { Hello, PeerNetworkOptions, Refusal, RefusalCode } from './types.ts';

/** Connections for each member, this node included, whose hello was answered. One for frames and one for a snapshot would do; the rest is for those that come and go. */
const SPOKEN_PER_MEMBER = 4;
const OURS = { min: PROTOCOL_VERSION_MIN, max: PROTOCOL_VERSION };

type Port = Omit<IncomingHost, 'judge' | 'onEnd' | 'node' | 'tls'>;

/** The listening side of the Raft port: who may stay, and who has to go. */
export class Acceptor {
  refused = 0;
  untrusted = 0;
  malformed = 0;
  unspoken = 0;
  readonly #options: PeerNetworkOptions;
  readonly #host: IncomingHost;
  readonly #log: LogLimit;
  readonly #server: Server;
  readonly #tls: PeerTls | null;
  readonly #pace = new HandshakePace();
  /** Those that have not said hello, in the order in which they came. */
  readonly #waiting = new Set<Incoming | Securing>();
  /** In a handshake, by the address of the other side. */
  readonly #securing = new Map<string, Securing>();
  /** Answered, by purpose and node: a peer that dials again has given up the connection before. */
  readonly #spoken = new Map<string, Incoming>();
  #membersCount = 1;

  constructor(options: PeerNetworkOptions, port: Port) {
    this.#options = options;
    this.#log = new LogLimit(options.log);
    this.#host = {
      ...port,
      node: options.node,
      tls: options.tls ?? null,
      judge: (hello, incoming) => this.#judge(hello, incoming),
      onEnd: (incoming, end, words) => this.#handleEnd(incoming, end, words),
    };
    this.#tls = options.tls ?? null;
    // Bytes are read when somebody listens for them: the first one says whether it is TLS.
    this.#server = createServer({ noDelay: true, keepAlive: true }, (socket) => this.#accept(socket));
    this.#tls?.server
      .on('secureConnection', (socket: TLSSocket) => this.#shaken(socket)?.secured(socket))
      .on('tlsClientError', (error: Error, socket: TLSSocket) => this.#shaken(socket)?.failed(error));
  }

  listen(): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#options.listen, () => {
        this.#server.off('error', reject);
        this.#server.on('error', (error) => this.#log.warn('accept', 'the Raft port cannot accept', { error }));
        const address = this.#server.address();
        resolve(typeof address === 'object' && address !== null ? address.port : 0);
      });
    });
  }

  /** Members, this node included; whoever has a connection is judged again. */
  membersChanged(count: number): void {
    this.#membersCount = count;
    for (const incoming of [...this.#spoken.values()]) {
      const refusal = incoming.hello === null ? null : this.#options.events.admit(incoming.hello);
      if (refusal === null) continue;
      incoming.close();
      this.#handleEnd(incoming, 'refused', `${refusal.code}: ${refusal.words}`);
    }
  }

  /** Resolves when the port is free. */
  close(): Promise<void> {
    for (const incoming of [...this.#waiting, ...this.#spoken.values()]) incoming.close();
    this.#waiting.clear();
    this.#securing.clear();
    this.#spoken.clear();
    this.#pace.close();
    this.#tls?.server.removeAllListeners('secureConnection').removeAllListeners('tlsClientError');
    return new Promise((resolve) => {
      // Not listening is closed.
      this.#server.close(() => resolve());
    });
  }

  #accept(socket: Socket): void {
    if (this.#tls === null) this.#greet(socket, peerOf(socket), null);
    else this.#wait(this.#secure(socket, this.#tls));
  }

  #secure(socket: Socket, tls: PeerTls): Securing {
    const securing = new Securing(socket, {
      tls,
      pace: this.#pace,
      handshakeMs: this.#host.caps.helloMs,
      onReady: ({ remote }, secured, certificate) => {
        this.#left(securing);
        this.#greet(secured, remote, certificate);
      },
      onEnd: (_, how) => this.#handleUnsecured(securing, how),
    });
    this.#securing.set(securing.remote, securing);
    return securing;
  }

  #shaken(socket: TLSSocket): Securing | undefined {
    return this.#securing.get(peerOf(socket));
  }

  #greet(socket: Socket, remote: string, certificate: NodeCertificate | null): void {
    this.#wait(new Incoming(socket, this.#host, remote, certificate));
  }

  #wait(stranger: Incoming | Securing): void {
    this.#waiting.add(stranger);
    const { unspokenMax } = this.#host.caps;
    if (this.#waiting.size <= unspokenMax) return;
    const oldest = this.#oldestOfMost();
    if (oldest === undefined) return;
    oldest.close();
    const words = `more than ${unspokenMax} connections have not said hello`;
    if (oldest instanceof Securing) this.#handleUnspoken(oldest, words);
    else this.#handleEnd(oldest, 'unspoken', words);
  }

  /**
   * A peer says its hello at once, who has waited longest will not say it. And whoever floods the port from one address keeps peers at others from nothing: the
   * oldest goes of those that come from the address with the most.
   */
  #oldestOfMost(): Incoming | Securing | undefined {
    const byHost = new Map<string, (Incoming | Securing)[]>();
    for (const stranger of this.#waiting) {
      const host = stranger.remote.slice(0, stranger.remote.lastIndexOf(':'));
      const others = byHost.get(host);
      if (others === undefined) byHost.set(host, [stranger]);
      else others.push(stranger);
    }
    let most: readonly (Incoming | Securing)[] = [];
    for (const strangers of byHost.values()) if (strangers.length > most.length) most = strangers;
    return most[0];
  }

  #left(securing: Securing): void {
    this.#waiting.delete(securing);
    this.#securing.delete(securing.remote);
  }

  #handleUnsecured(securing: Securing, how: Distrust | 'late' | null): void {
    if (how === 'late') {
      this.#handleUnspoken(securing, `no handshake within ${this.#host.caps.helloMs} ms`);
      return;
    }
    this.#left(securing);
    if (how !== null) this.#distrusted(securing.remote, how);
  }

  #handleUnspoken(securing: Securing, words: string): void {
    this.#left(securing);
    this.unspoken += 1;
    this.#log.warn('unspoken', MESSAGES.unspoken, { remote: securing.remote, peer: '', reason: words });
  }

  #distrusted(remote: string, { distrust, words }: Distrust): void {
    this.untrusted += 1;
    this.#log.warn(distrust, MESSAGES.refused, { remote, peer: '', reason: words });
  }

  #judge(hello: Hello, incoming: Incoming): Answer {
    const version = commonVersion(OURS, hello);
    const refusal = this.#mistaken(hello, incoming.certificate) ?? this.#refusal(hello, version);
    if (refusal !== null) return { refusal };
    const key = keyOf(hello);
    this.#waiting.delete(incoming);
    this.#spoken.get(key)?.close();
    this.#spoken.set(key, incoming);
    const { node, instance, purpose } = hello;
    this.#options.log.info('a peer has connected', { peer: node, instance, purpose, remote: incoming.remote });
    return { version };
  }

  /** Nobody speaks for a node that its certificate is not for. */
  #mistaken({ node }: Hello, certificate: NodeCertificate | null): Refusal | null {
    if (certificate === null || certificate.node === node) return null;
    this.untrusted += 1;
    return refuse('WRONG_CERTIFICATE', `the dialer is node ${node}, and its certificate is for ${certificate.node}`);
  }

  #refusal(hello: Hello, version: number): Refusal | null {
    const { clusterId, node, instance, events } = this.#options;
    if (hello.clusterId !== clusterId) {
      return refuse('WRONG_CLUSTER', `this is cluster ${clusterId}, the dialer's is ${hello.clusterId}`);
    }
    if (hello.targetNode !== node || (hello.targetInstance !== '' && hello.targetInstance !== instance)) {
      const target = `${hello.targetNode}/${hello.targetInstance}`;
      return refuse('WRONG_NODE', `this is node ${node}/${instance}, the dialer wanted ${target}`);
    }
    if (version === 0) {
      const theirs = `${hello.versionMin} to ${hello.versionMax}`;
      return refuse('WRONG_VERSION', `this node speaks versions ${OURS.min} to ${OURS.max}, the dialer ${theirs}`);
    }
    if (hello.node === node) return refuse('INSTANCE_REFUSED', `${node} is the name of this node itself`);
    const refusal = events.admit(hello);
    if (refusal !== null) return refusal;
    const current = this.#spoken.get(keyOf(hello));
    // A snapshot that is under way is not given up for another: the sender has one at a time for each peer, and finds the end of the old one late.
    if (current !== undefined && hello.purpose === 'snapshot') {
      return refuse('BUSY', 'a snapshot of this peer is under way');
    }
    if (current === undefined && this.#spoken.size >= SPOKEN_PER_MEMBER * this.#membersCount) {
      return refuse('BUSY', `${this.#spoken.size} connections of peers are open`);
    }
    return null;
  }

  #handleEnd(incoming: Incoming, end: IncomingEnd, words: string): void {
    this.#waiting.delete(incoming);
    const key = incoming.hello === null ? '' : keyOf(incoming.hello);
    if (this.#spoken.get(key) === incoming) this.#spoken.delete(key);
    if (end === 'refused') this.refused += 1;
    if (end === 'malformed') this.malformed += 1;
    if (end === 'unspoken') this.unspoken += 1;
    const isStranger = incoming.hello === null;
    // Somebody looked whether the port is open, or a peer's connection has done its work.
    if (end === 'done' || (end === 'lost' && isStranger)) return;
    const fields = { remote: incoming.remote, peer: incoming.hello?.node ?? '', reason: words };
    // Only members get so far as to send a snapshot, and one at a time: all of these are told.
    if (end === 'not-taken') this.#options.log.warn(MESSAGES[end], fields);
    else this.#log.warn(end, MESSAGES[end], fields);
  }
}

const MESSAGES: Readonly<Record<Exclude<IncomingEnd, 'done'>, string>> = {
  distrusted: 'closed a connection to the Raft port whose certificate is not good any more',
  expired: 'closed a connection to the Raft port whose certificate has expired',
  refused: 'refused a connection to the Raft port',
  malformed: 'closed a connection to the Raft port for what came on it',
  unspoken: 'closed a connection to the Raft port that said no hello',
  silent: 'closed a connection to the Raft port on which nothing came',
  lost: 'a peer has gone from the Raft port',
  'not-taken': 'did not take in a snapshot of a peer',
};

function refuse(code: RefusalCode, words: string): Refusal {
  return { code, words };
}

/** NUL is in no name that a data directory may have; others are of no matter, a peer only ever replaces what admit let it have. */
function keyOf(hello: Hello): string {
  return `${hello.purpose}\0${hello.node}`;
}

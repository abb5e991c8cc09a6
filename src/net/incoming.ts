import type { Socket } from 'node:net';
import type { Message, NodeId } from '../raft/messages.ts';
import type { PeerFrame } from '../replica/types.ts';
import type { NodeCertificate } from '../tls/node-certificate.ts';
import type { NetworkCaps } from './caps.ts';
import { Deadline } from './deadline.ts';
import { Expiry } from './expiry.ts';
import { FrameReader } from './framing.ts';
import { type Answer, type GreetingCodec, GreetingReader } from './hello.ts';
import { AUTHORITY_GONE, type PeerTls } from './peer-tls.ts';
import type { FrameCodec } from './raft-frames.ts';
import { Signal } from './signal.ts';
import { takeSnapshot } from './snapshot-intake.ts';
import type { Hello, SnapshotReceiver } from './types.ts';
import { WireError } from './wire-error.ts';

/** Signs of life that a dialer has not read: it is no dialer of ours, more are a waste. */
const UNREAD_SIGNALS_MAX = 64;

/**
 * Why an accepted connection is over. `expired`: its certificate has, meanwhile. `distrusted`: the authority of its certificate was taken away. `malformed`: for what came on it. `unspoken`: no hello in time. `silent`: no frame in time. `not-taken`: a snapshot was cut
 * off, or its receiver did not want it or failed. `done`: a snapshot is installed.
 */
export type IncomingEnd =
  | 'refused'
  | 'malformed'
  | 'unspoken'
  | 'silent'
  | 'lost'
  | 'not-taken'
  | 'done'
  | 'expired'
  | 'distrusted';

export interface IncomingHost {
  readonly node: NodeId;
  readonly caps: NetworkCaps;
  readonly greetings: GreetingCodec;
  readonly codec: FrameCodec;
  /** Null: clear text. */
  readonly tls: PeerTls | null;
  /** Whether the dialer is taken; if so, the connection counts as its from now on. */
  judge(hello: Hello, incoming: Incoming): Answer;
  onFrame(from: Hello, frame: PeerFrame, bytes: number): void;
  beginSnapshot(from: NodeId, message: Message): SnapshotReceiver | null;
  /** Once, however it ends, but not after `close`. */
  onEnd(incoming: Incoming, end: IncomingEnd, words: string): void;
}

/** A connection that somebody made to the Raft port: hello, answer, then frames or a snapshot. Whatever comes, no more happens than that it is closed. */
export class Incoming {
  /** HOST:PORT of the dialer's side. */
  readonly remote: string;
  /** Null with clear text. */
  readonly certificate: NodeCertificate | null;
  readonly #socket: Socket;
  readonly #host: IncomingHost;
  readonly #deadline = new Deadline();
  readonly #greeting = new GreetingReader();
  readonly #frames = new FrameReader();
  #alive: NodeJS.Timeout | null = null;
  #expiry: Expiry | null = null;
  #unstand: (() => void) | undefined;
  #hello: Hello | null = null;
  #isTakingSnapshot = false;
  #isOver = false;

  constructor(socket: Socket, host: IncomingHost, remote: string, certificate: NodeCertificate | null) {
    this.#socket = socket;
    this.#host = host;
    this.remote = remote;
    this.certificate = certificate;
    if (certificate !== null) {
      this.#unstand = host.tls?.stand(certificate.certificate, () => this.#end('distrusted', AUTHORITY_GONE));
    }
    this.#deadline.set(host.caps.helloMs, () => this.#end('unspoken', `no hello within ${host.caps.helloMs} ms`));
    socket
      .on('data', (chunk) => this.#handleData(chunk))
      .on('error', (error) => this.#handleLoss(error.message))
      .on('close', () => this.#handleLoss('the dialer closed the connection'));
  }

  /** Null before it was answered with a version. */
  get hello(): Hello | null {
    return this.#hello;
  }

  /** Without an event. */
  close(): void {
    this.#settle();
    this.#socket.destroy();
  }

  /** A snapshot sees it too, and is over only when its receiver is: it may be writing still, and must not meet the next one. */
  #handleLoss(words: string): void {
    if (!this.#isTakingSnapshot) this.#end('lost', words);
  }

  #settle(): void {
    this.#isOver = true;
    this.#deadline.clear();
    if (this.#alive !== null) clearInterval(this.#alive);
    this.#expiry?.clear();
    this.#unstand?.();
  }

  #handleData(chunk: Buffer): void {
    if (this.#isOver) return;
    try {
      if (this.#hello === null) this.#handleGreeting(chunk);
      else this.#handleFrames(this.#hello, chunk);
    } catch (error) {
      this.#endMalformed(error);
    }
  }

  #handleGreeting(chunk: Buffer): void {
    const greeting = this.#greeting.push(chunk);
    if (greeting === null) return;
    if (greeting.rest.length > 0) throw new WireError('MALFORMED', 'bytes behind a hello that was not answered');
    const { greetings, caps } = this.#host;
    const hello = greetings.decodeHello(greeting.body);
    const answer = this.#host.judge(hello, this);
    this.#socket.write(greetings.encodeAnswer(answer));
    if ('refusal' in answer) {
      this.#end('refused', `${answer.refusal.code}: ${answer.refusal.words}`);
      return;
    }
    this.#hello = hello;
    this.#alive = setInterval(() => this.#signalAlive(), caps.aliveEveryMs);
    if (this.certificate !== null) {
      this.#expiry = new Expiry(this.certificate.expiresAtMs, () =>
        this.#end('expired', 'its certificate has expired'),
      );
    }
    if (hello.purpose === 'frames') this.#expectFrames();
    else void this.#takeSnapshot(hello.node);
  }

  #signalAlive(): void {
    if (this.#socket.writableLength < UNREAD_SIGNALS_MAX) this.#socket.write(Buffer.of(Signal.ALIVE));
  }

  #expectFrames(): void {
    const { idleMs } = this.#host.caps;
    this.#deadline.set(idleMs, () => this.#end('silent', `nothing came for ${idleMs} ms`));
  }

  #handleFrames(from: Hello, chunk: Buffer): void {
    this.#deadline.restart();
    this.#frames.push(chunk, (body) => {
      if (this.#isOver) return;
      const frame = this.#host.codec.decode(body);
      this.#checkSender(from.node, frame);
      this.#host.onFrame(from, frame, body.length);
    });
  }

  /** Nobody speaks for others, and nobody is spoken to in another's name. */
  #checkSender(from: NodeId, frame: PeerFrame): void {
    if (frame.kind === 'raft') {
      this.#checkMessage(from, frame.message);
      if (frame.message.type === 'snapshot') throw new WireError('MALFORMED', 'a snapshot among frames');
    } else if (frame.kind === 'member' && frame.member.node !== from) {
      throw new WireError('MALFORMED', 'the row of another member');
    }
  }

  #checkMessage(from: NodeId, message: Message): void {
    if (message.from !== from) throw new WireError('MALFORMED', 'a message in the name of another node');
    if (message.to !== this.#host.node) throw new WireError('MALFORMED', 'a message to another node');
  }

  async #takeSnapshot(from: NodeId): Promise<void> {
    this.#isTakingSnapshot = true;
    this.#deadline.clear();
    this.#socket.removeAllListeners('data').pause();
    try {
      const reason = await takeSnapshot({
        socket: this.#socket,
        codec: this.#host.codec,
        progressMs: this.#host.caps.snapshotProgressMs,
        begin: (message) => {
          this.#checkMessage(from, message);
          return this.#host.beginSnapshot(from, message);
        },
      });
      this.#end(reason === '' ? 'done' : 'not-taken', reason);
    } catch (error) {
      this.#endMalformed(error);
    }
  }

  /** Only what came may be wrong: any other error is a defect of this program, and not caught. */
  #endMalformed(error: unknown): void {
    if (!(error instanceof WireError)) throw error;
    this.#end('malformed', `${error.code}: ${error.message}`);
  }

  #end(end: IncomingEnd, words: string): void {
    if (this.#isOver) return;
    this.#settle();
    // What was written last (a refusal, the fate of a snapshot) goes out first.
    if (end === 'refused' || end === 'done' || end === 'not-taken') this.#socket.destroySoon();
    else this.#socket.destroy();
    this.#host.onEnd(this, end, words);
  }
}

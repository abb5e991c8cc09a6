import { createConnection, Socket } from 'node:net';
import { parseEndpoint } from '../base/endpoint.ts';
import { PROTOCOL_VERSION, PROTOCOL_VERSION_MIN } from '../replica/types.ts';
import type { NetworkCaps } from './caps.ts';
import { Deadline } from './deadline.ts';
import { type GreetingCodec, GreetingReader } from './hello.ts';
import type { Peer, Purpose, Refusal } from './types.ts';
import { WireError } from './wire-error.ts';

/** What all connections that a node dials have in common. */
export interface DialContext {
  readonly clusterId: string;
  readonly node: string;
  readonly instance: string;
  readonly greetings: GreetingCodec;
  readonly caps: NetworkCaps;
}

/** Why a dialed connection is over. */
export interface DialEnd {
  readonly wasOpen: boolean;
  /** What the acceptor said, if that is the reason. */
  readonly refusal: Refusal | null;
  readonly words: string;
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
  #state: 'connecting' | 'greeting' | 'open' | 'over' = 'connecting';

  constructor(peer: Peer, purpose: Purpose, context: DialContext, events: DialEvents) {
    this.#context = context;
    this.#events = events;
    const { caps } = context;
    this.socket = connect(peer.address);
    this.#deadline.set(caps.connectMs, () => this.#end(`no connection within ${caps.connectMs} ms`));
    this.socket
      .on('connect', () => this.#greet(peer, purpose))
      .on('data', (chunk) => this.#handleData(chunk))
      .on('error', (error) => this.#end(error.message === '' ? String(error) : error.message))
      .on('close', () => this.#end('the peer closed the connection'));
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  /** Without an event. */
  close(): void {
    this.#state = 'over';
    this.#deadline.clear();
    this.socket.destroy();
  }

  #greet(peer: Peer, purpose: Purpose): void {
    if (this.#state !== 'connecting') return;
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
    this.#events.onEnd({ wasOpen, refusal, words });
  }
}

/** What is no address fails as one does at which nobody listens: later, by an event. */
function connect(address: string): Socket {
  const endpoint = parseEndpoint(address);
  if (endpoint === null) return new Socket().destroy(new Error(`${address} is not HOST:PORT`));
  return createConnection({ ...endpoint, noDelay: true, keepAlive: true });
}

import { randomBytes } from 'node:crypto';
import { type ChannelCredentials, Client, type ClientDuplexStream, type ServiceError } from '@grpc/grpc-js';
import { encodeHello, encodeKeepalive, type PeerHello, PeerReader } from '../../grpc/peer-codec.ts';
import { CLEAR_TEXT, type PeerCredentials } from '../../grpc/peer-credentials.ts';
import type { Log } from '../../telemetry/log.ts';

export const EXCHANGE_PATH = '/broker.v1.Peer/Exchange';

/** What may wait for a peer that does not drain; what comes then is dropped. */
export const UNSENT_BYTES_MAX = 8 << 20;
/** What gathers while something is being written goes out together, up to this size. */
const MESSAGE_BYTES = 256 << 10;
/** Answers of a peer are hellos. */
const ANSWER_BYTES_MAX = 64 << 10;
/** How long a peer may take to answer the hello, and to take anything of what waits for it, in ms. */
const ANSWER_MS_MAX = 5_000;
const STALL_MS_MAX = 10_000;
/** Something is said at least that often, in ms. */
export const KEEPALIVE_MS = 2_000;
/** Between two attempts, in ms: doubles from one to the other, and is spread by a quarter so that nodes do not try in step. */
const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 2_000;

const identity = (bytes: Buffer): Buffer => bytes;

export interface PeerTarget {
  readonly node: string;
  readonly instance: string;
  /** HOST:PORT of its gRPC port. */
  readonly grpc: string;
}

export interface PeerLinkPort {
  /** Of this node. */
  readonly hello: PeerHello;
  readonly log: Log;
  /** None: clear text. */
  readonly security?: PeerCredentials;
  /** The peer has answered: it knows nothing yet. */
  opened(link: PeerLink): void;
}

/**
 * The call to one other node, made again whenever it ends. What is sent while it is not open, or while too much waits, is dropped: that costs the
 * peer a read of its store.
 */
export class PeerLink {
  readonly target: PeerTarget;
  /** Known to this node, and to whoever is at the address of the peer. */
  readonly challenge = randomBytes(16).toString('hex');
  readonly #port: PeerLinkPort;
  readonly #unsentMax: number;
  #state: 'waiting' | 'dialing' | 'open' | 'stopped' = 'waiting';
  #client: Client | null = null;
  #call: ClientDuplexStream<Buffer, Buffer> | null = null;
  #retryTimer: NodeJS.Timeout | null = null;
  #retryMs = RETRY_MS_MIN;
  /** Counts attempts: what was begun for another one is of no use. */
  #attempt = 0;
  /** Longest message that the peer takes. */
  #messageBytesMax = 0;
  #gathered: Buffer[] = [];
  /** Gathered, or handed to HTTP/2 and not taken by it. */
  #unsentBytes = 0;
  #isWriting = false;
  #isFlushQueued = false;
  /** When the call began, was answered, or took something; and when something was last written. Ms of performance.now(). */
  #movedAt = 0;
  #wroteAt = 0;
  /** The first failure since it was open was told. */
  #isFailureTold = false;

  constructor(target: PeerTarget, port: PeerLinkPort, unsentMax = UNSENT_BYTES_MAX) {
    this.target = target;
    this.#port = port;
    this.#unsentMax = unsentMax;
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  get unsentBytes(): number {
    return this.#unsentBytes;
  }

  start(): void {
    if (this.#state === 'waiting' && this.#retryTimer === null) this.#dial();
  }

  /** What the peer has shown may be good no more: it has to show it again. */
  dialAnew(why: string): void {
    if (this.#state === 'open' || this.#state === 'dialing') this.#fail(why);
  }

  stop(): void {
    this.#hangUp();
    this.#state = 'stopped';
    if (this.#retryTimer !== null) clearTimeout(this.#retryTimer);
  }

  /** Takes a part of a message (src/grpc/peer-codec.ts); it must not change afterwards. False: it is dropped. */
  trySend(part: Buffer): boolean {
    if (this.#state !== 'open' || part.length > this.#messageBytesMax) return false;
    if (this.#unsentBytes > 0 && this.#unsentBytes + part.length > this.#unsentMax) return false;
    this.#gathered.push(part);
    this.#unsentBytes += part.length;
    if (!this.#isWriting && !this.#isFlushQueued) {
      this.#isFlushQueued = true;
      setImmediate(this.#flush);
    }
    return true;
  }

  /** What the peer must not miss: where there is no room the call is given up, and the next one begins with the whole. */
  send(part: Buffer): void {
    if (this.#state === 'open' && !this.trySend(part)) this.#fail('it does not take what it is sent');
  }

  /** About once a second. */
  tick(now: number): void {
    if (this.#state === 'dialing') {
      if (now - this.#movedAt >= ANSWER_MS_MAX) this.#fail('it does not answer the hello');
    } else if (this.#state === 'open') {
      if (this.#unsentBytes > 0 && now - this.#movedAt >= STALL_MS_MAX) this.#fail('it takes nothing');
      else if (this.#unsentBytes === 0 && now - this.#wroteAt >= KEEPALIVE_MS) this.trySend(encodeKeepalive());
    }
  }

  #dial(): void {
    this.#retryTimer = null;
    this.#state = 'dialing';
    this.#movedAt = performance.now();
    this.#attempt += 1;
    const attempt = this.#attempt;
    const { node, grpc } = this.target;
    const { security = CLEAR_TEXT } = this.#port;
    security.to(grpc, node).then(
      (credentials) => {
        if (this.#state === 'dialing' && this.#attempt === attempt) this.#beginCall(credentials, security);
      },
      (error: unknown) => {
        if (this.#state === 'dialing' && this.#attempt === attempt) this.#fail(String(error));
      },
    );
  }

  #beginCall(credentials: ChannelCredentials, security: PeerCredentials): void {
    // A channel of grpc-js waits by rules of its own before it connects again: each attempt has a new one.
    const client = new Client(this.target.grpc, credentials, {
      ...security.channelOptions,
      'grpc.use_local_subchannel_pool': 1,
      // It would keep what was written for a second attempt.
      'grpc.enable_retries': 0,
      'grpc.enable_channelz': 0,
      'grpc.enable_http_proxy': 0,
      'grpc.max_receive_message_length': ANSWER_BYTES_MAX,
      'grpc.max_send_message_length': -1,
      'grpc.keepalive_time_ms': 5_000,
      'grpc.keepalive_timeout_ms': 5_000,
    });
    const call = client.makeBidiStreamRequest(EXCHANGE_PATH, identity, identity);
    this.#client = client;
    this.#call = call;
    const reader = new PeerReader();
    const ignore = (): void => undefined;
    const parts = {
      hello: (hello: PeerHello) => this.#answered(call, hello),
      interest: ignore,
      batch: ignore,
      broadcast: ignore,
      proof: ignore,
    };
    call.on('data', (message: Buffer) => {
      if (this.#call === call && !reader.read(message, parts)) this.#fail('its answer is malformed');
    });
    call.on('error', ({ details, message }: ServiceError) => {
      if (this.#call === call) this.#fail(details || message);
    });
    call.on('end', () => {
      if (this.#call === call) this.#fail('it has ended the call');
    });
    call.write(encodeHello({ ...this.#port.hello, challenge: this.challenge }));
  }

  #answered(call: ClientDuplexStream<Buffer, Buffer>, hello: PeerHello): void {
    if (this.#call !== call || this.#state !== 'dialing') return;
    const { node, instance, grpc } = this.target;
    const { clusterId } = this.#port.hello;
    if (hello.clusterId !== clusterId || hello.nodeId !== node || hello.instanceId !== instance) {
      this.#fail(`node ${hello.nodeId} of cluster ${hello.clusterId} answers there`);
      return;
    }
    this.#state = 'open';
    this.#messageBytesMax = hello.messageBytesMax;
    this.#retryMs = RETRY_MS_MIN;
    this.#isFailureTold = false;
    this.#movedAt = this.#wroteAt = performance.now();
    this.#port.log.info('messages for a peer go to it', { peer: node, address: grpc });
    this.#port.opened(this);
  }

  readonly #flush = (): void => {
    this.#isFlushQueued = false;
    const call = this.#call;
    if (call === null || this.#isWriting || this.#gathered.length === 0) return;
    const message = this.#takeMessage();
    this.#isWriting = true;
    this.#wroteAt = performance.now();
    // One at a time: what comes meanwhile gathers, and goes out with the next.
    call.write(message, () => {
      if (this.#call !== call) return;
      this.#isWriting = false;
      this.#unsentBytes -= message.length;
      this.#movedAt = performance.now();
      this.#flush();
    });
  };

  #takeMessage(): Buffer {
    const gathered = this.#gathered;
    const bytesMax = Math.min(MESSAGE_BYTES, this.#messageBytesMax);
    let bytes = (gathered[0] as Buffer).length;
    let parts = 1;
    while (parts < gathered.length && bytes + (gathered[parts] as Buffer).length <= bytesMax) {
      bytes += (gathered[parts] as Buffer).length;
      parts += 1;
    }
    const taken = gathered.splice(0, parts);
    return parts === 1 ? (taken[0] as Buffer) : Buffer.concat(taken, bytes);
  }

  #fail(why: string): void {
    const { node, grpc } = this.target;
    if (!this.#isFailureTold) {
      this.#isFailureTold = true;
      this.#port.log.warn('a peer is not reached; it reads from the store meanwhile', {
        peer: node,
        address: grpc,
        error: why,
      });
    }
    this.#hangUp();
    this.#state = 'waiting';
    const waitMs = this.#retryMs * (0.75 + Math.random() / 2);
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS_MAX);
    this.#retryTimer = setTimeout(() => this.#dial(), waitMs);
  }

  #hangUp(): void {
    const call = this.#call;
    this.#call = null;
    call?.cancel();
    this.#client?.close();
    this.#client = null;
    this.#gathered = [];
    this.#unsentBytes = 0;
    this.#isWriting = false;
    if (this.#state === 'open') this.#movedAt = performance.now();
  }
}

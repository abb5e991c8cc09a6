import { type DialContext, type DialEnd, Dialed } from './dialed.ts';
import type { NetworkLog, Peer, PeerCounters, PeerEvents } from './types.ts';

type OutgoingEvents = Pick<PeerEvents, 'onUnreachable' | 'onRefused'>;

/** Keeps one connection for frames to a peer, dialing again and again, and writes on it. */
export class OutgoingPeer {
  readonly peer: Peer;
  readonly #context: DialContext;
  readonly #events: OutgoingEvents;
  readonly #log: NetworkLog;
  readonly #counters: PeerCounters;
  #dialed: Dialed;
  #retry: NodeJS.Timeout | null = null;
  #isCorked = false;
  #failures = 0;
  #opens = 0;
  /** performance.now() of the last opening. */
  #openedAt = 0;
  /** The last failure that was told, since the last opening; '' for none. */
  #told = '';

  constructor(peer: Peer, context: DialContext, events: OutgoingEvents, log: NetworkLog, counters: PeerCounters) {
    this.peer = peer;
    this.#context = context;
    this.#events = events;
    this.#log = log;
    this.#counters = counters;
    this.#dialed = this.#dial();
  }

  get isOpen(): boolean {
    return this.#dialed.isOpen;
  }

  /** Whether a frame would be written: connected, and not too much unsent. */
  get hasRoom(): boolean {
    return this.#dialed.isOpen && this.#dialed.socket.writableLength < this.#context.caps.unsentBytesMax;
  }

  /** Together with everything else of this turn of the event loop. Only while `hasRoom`. */
  write(frame: Buffer): void {
    const { socket } = this.#dialed;
    if (!this.#isCorked) {
      this.#isCorked = true;
      socket.cork();
      process.nextTick(() => {
        this.#isCorked = false;
        socket.uncork();
      });
    }
    socket.write(frame);
    this.#counters.framesOut += 1;
    this.#counters.bytesOut += frame.length;
  }

  /** Without an event. */
  close(): void {
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#dialed.close();
  }

  #dial(): Dialed {
    return new Dialed(this.peer, 'frames', this.#context, {
      onOpen: () => this.#handleOpen(),
      // Anything that comes is a sign of life, and nothing else is said on a connection for frames.
      onSignal: () => undefined,
      onEnd: (end) => this.#handleEnd(end),
    });
  }

  #handleOpen(): void {
    this.#openedAt = performance.now();
    this.#opens += 1;
    if (this.#opens > 1) this.#counters.reconnects += 1;
    this.#told = '';
    this.#log.info('connected to a peer', { peer: this.peer.node, address: this.peer.address });
  }

  #handleEnd(end: DialEnd): void {
    const { caps } = this.#context;
    // One that opens and ends at once is tried as seldom as one that does not open.
    if (end.wasOpen && performance.now() - this.#openedAt > caps.backoffMsMax) this.#failures = 0;
    const whole = Math.min(caps.backoffMsMax, caps.backoffMsMin * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    this.#retry = setTimeout(
      () => {
        this.#dialed = this.#dial();
      },
      whole * (0.5 + Math.random() / 2),
    );
    this.#maybeTell(end);
  }

  #maybeTell({ wasOpen, refusal, words }: DialEnd): void {
    const reason = refusal === null ? words : `${refusal.code}: ${words}`;
    const isFirst = this.#told === '';
    if (reason === this.#told) return;
    this.#told = reason;
    const message = wasOpen ? 'lost the connection to a peer' : 'cannot connect to a peer';
    this.#log.warn(message, { peer: this.peer.node, address: this.peer.address, reason });
    if (isFirst) this.#events.onUnreachable(this.peer.node);
    if (refusal !== null) this.#events.onRefused(this.peer.node, refusal);
  }
}

import { type DialContext, type DialEnd, Dialed } from './dialed.ts';
import type { NetworkLog, Peer, PeerCounters, PeerEvents } from './types.ts';

type OutgoingEvents = Pick<PeerEvents, 'onUnreachable' | 'onRefused'>;

/**
 * Keeps one connection for frames to a peer, dialing again and again, and writes on it. A rumour of another address is tried in turn with the peer's own one,
 * and only while there is no connection: it may be wrong, and must not cut off a peer that is well where it is (G1, G4).
 */
export class OutgoingPeer {
  #peer: Peer;
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
  /** Where it may be by now; null: nobody says so. */
  #rumour: string | null;
  /** It did not understand TLS, which is optional: the next attempt is in clear text, and the one after that is not. */
  #isClear = false;
  /** The one that is dialed, or was last. */
  #address: string;
  /** The last failure that was told of the peer's own address, and of another one, since the last opening; '' for none. */
  readonly #told = { own: '', rumour: '' };

  constructor(peer: Peer, context: DialContext, events: OutgoingEvents, log: NetworkLog, counters: PeerCounters) {
    this.#peer = peer;
    this.#rumour = peer.rumour ?? null;
    this.#context = context;
    this.#events = events;
    this.#log = log;
    this.#counters = counters;
    this.#address = peer.address;
    this.#dialed = this.#dial();
  }

  /** The peer, at the address where it was dialed last. */
  get dialed(): Peer {
    return { ...this.#peer, address: this.#address, isClear: this.#isClear };
  }

  /** Whether this is the same peer as before: an address at which it is connected already is no news. */
  isOf({ address, instance }: Peer): boolean {
    if (instance !== this.#peer.instance) return false;
    return address === this.#peer.address || (this.isOpen && address === this.#address);
  }

  /** The same peer (`isOf`), with what is known of it by now. What changed counts from the next attempt on, if one is needed. */
  follow(peer: Peer): void {
    this.#peer = peer;
    this.#rumour = peer.rumour ?? null;
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
    // The first attempt after a connection was lost, and every other one.
    this.#address = this.#failures % 2 === 0 ? this.#peer.address : (this.#rumour ?? this.#peer.address);
    return new Dialed(this.dialed, 'frames', this.#context, {
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
    this.#told.own = '';
    this.#told.rumour = '';
    this.#log.info('connected to a peer', { peer: this.#peer.node, address: this.#address });
  }

  #handleEnd(end: DialEnd): void {
    const { caps } = this.#context;
    // One that opens and ends at once is tried as seldom as one that does not open.
    if (end.wasOpen && performance.now() - this.#openedAt > caps.backoffMsMax) this.#failures = 0;
    this.#isClear = end.isUnsecured && this.#context.tls?.isOptional === true;
    const whole = Math.min(caps.backoffMsMax, caps.backoffMsMin * 2 ** Math.min(this.#failures, 30));
    // At the same address in clear text, before another one is tried.
    if (!this.#isClear) this.#failures += 1;
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
    const isFirst = this.#told.own === '' && this.#told.rumour === '';
    const which = this.#address === this.#peer.address ? 'own' : 'rumour';
    if (reason === this.#told[which]) return;
    this.#told[which] = reason;
    const message = wasOpen ? 'lost the connection to a peer' : 'cannot connect to a peer';
    this.#log.warn(message, { peer: this.#peer.node, address: this.#address, reason });
    if (isFirst) this.#events.onUnreachable(this.#peer.node);
    if (refusal !== null) this.#events.onRefused(this.#peer.node, refusal);
  }
}

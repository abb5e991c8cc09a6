/** A tick that comes later than this, in ms, was kept waiting by other work of the thread. */
const LATE_MS = 100;
/** How long packets that wait may put off a late tick, in ms. libuv reads 32 of them a turn. */
const DRAIN_MS_MAX = 1_000;

export interface TickTimerPort {
  /** When a tick is wanted, by `performance.now()`. */
  nextAt(): number;
  tick(now: number): void;
  /** Packets that came so far. */
  packetsIn(): number;
}

/**
 * The one timer of gossip. A thread that stood still finds its timers due before it looks at its sockets; whoever answered meanwhile must not be judged
 * silent, so what waits in the sockets is read first: always one look at them, and as many as there is something to read when the tick is late.
 */
export class TickTimer {
  readonly #port: TickTimerPort;
  #timer: NodeJS.Timeout | null = null;
  #immediate: NodeJS.Immediate | null = null;
  #wantedAt = Number.POSITIVE_INFINITY;
  #isStopped = false;

  constructor(port: TickTimerPort) {
    this.#port = port;
  }

  /** What is wanted next may have changed. */
  arm(): void {
    // On its way: it arms when it has ticked.
    if (this.#isStopped || this.#immediate !== null) return;
    const at = this.#port.nextAt();
    if (this.#timer !== null && at >= this.#wantedAt) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#wantedAt = at;
    this.#timer = setTimeout(() => this.#due(), Math.max(0, Math.ceil(at - performance.now())));
  }

  stop(): void {
    this.#isStopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#immediate !== null) clearImmediate(this.#immediate);
    this.#timer = null;
    this.#immediate = null;
  }

  #due(): void {
    this.#timer = null;
    const now = performance.now();
    this.#drain(now - this.#wantedAt > LATE_MS ? now + DRAIN_MS_MAX : now);
  }

  /** Immediates come after the poll for input, timers before it. */
  #drain(until: number): void {
    const before = this.#port.packetsIn();
    this.#immediate = setImmediate(() => {
      const now = performance.now();
      if (this.#port.packetsIn() !== before && now < until) {
        this.#drain(until);
        return;
      }
      this.#immediate = null;
      this.#port.tick(now);
      this.arm();
    });
  }
}

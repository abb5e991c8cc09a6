import type { Http2Session } from 'node:http2';

/** Signatures of tokens that are verified at one time: they run on threads that the disk needs, too. */
const RUNNING_MAX = 2;
/** That wait for their turn. */
const WAITING_MAX = 256;
/** New tokens of one connection that are verified at once, and each second. Those that are known cost nothing. */
const BURST = 100;
const PER_SECOND = 50;

interface Allowance {
  tokens: number;
  at: number;
}

/** Bounds what tokens that nobody has seen before may cost. */
export class Verifications {
  readonly #bySession = new WeakMap<Http2Session, Allowance>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  /** Whether a connection may have one more verified now (ms of performance.now()). */
  tryBegin(session: Http2Session | undefined, now: number): boolean {
    if (this.#waiting.length >= WAITING_MAX || session === undefined) return false;
    const allowance = this.#bySession.get(session) ?? { tokens: BURST, at: now };
    this.#bySession.set(session, allowance);
    allowance.tokens = Math.min(BURST, allowance.tokens + ((now - allowance.at) / 1_000) * PER_SECOND);
    allowance.at = now;
    if (allowance.tokens < 1) return false;
    allowance.tokens -= 1;
    return true;
  }

  /** Runs `work` when it is its turn, in the order of the calls. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= RUNNING_MAX) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running += 1;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }
}

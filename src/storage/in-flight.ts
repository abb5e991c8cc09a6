import { BrokerError } from '../base/errors.ts';

/** Lets at most `limit` tasks run at one time; the others wait in order. */
export class InFlight {
  readonly #limit: number;
  readonly #waitingMax: number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  /** Beyond `waitingMax` tasks that wait, more are refused with QUEUE_FULL. */
  constructor(limit: number, waitingMax = Number.POSITIVE_INFINITY) {
    this.#limit = limit;
    this.#waitingMax = waitingMax;
  }

  async run<T>(task: () => T | Promise<T>): Promise<T> {
    if (this.#running < this.#limit) this.#running += 1;
    else if (this.#waiting.length >= this.#waitingMax) throw new BrokerError('QUEUE_FULL');
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await task();
    } finally {
      // The place goes to the next in line, so nobody overtakes it.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }
}

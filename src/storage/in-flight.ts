import { BrokerError } from '../base/errors.ts';

/** How much may wait, and for how many ms: what comes to its turn later is refused too, since it would only meet what those before it met. */
export interface WaitBounds {
  readonly tasks: number;
  readonly ms: number;
}

const UNBOUNDED: WaitBounds = { tasks: Number.POSITIVE_INFINITY, ms: Number.POSITIVE_INFINITY };

/** Lets at most `limit` tasks run at one time; the others wait in order. */
export class InFlight {
  readonly #limit: number;
  readonly #bounds: WaitBounds;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  /** Beyond the bounds tasks are refused with QUEUE_FULL or OVERLOADED, and do not run. */
  constructor(limit: number, bounds = UNBOUNDED) {
    this.#limit = limit;
    this.#bounds = bounds;
  }

  /** Tasks that wait for their turn. */
  get waiting(): number {
    return this.#waiting.length;
  }

  async run<T>(task: () => T | Promise<T>): Promise<T> {
    let isLate = false;
    if (this.#running < this.#limit) this.#running += 1;
    else if (this.#waiting.length >= this.#bounds.tasks) throw new BrokerError('QUEUE_FULL');
    else {
      const since = performance.now();
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
      isLate = performance.now() - since > this.#bounds.ms;
    }
    try {
      if (isLate) throw new BrokerError('OVERLOADED');
      return await task();
    } finally {
      // The place goes to the next in line, so nobody overtakes it.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }
}

/** Ticks of an open loop, from a thread that sleeps (ticker.ts): the timers of an event loop are too coarse for it. */
import { Worker } from 'node:worker_threads';

const TICK_MS = 0.25;

export class Pacer {
  readonly #view = new Int32Array(new SharedArrayBuffer(8));
  readonly #ticker: Worker;
  readonly #onTick: () => void;
  #stopped = false;

  constructor(onTick: () => void) {
    this.#onTick = onTick;
    const workerData = { cells: this.#view.buffer, intervalMs: TICK_MS };
    this.#ticker = new Worker(new URL('./ticker.ts', import.meta.url), { workerData });
    this.#wait();
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    Atomics.store(this.#view, 1, 1);
    Atomics.notify(this.#view, 1);
    void this.#ticker.terminate();
  }

  #wait(): void {
    const waiting = Atomics.waitAsync(this.#view, 0, Atomics.load(this.#view, 0));
    if (waiting.async) void waiting.value.then(() => this.#tick());
    else setImmediate(() => this.#tick());
  }

  #tick(): void {
    if (this.#stopped) return;
    this.#onTick();
    this.#wait();
  }
}

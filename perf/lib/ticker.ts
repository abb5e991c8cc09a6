/**
 * A thread that only sleeps: timers of an event loop are 1 ms coarse and late under load, a blocked thread wakes within some 60 us. Each
 * tick adds 1 to the first cell and wakes who waits for it. A second cell other than 0 ends the thread.
 */
import { workerData } from 'node:worker_threads';

const { cells, intervalMs } = workerData as { cells: SharedArrayBuffer; intervalMs: number };
const view = new Int32Array(cells);

for (let due = performance.now() + intervalMs; Atomics.load(view, 1) === 0; due += intervalMs) {
  const rest = due - performance.now();
  if (rest > 0) Atomics.wait(view, 1, 0, rest);
  Atomics.add(view, 0, 1);
  Atomics.notify(view, 0);
}

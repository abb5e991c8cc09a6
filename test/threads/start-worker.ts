import { once } from 'node:events';
import type { TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { Doorbell, type StopSignal } from '../../src/shm/doorbell.ts';
import type { Task } from './ring-worker.ts';

/**
 * A worker with this task, ended with the test, also when it fails. Its errors are the test's: awaiting `once(worker,
 * …)` rejects on 'error'.
 */
export function startWorker(t: TestContext, task: Task): Worker {
  const worker = new Worker(new URL('./ring-worker.ts', import.meta.url), { workerData: task });
  t.after(() => worker.terminate());
  return worker;
}

const HOUR_MS = 3_600_000;

/**
 * From here on the doorbells of this thread look at their rings when they are rung and never by themselves: a wake-up that is lost is then
 * a test that does not end, not one that takes a second more or less. A timer stays, which keeps a parked thread alive.
 */
export function withoutInsurance(): void {
  const start = globalThis.setInterval;
  globalThis.setInterval = ((work: () => void) => start(work, HOUR_MS)) as typeof setInterval;
}

/** Runs `work` on a doorbell until it sets `signal.stopped`; a test that times out or fails leaves nothing running. */
export function runOwner(
  t: TestContext,
  buffer: SharedArrayBuffer,
  work: () => number,
  signal: StopSignal,
): Promise<void> {
  const bell = new Doorbell(buffer);
  t.after(() => {
    signal.stopped = true;
    bell.poke();
  });
  return bell.run(work, signal);
}

/** Waits for one message with this content. */
export async function messageOf(worker: Worker, content: string): Promise<void> {
  for (;;) {
    const [message] = (await once(worker, 'message')) as [unknown];
    if (message === content) return;
  }
}

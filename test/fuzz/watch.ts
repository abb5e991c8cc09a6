/** Starts threads that fuzz and ends those that never come back. */
import { Worker } from 'node:worker_threads';
import type { FuzzResult } from './engine.ts';
import type { FuzzJob, FuzzNews } from './fuzz-thread.ts';
import { Mirror } from './mirror.ts';
import type { FuzzTarget } from './target.ts';

const REGISTRY = new URL('./targets/all.ts', import.meta.url).href;
/** An input under way for so long is endless: far more than the slowest thread of a crowded machine stands still. */
const ENDLESS_MS = 10_000;
const LOOK_MS = 100;

/** All that a registry has, as this thread loads it: without marks at branches. */
export async function targetsOf(registry = REGISTRY): Promise<readonly FuzzTarget[]> {
  return ((await import(registry)) as { readonly TARGETS: readonly FuzzTarget[] }).TARGETS;
}

export interface FuzzPlan {
  readonly targets: readonly string[];
  /** `short`: as many runs as each target wants in `npm test`. */
  readonly options: FuzzJob['options'];
  /** Module with the targets; default: the broker's. */
  readonly registry?: string;
  readonly inputs?: readonly Uint8Array[];
  readonly endlessMs?: number;
  readonly onProgress?: (target: string, run: number) => void;
}

/** Results by target. Those behind one that never ended, or that ended its thread, are missing. */
export async function fuzzInThread(plan: FuzzPlan): Promise<Map<string, FuzzResult>> {
  const { targets, options, registry = REGISTRY, inputs, endlessMs = ENDLESS_MS, onProgress } = plan;
  const memory = new SharedArrayBuffer(Mirror.BYTES);
  const mirror = new Mirror(memory);
  const results = new Map<string, FuzzResult>();
  const workerData: FuzzJob = { registry, targets, memory, options, ...(inputs === undefined ? {} : { inputs }) };
  const worker = new Worker(new URL('./fuzz-thread.ts', import.meta.url), { workerData });
  const began = performance.now();
  const lost = (kind: 'endless' | 'threw', detail: string): void => {
    const failure = { kind, detail, input: mirror.input, run: mirror.run };
    const seconds = (performance.now() - began) / 1_000;
    const none = { accepted: 0, slowestMs: 0, dearestBytes: 0, reached: 0, corpus: [] };
    results.set(targets[mirror.target] as string, { ...none, runs: mirror.run, seconds, failures: [failure] });
  };
  await new Promise<void>((resolve, reject) => {
    let [seen, seenAt] = [0, performance.now()];
    const timer = setInterval(() => {
      const now = performance.now();
      onProgress?.(targets[mirror.target] as string, mirror.run);
      if (mirror.begun !== seen) [seen, seenAt] = [mirror.begun, now];
      if (seen === 0 || now - seenAt < endlessMs) return;
      clearInterval(timer);
      lost('endless', `not done after ${endlessMs} ms`);
      void worker.terminate();
    }, LOOK_MS);
    worker.on('message', ({ target, result }: FuzzNews) => results.set(target, result));
    worker.on('error', (error) => {
      // Before the first input it is a defect of the harness.
      if (mirror.begun === 0) reject(error);
      else lost('threw', `ended its thread: ${error instanceof Error ? error.stack : String(error)}`);
    });
    worker.on('exit', () => {
      clearInterval(timer);
      resolve();
    });
  });
  return results;
}

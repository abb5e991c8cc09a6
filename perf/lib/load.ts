/** Runs a load in generator threads and measures what it costs the server meanwhile. */
import { Worker } from 'node:worker_threads';
import type { Frames } from './frames.ts';
import { type Latency, summarize } from './histogram.ts';
import { costBetween, type ServerCost, sampleProcess } from './process.ts';
import type { ClientKind } from './transport.ts';

export type LoadMode =
  | { readonly kind: 'closed' }
  | { readonly kind: 'open'; readonly callsPerSecond: number }
  /** Ends after so many answered calls; refused ones are tried again. */
  | { readonly kind: 'fill'; readonly calls: number };

export interface Load {
  readonly address: string;
  /** The server, for its CPU time. */
  readonly pid: number;
  /** gRPC path of the method. */
  readonly path: string;
  readonly frames: Frames;
  readonly mode: LoadMode;
  readonly connections: number;
  /** Calls at one time; for an open loop the most that may be unanswered. */
  readonly inFlight: number;
  readonly warmupMs: number;
  readonly durationMs: number;
  readonly threads: number;
  readonly client: ClientKind;
  /** Number of the first call: what a former load began with plus what it sent, to go on where it stopped. */
  readonly firstCall?: number;
  readonly onProgress?: (calls: number) => void;
}

export interface GeneratorTask extends Omit<Load, 'pid' | 'threads' | 'onProgress' | 'firstCall'> {
  readonly firstCall: number;
}

export interface GeneratorResult {
  readonly calls: number;
  readonly seconds: number;
  /** By gRPC status number. */
  readonly errors: Readonly<Record<string, number>>;
  readonly histogram: string;
  readonly sendLag: string;
}

export type FromGenerator =
  | { readonly kind: 'measuring' }
  | { readonly kind: 'progress'; readonly calls: number }
  | { readonly kind: 'measured'; readonly result: GeneratorResult }
  | { readonly kind: 'drained' }
  | { readonly kind: 'failed'; readonly why: string };

export interface LoadResult {
  readonly calls: number;
  readonly seconds: number;
  readonly callsPerSecond: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly latency: Latency;
  /** Open loop: how late the generator itself sent. */
  readonly sendLag: Latency;
  readonly cost: ServerCost;
}

export async function runLoad(load: Load): Promise<LoadResult> {
  const { pid, threads, onProgress, ...rest } = load;
  let before = sampleProcess(pid);
  let after = before;
  let measuring = 0;
  let measured = 0;
  const progress = new Array<number>(threads).fill(0);
  const results = await Promise.all(
    Array.from({ length: threads }, (_, index) => {
      const task = shareOf({ ...rest, firstCall: load.firstCall ?? 0 }, index, threads);
      return runGenerator(task, (message) => {
        if (message.kind === 'measuring' && ++measuring === threads) before = sampleProcess(pid);
        if (message.kind === 'measured' && ++measured === 1) after = sampleProcess(pid);
        if (message.kind === 'progress') {
          progress[index] = message.calls;
          onProgress?.(progress.reduce((sum, calls) => sum + calls, 0));
        }
      });
    }),
  );
  const calls = results.reduce((sum, result) => sum + result.calls, 0);
  return {
    calls,
    seconds: Math.max(...results.map((result) => result.seconds)),
    callsPerSecond: results.reduce((sum, result) => sum + result.calls / result.seconds, 0),
    errors: mergeErrors(results),
    latency: summarize(results.map((result) => result.histogram)),
    sendLag: summarize(results.map((result) => result.sendLag)),
    cost: costBetween(before, after, calls),
  };
}

/** A thread's part of connections, calls in flight and rate; calls are numbered in blocks so that subjects stay evenly used. */
function shareOf(task: GeneratorTask, index: number, threads: number): GeneratorTask {
  if (threads === 1) return task;
  const part = (total: number): number => Math.floor(total / threads) + (index < total % threads ? 1 : 0);
  const { mode } = task;
  const shares = { connections: Math.max(1, part(task.connections)), inFlight: Math.max(1, part(task.inFlight)) };
  if (mode.kind === 'closed') return { ...task, ...shares };
  if (mode.kind === 'open') {
    return { ...task, ...shares, mode: { kind: 'open', callsPerSecond: mode.callsPerSecond / threads } };
  }
  const before = Array.from(
    { length: index },
    (_, other) => Math.floor(mode.calls / threads) + (other < mode.calls % threads ? 1 : 0),
  );
  const firstCall = task.firstCall + before.reduce((sum, calls) => sum + calls, 0);
  return { ...task, ...shares, firstCall, mode: { kind: 'fill', calls: part(mode.calls) } };
}

function runGenerator(task: GeneratorTask, onMessage: (message: FromGenerator) => void): Promise<GeneratorResult> {
  return runThread<FromGenerator, GeneratorResult>(new URL('./generator.ts', import.meta.url), task, onMessage);
}

/** Starts a generator thread; resolves with its result when it has ended. */
export function runThread<
  Message extends { readonly kind: string } & Partial<{ readonly result: Result; readonly why: string }>,
  Result,
>(entry: URL, task: object, onMessage: (message: Message) => void): Promise<Result> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(entry, { workerData: task });
    let result: Result | undefined;
    worker.on('message', (message: Message) => {
      onMessage(message);
      if (message.kind === 'measured') result = message.result;
      if (message.kind === 'drained') void worker.terminate();
      if (message.kind === 'failed') {
        void worker.terminate();
        reject(new Error(`the generator lost its connection: ${message.why}`));
      }
    });
    worker.on('error', reject);
    worker.on('exit', () => {
      if (result === undefined) reject(new Error('the generator ended without a result'));
      else resolve(result);
    });
  });
}

export function mergeErrors(
  results: readonly { readonly errors: Readonly<Record<string, number>> }[],
): Record<string, number> {
  const merged: Record<string, number> = {};
  for (const { errors } of results) {
    for (const [code, count] of Object.entries(errors)) merged[code] = (merged[code] ?? 0) + count;
  }
  return merged;
}

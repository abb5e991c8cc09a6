/** Runs a load in generator threads and measures what it costs the server meanwhile. */
import { Worker } from 'node:worker_threads';
import type { Frames } from './frames.ts';
import { corrected, type Latency, summarize } from './histogram.ts';
import { costBetween, type ProcessTrace, ProcessWatch, type ServerCost, sampleProcess } from './process.ts';
import { divide, type Schedule } from './rates.ts';
import { mergeTimelines, TIMELINE_STEP_MS, type Timeline } from './timeline.ts';
import type { ClientKind } from './transport.ts';

export type LoadMode =
  | { readonly kind: 'closed' }
  | { readonly kind: 'open'; readonly schedule: Schedule }
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
  /** From when a call was due (open loop) or sent, and always from when it was sent. */
  readonly histogram: string;
  readonly rawHistogram: string;
  readonly sendLag: string;
  readonly timeline: Timeline;
  /** Share of the measured time that the generator's event loop was busy. */
  readonly busy: number;
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
  /** Raw of a closed loop; from the due time of an open one. */
  readonly latency: Latency;
  readonly latencyRaw: Latency;
  /** Without coordinated omission: from the due time of an open loop; of a closed one as HdrHistogram corrects it. */
  readonly latencyCorrected: Latency;
  readonly histograms: readonly string[];
  readonly timeline: Timeline;
  readonly watch: ProcessTrace;
  readonly generatorBusy: number;
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
  const watch = new ProcessWatch(pid, TIMELINE_STEP_MS);
  const progress = new Array<number>(threads).fill(0);
  const results = await Promise.all(
    Array.from({ length: threads }, (_, index) => {
      const task = shareOf({ ...rest, firstCall: load.firstCall ?? 0 }, index, threads);
      return runGenerator(task, (message) => {
        if (message.kind === 'measuring' && ++measuring === threads) {
          before = sampleProcess(pid);
          watch.start();
        }
        if (message.kind === 'measured' && ++measured === 1) after = sampleProcess(pid);
        if (message.kind === 'progress') {
          progress[index] = message.calls;
          onProgress?.(progress.reduce((sum, calls) => sum + calls, 0));
        }
      });
    }),
  ).finally(() => watch.stop());
  const calls = results.reduce((sum, result) => sum + result.calls, 0);
  const seconds = Math.max(...results.map((result) => result.seconds));
  const histograms = results.map((result) => result.histogram);
  const raw = results.map((result) => result.rawHistogram);
  const latency = summarize(histograms);
  const intervalMs = (load.inFlight * seconds * 1_000) / Math.max(1, calls);
  return {
    calls,
    seconds,
    callsPerSecond: results.reduce((sum, result) => sum + result.calls / result.seconds, 0),
    errors: mergeErrors(results),
    latency,
    latencyRaw: summarize(raw),
    latencyCorrected: load.mode.kind === 'open' ? latency : corrected(raw, intervalMs),
    histograms,
    timeline: mergeTimelines(results.map((result) => result.timeline)),
    watch: watch.stop(),
    generatorBusy: Math.max(...results.map((result) => result.busy)),
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
    return { ...task, ...shares, mode: { kind: 'open', schedule: divide(mode.schedule, threads) } };
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

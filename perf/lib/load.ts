/** Runs a load in generator threads and measures what it costs the server meanwhile. */
import type { Frames } from './frames.ts';
import {
  type FromThread,
  measureThreads,
  shareOf,
  summarizeThreads,
  type ThreadCounts,
  type ThreadsResult,
} from './generator-threads.ts';
import { costBetween, type ProcessTrace, type ServerCost } from './process.ts';
import { divide, type Schedule } from './rates.ts';
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
  /** Bearer token of the calls, of the raw client alone. */
  readonly token?: string;
  /** Number of the first call: what a former load began with plus what it sent, to go on where it stopped. */
  readonly firstCall?: number;
  readonly onProgress?: (calls: number) => void;
}

export interface GeneratorTask extends Omit<Load, 'pid' | 'threads' | 'onProgress' | 'firstCall'> {
  readonly firstCall: number;
}

export interface GeneratorResult extends ThreadCounts {
  readonly calls: number;
}

export type FromGenerator = FromThread<GeneratorResult> | { readonly kind: 'progress'; readonly calls: number };

/** Errors are by gRPC status number. */
export interface LoadResult extends ThreadsResult {
  readonly calls: number;
  readonly callsPerSecond: number;
  readonly watch: ProcessTrace;
  readonly cost: ServerCost;
}

export async function runLoad(load: Load): Promise<LoadResult> {
  const { pid, threads, onProgress, ...rest } = load;
  const progress = new Array<number>(threads).fill(0);
  const task = { ...rest, firstCall: load.firstCall ?? 0 };
  const { results, before, after, watch } = await measureThreads<FromGenerator, GeneratorResult>({
    entry: new URL('./generator.ts', import.meta.url),
    tasks: progress.map((_, index) => taskOf(task, index, threads)),
    pid,
    onMessage: (message, thread) => {
      if (message.kind !== 'progress') return;
      progress[thread] = message.calls;
      onProgress?.(progress.reduce((sum, calls) => sum + calls, 0));
    },
  });
  const calls = results.reduce((sum, result) => sum + result.calls, 0);
  const inFlightMax = load.mode.kind === 'open' ? null : load.inFlight;
  return {
    ...summarizeThreads(results, { inFlightMax, answered: calls }),
    calls,
    callsPerSecond: results.reduce((sum, result) => sum + result.calls / result.seconds, 0),
    watch,
    cost: costBetween(before, after, calls),
  };
}

/** A thread's part of connections, calls in flight and rate; calls are numbered in blocks so that subjects stay evenly used. */
function taskOf(task: GeneratorTask, index: number, threads: number): GeneratorTask {
  if (threads === 1) return task;
  const part = (total: number): number => shareOf(total, index, threads);
  const { mode } = task;
  const shares = { connections: Math.max(1, part(task.connections)), inFlight: Math.max(1, part(task.inFlight)) };
  if (mode.kind === 'closed') return { ...task, ...shares };
  if (mode.kind === 'open') {
    return { ...task, ...shares, mode: { kind: 'open', schedule: divide(mode.schedule, threads) } };
  }
  const before = Array.from({ length: index }, (_, other) => shareOf(mode.calls, other, threads));
  const firstCall = task.firstCall + before.reduce((sum, calls) => sum + calls, 0);
  return { ...task, ...shares, firstCall, mode: { kind: 'fill', calls: part(mode.calls) } };
}

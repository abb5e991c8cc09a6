/** Runs a fan-out load in a generator thread and measures what it costs the server meanwhile. */
import type { Frames } from './frames.ts';
import { runThread } from './generator-threads.ts';
import { costBetween, type ProcessTrace, ProcessWatch, type ServerCost, sampleProcess } from './process.ts';
import { TIMELINE_STEP_MS, type Timeline } from './timeline.ts';
import type { ClientKind } from './transport.ts';

export interface FanoutTask {
  readonly address: string;
  readonly client: ClientKind;
  readonly connections: number;
  readonly streams: number;
  readonly subscribe: { readonly path: string; readonly request: Uint8Array };
  readonly publish: {
    readonly path: string;
    readonly frames: Frames;
    readonly inFlight: number;
    /** Most messages between the newest published and the slowest stream. */
    readonly window: number;
  } | null;
  readonly warmupMs: number;
  readonly durationMs: number;
}

export interface FanoutCounts {
  readonly seconds: number;
  /** Messages on all streams together. */
  readonly delivered: number;
  /** Messages on the stream with the fewest, and on the one with the most. */
  readonly slowest: number;
  readonly fastest: number;
  readonly published: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly timeline: Timeline;
  readonly busy: number;
}

export type FromFanout =
  | { readonly kind: 'measuring' }
  | { readonly kind: 'measured'; readonly result: FanoutCounts }
  | { readonly kind: 'drained' }
  | { readonly kind: 'failed'; readonly why: string };

export interface FanoutResult extends Omit<FanoutCounts, 'busy'> {
  readonly deliveriesPerSecond: number;
  readonly watch: ProcessTrace;
  readonly generatorBusy: number;
  /** For each delivery. */
  readonly cost: ServerCost;
}

export async function runFanout(pid: number, task: FanoutTask): Promise<FanoutResult> {
  let before = sampleProcess(pid);
  let after = before;
  const watch = new ProcessWatch(pid, TIMELINE_STEP_MS);
  const entry = new URL('./fanout-generator.ts', import.meta.url);
  const counts = await runThread<FromFanout, FanoutCounts>(entry, task, (message) => {
    if (message.kind === 'measuring') {
      before = sampleProcess(pid);
      watch.start();
    }
    if (message.kind === 'measured') after = sampleProcess(pid);
  }).finally(() => watch.stop());
  const { busy, ...rest } = counts;
  return {
    ...rest,
    deliveriesPerSecond: counts.delivered / counts.seconds,
    watch: watch.stop(),
    generatorBusy: busy,
    cost: costBetween(before, after, counts.delivered),
  };
}

/** Runs consume streams in a generator thread and measures what they cost the server meanwhile. */
import { runThread } from './generator-threads.ts';
import { costBetween, type ProcessTrace, ProcessWatch, type ServerCost, sampleProcess } from './process.ts';
import { TIMELINE_STEP_MS, type Timeline } from './timeline.ts';
import type { ClientKind } from './transport.ts';

export interface ConsumeTask {
  readonly address: string;
  readonly path: string;
  /** `replay` and `stream`: the yardstick's method of that name, which sends the same frames. */
  readonly protocol: 'broker' | 'replay' | 'stream';
  readonly subjects: readonly string[];
  readonly start: 'new' | 'earliest';
  readonly connections: number;
  readonly streams: number;
  /** Bytes that the server may be ahead on each stream. */
  readonly creditBytes: number;
  /** Ends when each stream has so many, or (null) by time. */
  readonly messagesPerStream: number | null;
  readonly warmupMs: number;
  readonly durationMs: number;
  readonly client: ClientKind;
  /** Keeps the first frames, up to so many bytes. */
  readonly captureBytes: number;
  /** One cell: is told what the slowest stream has. */
  readonly progress?: SharedArrayBuffer;
}

export interface ConsumeCounts {
  readonly seconds: number;
  readonly messages: number;
  /** Of frames, as gRPC messages. */
  readonly bytes: number;
  readonly frames: number;
  readonly slowest: number;
  readonly fastest: number;
  readonly captured: readonly Uint8Array[];
  readonly timeline: Timeline;
  readonly busy: number;
}

export type FromConsume =
  | { readonly kind: 'started' }
  | { readonly kind: 'measuring' }
  | { readonly kind: 'measured'; readonly result: ConsumeCounts }
  | { readonly kind: 'drained' }
  | { readonly kind: 'failed'; readonly why: string };

export interface ConsumeResult extends Omit<ConsumeCounts, 'captured' | 'busy'> {
  readonly messagesPerSecond: number;
  readonly bytesPerSecond: number;
  readonly captured: readonly Uint8Array[];
  readonly watch: ProcessTrace;
  readonly generatorBusy: number;
  /** For each message. */
  readonly cost: ServerCost;
}

/** `onStarted` is called when every stream's start is fixed: what is published from then on is seen. */
export async function runConsume(
  pid: number,
  task: ConsumeTask,
  onStarted: () => void = () => undefined,
): Promise<ConsumeResult> {
  let before = sampleProcess(pid);
  let after = before;
  const watch = new ProcessWatch(pid, TIMELINE_STEP_MS);
  const entry = new URL('./consume-generator.ts', import.meta.url);
  const counts = await runThread<FromConsume, ConsumeCounts>(entry, task, (message) => {
    if (message.kind === 'started') onStarted();
    if (message.kind === 'measuring') {
      before = sampleProcess(pid);
      watch.start();
    }
    if (message.kind === 'measured') after = sampleProcess(pid);
  }).finally(() => watch.stop());
  const { busy, ...rest } = counts;
  return {
    ...rest,
    messagesPerSecond: counts.messages / counts.seconds,
    bytesPerSecond: counts.bytes / counts.seconds,
    watch: watch.stop(),
    generatorBusy: busy,
    cost: costBetween(before, after, counts.messages),
  };
}

/** Runs publish streams in generator threads and measures what they cost the server meanwhile. */
import { corrected, type Latency, summarize } from './histogram.ts';
import { mergeErrors, runThread } from './load.ts';
import { costBetween, ProcessWatch, type ServerCost, sampleProcess } from './process.ts';
import { divide, type Schedule } from './rates.ts';
import type { StreamFrames } from './stream-frames.ts';
import { mergeTimelines, TIMELINE_STEP_MS, type Timeline } from './timeline.ts';
import type { ClientKind } from './transport.ts';

export interface StreamLoad {
  readonly address: string;
  readonly pid: number;
  readonly path: string;
  /** `bare`: the yardstick, which answers 16 bytes to each frame. */
  readonly protocol: 'broker' | 'bare';
  readonly frames: StreamFrames;
  readonly connections: number;
  readonly streams: number;
  /** Frames that a stream may have unanswered, within the broker's window. */
  readonly framesInFlight: number;
  /** null: a closed loop. In frames. */
  readonly schedule: Schedule | null;
  /** Ends when so many are answered, all of them measured, instead of by time. For one stream. */
  readonly framesTotal?: number;
  readonly warmupMs: number;
  readonly durationMs: number;
  readonly threads: number;
  readonly client: ClientKind;
  /** Sends whatever the window says: what a broken client does. */
  readonly ignoresWindow?: boolean;
  /** A consumer's progress that the publisher stays near to, in messages. */
  readonly gate?: Gate;
}

export interface Gate {
  /** One cell: messages that the slowest consumer has. */
  readonly cell: SharedArrayBuffer;
  readonly window: number;
}

export interface StreamTask extends Omit<StreamLoad, 'pid' | 'threads'> {
  /** Distinguishes the producers of this run. */
  readonly name: string;
}

export interface StreamCounts {
  readonly seconds: number;
  readonly frames: number;
  readonly messages: number;
  /** Of frames, as gRPC messages. */
  readonly bytes: number;
  /** By google.rpc.Code of results, in batches; `stream N` for streams that ended with status N. */
  readonly errors: Readonly<Record<string, number>>;
  /** From when a frame was due (open loop) or sent, and always from when it was sent. */
  readonly histogram: string;
  readonly rawHistogram: string;
  readonly sendLag: string;
  readonly timeline: Timeline;
  /** Share of the measured time that the generator's event loop was busy. */
  readonly busy: number;
}

export type FromStream =
  | { readonly kind: 'measuring' }
  | { readonly kind: 'measured'; readonly result: StreamCounts }
  | { readonly kind: 'drained' }
  | { readonly kind: 'failed'; readonly why: string };

export interface StreamResult {
  readonly seconds: number;
  readonly messages: number;
  readonly frames: number;
  readonly messagesPerSecond: number;
  readonly bytesPerSecond: number;
  readonly errors: Readonly<Record<string, number>>;
  /** Raw of a closed loop; from the due time of an open one. */
  readonly latency: Latency;
  readonly latencyRaw: Latency;
  /** What users would see who keep coming while the server stalls. */
  readonly latencyCorrected: Latency;
  readonly sendLag: Latency;
  readonly histograms: readonly string[];
  readonly timeline: Timeline;
  readonly watch: ReturnType<ProcessWatch['stop']>;
  readonly generatorBusy: number;
  /** For each message. */
  readonly cost: ServerCost;
}

let runs = 0;

export async function runStreams(load: StreamLoad): Promise<StreamResult> {
  const { pid, threads, ...rest } = load;
  let before = sampleProcess(pid);
  let after = before;
  let measuring = 0;
  let measured = 0;
  const watch = new ProcessWatch(pid, TIMELINE_STEP_MS);
  const run = `${process.pid}-${++runs}`;
  const results = await Promise.all(
    Array.from({ length: threads }, (_, index) => {
      const part = (total: number): number =>
        Math.max(1, Math.floor(total / threads) + (index < total % threads ? 1 : 0));
      const task: StreamTask = {
        ...rest,
        name: `perf-${run}-${index}`,
        connections: part(load.connections),
        streams: part(load.streams),
        schedule: load.schedule === null ? null : divide(load.schedule, threads),
      };
      const entry = new URL('./stream-generator.ts', import.meta.url);
      return runThread<FromStream, StreamCounts>(entry, task, (message) => {
        if (message.kind === 'measuring' && ++measuring === threads) {
          before = sampleProcess(pid);
          watch.start();
        }
        if (message.kind === 'measured' && ++measured === 1) after = sampleProcess(pid);
      });
    }),
  ).finally(() => watch.stop());
  const sum = (pick: (result: StreamCounts) => number): number =>
    results.reduce((total, result) => total + pick(result), 0);
  const messages = sum((it) => it.messages);
  const histograms = results.map((it) => it.histogram);
  const raw = results.map((it) => it.rawHistogram);
  const seconds = Math.max(...results.map((it) => it.seconds));
  const outstanding = load.framesInFlight * load.streams;
  const intervalMs =
    (outstanding * seconds * 1_000) /
    Math.max(
      1,
      sum((it) => it.frames),
    );
  return {
    seconds,
    messages,
    frames: sum((it) => it.frames),
    messagesPerSecond: sum((it) => it.messages / it.seconds),
    bytesPerSecond: sum((it) => it.bytes / it.seconds),
    errors: mergeErrors(results),
    latency: summarize(histograms),
    latencyRaw: summarize(raw),
    latencyCorrected: load.schedule === null ? corrected(raw, intervalMs) : summarize(histograms),
    sendLag: summarize(results.map((it) => it.sendLag)),
    histograms,
    timeline: mergeTimelines(results.map((it) => it.timeline)),
    watch: watch.stop(),
    generatorBusy: Math.max(...results.map((it) => it.busy)),
    cost: costBetween(before, after, messages),
  };
}

/** Runs publish streams in generator threads and measures what they cost the server meanwhile. */
import type { Answers } from './answers.ts';
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
import type { StreamFrames } from './stream-frames.ts';
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
  /** Every measured answer is kept with its time. */
  readonly keepsAnswers?: boolean;
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

/** Errors are by google.rpc.Code of results, in batches; `stream N` for streams that ended with status N. Latencies are of frames. */
export interface StreamCounts extends ThreadCounts {
  readonly frames: number;
  readonly messages: number;
  /** Of frames, as gRPC messages. */
  readonly bytes: number;
  /** Null unless they are kept. */
  readonly answers: Answers | null;
}

export type FromStream = FromThread<StreamCounts>;

export interface StreamResult extends ThreadsResult {
  readonly messages: number;
  readonly frames: number;
  readonly messagesPerSecond: number;
  readonly bytesPerSecond: number;
  readonly watch: ProcessTrace;
  /** For each message. */
  readonly cost: ServerCost;
  /** Of each generator thread; none unless they are kept. */
  readonly answers: readonly Answers[];
}

let runs = 0;

/** `onMeasuring`: the warm-up is over. */
export async function runStreams(load: StreamLoad, onMeasuring?: () => void): Promise<StreamResult> {
  const { pid, threads, ...rest } = load;
  const run = `${process.pid}-${++runs}`;
  const tasks = Array.from({ length: threads }, (_, index): StreamTask => {
    const part = (total: number): number => Math.max(1, shareOf(total, index, threads));
    return {
      ...rest,
      name: `perf-${run}-${index}`,
      connections: part(load.connections),
      streams: part(load.streams),
      schedule: load.schedule === null ? null : divide(load.schedule, threads),
    };
  });
  const entry = new URL('./stream-generator.ts', import.meta.url);
  const { results, before, after, watch } = await measureThreads<FromStream, StreamCounts>({
    entry,
    tasks,
    pid,
    onMeasuring,
  });
  const sum = (pick: (result: StreamCounts) => number): number =>
    results.reduce((total, result) => total + pick(result), 0);
  const messages = sum((it) => it.messages);
  const frames = sum((it) => it.frames);
  const inFlightMax = load.schedule === null ? load.framesInFlight * load.streams : null;
  return {
    ...summarizeThreads(results, { inFlightMax, answered: frames }),
    messages,
    frames,
    messagesPerSecond: sum((it) => it.messages / it.seconds),
    bytesPerSecond: sum((it) => it.bytes / it.seconds),
    watch,
    cost: costBetween(before, after, messages),
    answers: results.flatMap(({ answers }) => answers ?? []),
  };
}

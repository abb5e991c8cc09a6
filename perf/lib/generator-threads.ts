/** Generator threads beside a server: started together, and what they and the server's process say of the measured part. */
import { Worker } from 'node:worker_threads';
import { corrected, type Latency, summarize } from './histogram.ts';
import { type ProcessSample, type ProcessTrace, ProcessWatch, sampleProcess } from './process.ts';
import { mergeTimelines, TIMELINE_STEP_MS, type Timeline } from './timeline.ts';

export type FromThread<Result> =
  | { readonly kind: 'measuring' }
  | { readonly kind: 'measured'; readonly result: Result }
  | { readonly kind: 'drained' }
  | { readonly kind: 'failed'; readonly why: string };

/** What every generator thread measures. */
export interface ThreadCounts {
  readonly seconds: number;
  readonly errors: Readonly<Record<string, number>>;
  /** From when a call or frame was due (open loop) or sent, and always from when it was sent. */
  readonly histogram: string;
  readonly rawHistogram: string;
  readonly sendLag: string;
  readonly timeline: Timeline;
  /** Share of the measured time that the generator's event loop was busy. */
  readonly busy: number;
}

/** The same of all threads together. */
export interface ThreadsResult {
  readonly seconds: number;
  readonly errors: Readonly<Record<string, number>>;
  /** Raw of a closed loop; from the due time of an open one. */
  readonly latency: Latency;
  readonly latencyRaw: Latency;
  /** Without coordinated omission: from the due time of an open loop; of a closed one as HdrHistogram corrects it. */
  readonly latencyCorrected: Latency;
  readonly histograms: readonly string[];
  readonly timeline: Timeline;
  /** Open loop: how late the generator itself sent. */
  readonly sendLag: Latency;
  readonly generatorBusy: number;
}

export interface Measured<Result> {
  readonly results: readonly Result[];
  /** The server at both ends of the measured part. */
  readonly before: ProcessSample;
  readonly after: ProcessSample;
  readonly watch: ProcessTrace;
}

/** Runs a thread for each task; `pid` is the server. `onMeasuring`: the warm-up of all of them is over. */
export async function measureThreads<Message extends { readonly kind: string }, Result>(options: {
  readonly entry: URL;
  readonly tasks: readonly object[];
  readonly pid: number;
  readonly onMeasuring?: (() => void) | undefined;
  readonly onMessage?: (message: Message, thread: number) => void;
}): Promise<Measured<Result>> {
  const { entry, tasks, pid, onMeasuring, onMessage } = options;
  let before = sampleProcess(pid);
  let after = before;
  let measuring = 0;
  let measured = 0;
  const watch = new ProcessWatch(pid, TIMELINE_STEP_MS);
  const results = await Promise.all(
    tasks.map((task, thread) =>
      runThread<Message, Result>(entry, task, (message) => {
        if (message.kind === 'measuring' && ++measuring === tasks.length) {
          before = sampleProcess(pid);
          watch.start();
          onMeasuring?.();
        }
        if (message.kind === 'measured' && ++measured === 1) after = sampleProcess(pid);
        onMessage?.(message, thread);
      }),
    ),
  ).finally(() => watch.stop());
  return { results, before, after, watch: watch.stop() };
}

/** `inFlightMax`: of a closed loop, the most that is unanswered at a time; null for an open one. `answered`: calls or frames, of all threads. */
export function summarizeThreads(
  results: readonly ThreadCounts[],
  loop: { readonly inFlightMax: number | null; readonly answered: number },
): ThreadsResult {
  const histograms = results.map(({ histogram }) => histogram);
  const raw = results.map(({ rawHistogram }) => rawHistogram);
  const seconds = Math.max(...results.map((result) => result.seconds));
  const latency = summarize(histograms);
  const intervalMs = ((loop.inFlightMax ?? 0) * seconds * 1_000) / Math.max(1, loop.answered);
  return {
    seconds,
    errors: mergeErrors(results),
    latency,
    latencyRaw: summarize(raw),
    latencyCorrected: loop.inFlightMax === null ? latency : corrected(raw, intervalMs),
    histograms,
    timeline: mergeTimelines(results.map(({ timeline }) => timeline)),
    sendLag: summarize(results.map(({ sendLag }) => sendLag)),
    generatorBusy: Math.max(...results.map(({ busy }) => busy)),
  };
}

/** Part `index` of a total that is dealt to so many threads. */
export function shareOf(total: number, index: number, threads: number): number {
  return Math.floor(total / threads) + (index < total % threads ? 1 : 0);
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

function mergeErrors(
  results: readonly { readonly errors: Readonly<Record<string, number>> }[],
): Record<string, number> {
  const merged: Record<string, number> = {};
  for (const { errors } of results) {
    for (const [code, count] of Object.entries(errors)) merged[code] = (merged[code] ?? 0) + count;
  }
  return merged;
}

/** One publisher of batches to many consume streams, and the same frames over bare server streams. */
import { type ConsumeResult, type ConsumeTask, runConsume } from './consume-load.ts';
import { subjectName } from './frames.ts';
import type { Options } from './options.ts';
import { CONSUME_PATH, PREFIX, PUBLISH_STREAM_PATH, STREAM_PATH } from './scenario.ts';
import { BatchFrameWriter } from './stream-frames.ts';
import { runStreams, type StreamLoad, type StreamResult } from './stream-load.ts';
import type { Target } from './targets.ts';

const CREDIT_BYTES = 8 << 20;
/** Frames that the publisher may be ahead of the slowest consumer: delivery is measured, and not a pile-up. */
const AHEAD_FRAMES = 8;
/** The publisher goes on for so long behind what the consumers measure. */
const TAIL_MS = 500;

export interface BatchFanoutResult {
  readonly consumed: ConsumeResult;
  readonly published: StreamResult;
}

function consumeTask(options: Options, target: Target): ConsumeTask {
  const { batches, streams, connections, client, warmupMs, durationMs } = options;
  return {
    address: target.address,
    path: CONSUME_PATH,
    protocol: 'broker',
    subjects: Array.from({ length: batches ?? 1 }, (_, index) => subjectName(PREFIX, index)),
    start: 'new',
    connections: Math.min(connections, streams),
    streams,
    creditBytes: CREDIT_BYTES,
    messagesPerStream: null,
    warmupMs,
    durationMs,
    client,
    captureBytes: 0,
  };
}

/** Every consumer gets everything. `captureBytes`: of frames that are kept. */
export async function runBatchFanout(
  broker: Target,
  options: Options,
  captureBytes: number,
): Promise<BatchFanoutResult> {
  const { batches, bodyBytes, frameBytes, client } = options;
  const count = batches ?? 1;
  const frames = { prefix: PREFIX, subjects: count, bodyBytes, frameBytes, batches: count };
  const task = { ...consumeTask(options, broker), captureBytes };
  const cell = new SharedArrayBuffer(4);
  const load: StreamLoad = {
    address: broker.address,
    pid: broker.pid,
    path: PUBLISH_STREAM_PATH,
    protocol: 'broker',
    frames,
    connections: 1,
    streams: 1,
    framesInFlight: AHEAD_FRAMES,
    schedule: null,
    warmupMs: task.warmupMs,
    durationMs: task.durationMs + TAIL_MS,
    threads: 1,
    client,
    gate: { cell, window: AHEAD_FRAMES * new BatchFrameWriter(frames).messagesPerFrame },
  };
  const published = Promise.withResolvers<StreamResult>();
  const consumed = await runConsume(broker.pid, { ...task, progress: cell }, () => published.resolve(runStreams(load)));
  return { consumed, published: await published.promise };
}

/** The same number of bare streams, fed from one loop. */
export function runBareFanout(bare: Target, options: Options): Promise<ConsumeResult> {
  return runConsume(bare.pid, { ...consumeTask(options, bare), path: STREAM_PATH, protocol: 'stream' });
}

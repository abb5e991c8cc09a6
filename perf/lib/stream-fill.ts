import type { Options } from './options.ts';
import type { Progress } from './progress.ts';
import { formatNumber } from './report.ts';
import { PREFIX, PUBLISH_STREAM_PATH } from './scenario.ts';
import { BatchFrameWriter } from './stream-frames.ts';
import { runStreams, type StreamResult } from './stream-load.ts';
import type { Target } from './targets.ts';

/** Frames of a fill are small enough that the last one does not overshoot by much. */
const FRAME_BYTES = 64 << 10;

/** Stores at least `messages` messages, evenly over the subjects, each acknowledged; the result says how many. */
export async function fillStreams(
  target: Target,
  options: Options,
  progress: Progress,
  messages: number,
): Promise<StreamResult> {
  const { subjects, bodyBytes, client } = options;
  const frames = { prefix: PREFIX, subjects, bodyBytes, frameBytes: FRAME_BYTES, batches: subjects };
  progress.say(`storing ${formatNumber(messages)} messages`);
  const result = await runStreams({
    address: target.address,
    pid: target.pid,
    path: PUBLISH_STREAM_PATH,
    protocol: 'broker',
    frames,
    connections: 1,
    streams: 1,
    framesInFlight: 64,
    framesTotal: Math.ceil(messages / new BatchFrameWriter(frames).messagesPerFrame),
    schedule: null,
    warmupMs: 0,
    durationMs: 0,
    threads: 1,
    client,
  });
  progress.clear();
  if (Object.keys(result.errors).length > 0) throw new Error(`filling failed: ${JSON.stringify(result.errors)}`);
  return result;
}

/** What several scenarios need of publish streams and consume streams that run at one time. */
import type { ConsumeTask } from './consume-load.ts';
import { subjectName } from './frames.ts';
import type { Options } from './options.ts';
import { CONSUME_PATH, PREFIX } from './scenario.ts';
import { runStreams, type StreamLoad, type StreamResult } from './stream-load.ts';
import type { Target } from './targets.ts';

export const CREDIT_BYTES = 8 << 20;

/** Streams at the tail of the subjects that the options say, for the whole of a load. */
export function tailTask(target: Target, options: Options, streams: number): ConsumeTask {
  const { subjects, client, warmupMs, durationMs, connections } = options;
  return {
    address: target.address,
    path: CONSUME_PATH,
    protocol: 'broker',
    subjects: Array.from({ length: subjects }, (_, index) => subjectName(PREFIX, index)),
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

/** Sum of the errors of all kinds. */
export function failures(results: readonly { readonly errors: Readonly<Record<string, number>> }[]): number {
  return results.reduce((sum, { errors }) => sum + Object.values(errors).reduce((a, b) => a + b, 0), 0);
}

/**
 * Ms until a probe that began right after an overload saw nothing slower than `limitMs` any more; null if that never came to be. By steps of
 * its timeline.
 */
export function recoveryMs({ timeline }: Pick<StreamResult, 'timeline'>, limitMs: number): number | null {
  const { worstMs, counts, stepMs } = timeline;
  const lastBad = worstMs.findLastIndex((worst, step) => worst > limitMs || counts[step] === 0);
  return lastBad === worstMs.length - 1 ? null : (lastBad + 1) * stepMs;
}

export function withoutWarmup(load: StreamLoad): Promise<StreamResult> {
  return runStreams({ ...load, warmupMs: 0 });
}

import type { Frames } from './frames.ts';
import { type LoadResult, runLoad } from './load.ts';
import type { Options } from './options.ts';
import { bar, type Progress } from './progress.ts';
import { formatNumber } from './report.ts';
import { loadOf, PUBLISH_PATH } from './scenario.ts';
import type { Target } from './targets.ts';

/** Publishes exactly `calls` messages, each acknowledged. */
export async function fill(
  target: Target,
  options: Options,
  progress: Progress,
  what: {
    readonly frames: Frames;
    readonly calls: number;
    readonly firstCall?: number;
  },
): Promise<LoadResult> {
  const load = loadOf(target, options, {
    path: PUBLISH_PATH,
    frames: what.frames,
    mode: { kind: 'fill', calls: what.calls },
  });
  const result = await runLoad({
    ...load,
    firstCall: what.firstCall ?? 0,
    onProgress: (done) =>
      progress.say(`filling ${bar(done, what.calls)} ${formatNumber(done)} of ${formatNumber(what.calls)}`),
  });
  progress.clear();
  return result;
}

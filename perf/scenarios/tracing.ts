/** What tracing costs: the same loads with it off, with 1 % of the calls and batches traced, and with all of them. */
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import type { Finding } from '../lib/report.ts';
import { errorNotes, PUBLISH_STREAM_PATH, type Scenario } from '../lib/scenario.ts';
import { costFigures, inTurn, metricOf, type Side, type SideResult } from '../lib/sides.ts';
import { startSpanSink } from '../lib/span-sink.ts';
import type { StreamLoad } from '../lib/stream-load.ts';
import type { Target } from '../lib/targets.ts';
import { settingOf, streamFrames } from './stream.ts';
import { publishFrames } from './unary.ts';

/** More than there are calls: the ratio alone decides. */
const UNBOUNDED = '100000';

/** A closed loop of publish streams. */
export function streamsOn(target: Target, options: Options): StreamLoad {
  const { connections, streams, framesInFlight, threads, client, warmupMs, durationMs } = options;
  return {
    address: target.address,
    pid: target.pid,
    path: PUBLISH_STREAM_PATH,
    protocol: 'broker',
    frames: streamFrames(options),
    connections,
    streams,
    framesInFlight,
    schedule: null,
    warmupMs,
    durationMs,
    threads,
    client,
  };
}

async function measure(options: Options, progress: Progress): Promise<Finding> {
  const sink = await startSpanSink();
  try {
    const traced = (name: string, ratio: string, most: string): Side => ({
      name,
      flags: ['--tracing-endpoint', sink.endpoint, '--tracing-ratio', ratio, '--tracing-traces-per-second', most],
    });
    const sides = [
      { name: 'off', flags: [] },
      traced('at 1 %', '0.01', UNBOUNDED),
      traced('at 100 %, 100 a second', '1', '100'),
      traced('at 100 %', '1', UNBOUNDED),
    ];
    const results = await inTurn(sides, options, progress, {
      stream: (target) => streamsOn(target, options),
      frames: publishFrames(options),
    });
    const [off, percent, bounded, all] = results as [SideResult, SideResult, SideResult, SideResult];
    const notes = sides.map(({ name }, index) => {
      const { metrics } = results[index] as SideResult;
      const spans = (outcome: string): number => metricOf(metrics, `broker_trace_spans_total{outcome="${outcome}"}`);
      return `tracing ${name}: ${metricOf(metrics, 'broker_traces_total')} traces, ${spans('exported')} spans sent, ${spans('dropped') + spans('failed')} lost`;
    });
    return {
      scenario: 'tracing',
      setting: `${settingOf(options)}; unary: ${options.inFlight} in flight; closed loops`,
      figures: [
        ...costFigures('at 1 %', 'percent', percent, off, 0.95),
        ...costFigures('at 100 %, 100 a second', 'bounded', bounded, off, 0.95),
        ...costFigures('at 100 %', 'all', all, off, null),
      ],
      notes: [...notes, ...errorNotes(results.flatMap(({ streams, unary }) => [...streams, ...unary]))],
    };
  } finally {
    await sink.stop();
  }
}

export const tracing: Scenario = {
  name: 'tracing',
  about: 'what tracing costs publish streams and unary publishes: off, at 1 %, at 100 % with and without its bound',
  defaults: { streams: 4, rounds: 3, durationMs: 3_000, warmupMs: 1_000, inFlight: 256 },
  examples: ['npm run perf -- tracing --rounds 5', 'npm run perf -- tracing --duration 5 --warmup 2'],
  run: measure,
};

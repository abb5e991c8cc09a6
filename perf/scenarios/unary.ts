/** Durable `Publish` against the bare echo of the same bytes. */
import { generatorWarnings } from '../lib/bottleneck.ts';
import type { Frames } from '../lib/frames.ts';
import { type LoadResult, runLoad } from '../lib/load.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import type { Finding } from '../lib/report.ts';
import {
  alternateLoads,
  ECHO_PATH,
  errorNotes,
  histogramsOf,
  loadFigures,
  loadOf,
  modeOf,
  PREFIX,
  PUBLISH_PATH,
  plotsOf,
  type Scenario,
  withServers,
} from '../lib/scenario.ts';
import { searchMaximum } from '../lib/search.ts';

/** What must be reached with so many calls in flight; between the two, the lower one counts. */
function rateGoal(inFlight: number) {
  return inFlight >= 256
    ? { better: 'higher' as const, must: 0.8, aim: 0.95 }
    : { better: 'higher' as const, must: 0.6, aim: 0.8 };
}

export const CPU_GOAL = { better: 'lower' as const, must: 1.5, aim: 1.2 };

export function unaryGoals(options: Options) {
  return { rate: rateGoal(options.inFlight), cpu: CPU_GOAL };
}

export function publishFrames(options: Options): Frames {
  return { kind: 'publish', subjects: options.subjects, prefix: PREFIX, bodyBytes: options.bodyBytes };
}

async function atMaximum(options: Options, progress: Progress, limitMs: number): Promise<Finding> {
  const frames = publishFrames(options);
  const search = await withServers(options, { answerBytes: 4 }, ({ broker }) =>
    searchMaximum<LoadResult>({
      limitMs,
      startRate: 5_000,
      progress,
      what: 'calls',
      run: (rate) =>
        runLoad(loadOf(broker, options, { path: PUBLISH_PATH, frames, mode: modeOf({ ...options, rate }) })),
      rateOf: (result) => result.callsPerSecond,
    }),
  );
  const best = search.best === null ? [] : [search.best];
  return {
    scenario: 'unary',
    setting: `${settingOf(options)}; highest rate with p99 under ${limitMs} ms`,
    figures: [
      { name: 'highest rate', key: 'max-rate', unit: '1/s', subject: [search.rate] },
      ...(best.length === 0 ? [] : loadFigures({ subject: best, baseline: [] })),
    ],
    notes: [...search.notes, ...errorNotes(search.results), ...generatorWarnings({ broker: best })],
    plots: [search.plot, ...(best.length === 0 ? [] : plotsOf({ broker: best }, 'calls/s'))],
    histograms: histogramsOf({ broker: best }),
  };
}

function settingOf({ bodyBytes, inFlight, connections, subjects }: Options): string {
  return `${bodyBytes} B bodies, ${inFlight} in flight on ${connections} connections, ${subjects} subjects`;
}

export const unary: Scenario = {
  name: 'unary',
  about: 'durable Publish, closed loop, against the bare echo (try --in-flight 64 as well)',
  defaults: {},
  takesRate: true,
  findsMaximum: true,
  examples: [
    'npm run perf -- unary --in-flight 64 --rounds 3',
    'npm run perf -- unary --rate 5k..20k --duration 20 --rounds 1',
    'npm run perf -- unary --find-max 20ms --duration 3 --warmup 1',
  ],
  async run(options, progress) {
    if (options.findMaxMs !== null) return atMaximum(options, progress, options.findMaxMs);
    const frames = publishFrames(options);
    const mode = modeOf(options);
    const results = await withServers(options, { answerBytes: 4 }, ({ broker, echo }) =>
      alternateLoads(options, progress, {
        subject: loadOf(broker, options, { path: PUBLISH_PATH, frames, mode }),
        baseline: loadOf(echo, options, { path: ECHO_PATH, frames, mode }),
      }),
    );
    const sides = { broker: results.subject, 'bare echo': results.baseline };
    return {
      scenario: 'unary',
      setting: settingOf(options),
      figures: loadFigures(results, unaryGoals(options)),
      notes: [...errorNotes([...results.subject, ...results.baseline]), ...generatorWarnings(sides)],
      plots: plotsOf(sides, 'calls/s'),
      histograms: histogramsOf(sides),
    };
  },
};

/** Durable `Publish` against the bare echo of the same bytes. */
import { generatorWarnings } from '../lib/bottleneck.ts';
import type { Frames } from '../lib/frames.ts';
import type { Options } from '../lib/options.ts';
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

export const unary: Scenario = {
  name: 'unary',
  about: 'durable Publish, closed loop, against the bare echo (try --in-flight 64 as well)',
  defaults: {},
  async run(options, progress) {
    const frames = publishFrames(options);
    const mode = modeOf(options);
    const results = await withServers(options, { answerBytes: 4 }, ({ broker, echo }) =>
      alternateLoads(options, progress, {
        subject: loadOf(broker, options, { path: PUBLISH_PATH, frames, mode }),
        baseline: loadOf(echo, options, { path: ECHO_PATH, frames, mode }),
      }),
    );
    const sides = { broker: results.subject, 'bare echo': results.baseline };
    const { bodyBytes, inFlight, connections, subjects } = options;
    return {
      scenario: 'unary',
      setting: `${bodyBytes} B bodies, ${inFlight} in flight on ${connections} connections, ${subjects} subjects`,
      figures: loadFigures(results, unaryGoals(options)),
      notes: [...errorNotes([...results.subject, ...results.baseline]), ...generatorWarnings(sides)],
      plots: plotsOf(sides, 'calls/s'),
      histograms: histogramsOf(sides),
    };
  },
};

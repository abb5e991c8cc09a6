/** `Fetch` of random ids of many stored messages against bare answers of the same size. */
import { generatorWarnings } from '../lib/bottleneck.ts';
import { fill } from '../lib/fill.ts';
import { deliveryBytes, subjectName } from '../lib/frames.ts';
import {
  alternateLoads,
  errorNotes,
  FETCH_PATH,
  FIXED_PATH,
  histogramsOf,
  loadFigures,
  loadOf,
  modeOf,
  PREFIX,
  plotsOf,
  type Scenario,
  withServers,
} from '../lib/scenario.ts';
import { publishFrames } from './unary.ts';

export const FETCH_GOAL = { better: 'higher' as const, must: 0.65, aim: 0.85 };

export const fetch: Scenario = {
  name: 'fetch',
  about: 'Fetch of random ids of 1 M stored messages (--messages to scale down)',
  defaults: {},
  takesRate: true,
  async run(options, progress) {
    const { bodyBytes, inFlight, connections, subjects } = options;
    const idsPerSubject = Math.floor(options.messages / subjects);
    const answerBytes = deliveryBytes(bodyBytes, subjectName(PREFIX, 10), idsPerSubject);
    const frames = { kind: 'fetch' as const, subjects, prefix: PREFIX, idsPerSubject, seed: 1 };
    const mode = modeOf(options);
    return withServers(options, { answerBytes }, async ({ broker, echo }) => {
      const filled = await fill(broker, options, progress, {
        frames: publishFrames(options),
        calls: idsPerSubject * subjects,
      });
      const results = await alternateLoads(options, progress, {
        subject: loadOf(broker, options, { path: FETCH_PATH, frames, mode }),
        baseline: loadOf(echo, options, { path: FIXED_PATH, frames, mode }),
      });
      const sides = { broker: results.subject, 'bare echo': results.baseline };
      return {
        scenario: 'fetch',
        setting: `random ids of ${idsPerSubject * subjects} messages of ${bodyBytes} B in ${subjects} subjects, ${inFlight} in flight on ${connections} connections`,
        figures: [
          ...loadFigures(results, { rate: FETCH_GOAL }),
          { name: 'filling', unit: '1/s', subject: [filled.callsPerSecond] },
        ],
        notes: [...errorNotes([...results.subject, ...results.baseline]), ...generatorWarnings(sides)],
        plots: plotsOf(sides, 'calls/s'),
        histograms: histogramsOf(sides),
      };
    });
  },
};

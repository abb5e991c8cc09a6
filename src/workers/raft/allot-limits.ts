import type { AllotLimits } from '../../allot/allot-state.ts';
import type { Config } from '../../config/schema.ts';

/** Allotments of a node that may be open or unmarked at a time; far above what the rings can hold. */
const OPEN_PER_NODE_MAX = 1_000_000;

/** What the state machine of the log may hold. */
export function allotLimits({ subjects, producers }: Pick<Config, 'subjects' | 'producers'>): AllotLimits {
  return { subjectsMax: subjects.max, producersMax: producers.max, openPerNodeMax: OPEN_PER_NODE_MAX };
}

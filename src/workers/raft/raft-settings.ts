import type { AllotLimits } from '../../allot/allot-state.ts';
import type { Config } from '../../config/schema.ts';
import type { RaftThreadData } from '../messages.ts';

/** Allotments of a node that may be open or unmarked at a time; far above what the rings can hold. */
const OPEN_PER_NODE_MAX = 1_000_000;
/** RaftThreadData.catchUpEntries: some seconds of a busy cluster. */
const CATCH_UP_ENTRIES = 4_096;

/** What the state machine of the log may hold. */
export function allotLimits({ subjects, producers }: Pick<Config, 'subjects' | 'producers'>): AllotLimits {
  return { subjectsMax: subjects.max, producersMax: producers.max, openPerNodeMax: OPEN_PER_NODE_MAX };
}

type RaftSettings = Pick<
  RaftThreadData,
  | keyof AllotLimits
  | 'snapshotEntries'
  | 'snapshotBytes'
  | 'catchUpEntries'
  | 'acceptClock'
  | 'heartbeatMs'
  | 'electionMs'
  | 'shardsMax'
>;

/** What the Raft thread is told of the configuration. */
export function raftSettings(config: Config): RaftSettings {
  const { raft, shards, acceptClock } = config;
  return {
    ...allotLimits(config),
    snapshotEntries: raft.snapshotEntries,
    snapshotBytes: raft.snapshotBytes,
    catchUpEntries: CATCH_UP_ENTRIES,
    acceptClock,
    heartbeatMs: raft.heartbeatMs,
    electionMs: raft.electionTimeoutMs,
    shardsMax: shards.max,
  };
}

/** At which consistency a store writes and reads, so that a read meets every write that was answered. */
import { types } from 'cassandra-driver';

export type Consistency = 'LOCAL_QUORUM' | 'QUORUM' | 'EACH_QUORUM' | 'ALL' | 'THREE' | 'TWO' | 'ONE' | 'LOCAL_ONE';

interface Level {
  readonly write: types.consistencies;
  /** Meets every write: their replicas and those that are asked here are together more than there are. */
  readonly read: types.consistencies;
  /** An answered write may be on less than a quorum of the replicas in the data centre that is read. */
  readonly isWeak: boolean;
}

const { all, eachQuorum, localOne, localQuorum, one, quorum, three, two } = types.consistencies;

/**
 * A quorum of all data centres need not have one in the local one: it is met by its own kind only. What is weaker than a quorum is met only by asking
 * every replica.
 */
const LEVELS: Readonly<Record<Consistency, Level>> = {
  LOCAL_QUORUM: { write: localQuorum, read: localQuorum, isWeak: false },
  QUORUM: { write: quorum, read: quorum, isWeak: false },
  EACH_QUORUM: { write: eachQuorum, read: localQuorum, isWeak: false },
  ALL: { write: all, read: localQuorum, isWeak: false },
  THREE: { write: three, read: all, isWeak: true },
  TWO: { write: two, read: all, isWeak: true },
  ONE: { write: one, read: all, isWeak: true },
  LOCAL_ONE: { write: localOne, read: all, isWeak: true },
};

export function levelOf(consistency: Consistency): Level {
  return LEVELS[consistency];
}

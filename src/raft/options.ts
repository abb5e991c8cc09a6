import { assert } from '../base/assert.ts';
import type { Index, NodeId } from './messages.ts';
import type { RaftStorage } from './storage.ts';

/** PreVote and CheckQuorum are not options: one without the other livelocks under one-way links (R9). */
export interface RaftOptions {
  readonly id: NodeId;
  readonly storage: RaftStorage;
  /** What the state machine holds at start: the index of its snapshot. `storage.initialState().config` is as of here. */
  readonly applied: Index;
  /** Seed of the election timeouts; different on every node. */
  readonly seed: number;
  /** Election timeout in ticks; the drawn one lies in [electionTicks, 2 * electionTicks). Usually 10 heartbeats. */
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  /** Entries of one append, in bytes; one entry may exceed it. */
  readonly appendBytesMax?: number;
  /** Unanswered appends to one node. */
  readonly inflightMessagesMax?: number;
  /** Bytes in unanswered appends to one node (soft: the last append may exceed it). */
  readonly inflightBytesMax?: number;
  /** Bytes that the leader takes in and has not yet handed out as committed; above it proposals are refused. */
  readonly uncommittedBytesMax?: number;
  /** Committed entries handed out and not yet applied, in bytes; one entry may exceed it. */
  readonly applyBytesMax?: number;
  /** Reads waiting for ReadIndex. */
  readonly readsMax?: number;
  /** How many entries a learner may lack and still be made a voter. */
  readonly promoteLagMax?: number;
}

export type RaftLimits = Required<RaftOptions>;

const MIB = 1024 * 1024;

export function completeOptions(options: RaftOptions): RaftLimits {
  const complete: RaftLimits = {
    appendBytesMax: MIB,
    inflightMessagesMax: 256,
    inflightBytesMax: 16 * MIB,
    uncommittedBytesMax: 64 * MIB,
    applyBytesMax: 4 * MIB,
    readsMax: 4_096,
    promoteLagMax: 1_024,
    ...options,
  };
  assert(complete.id.length > 0, 'a node needs an id');
  assert(complete.heartbeatTicks > 0, 'heartbeatTicks must be positive');
  assert(complete.electionTicks > complete.heartbeatTicks, 'electionTicks must exceed heartbeatTicks');
  assert(complete.inflightBytesMax >= complete.appendBytesMax, 'inflightBytesMax must hold one append');
  return Object.freeze(complete);
}

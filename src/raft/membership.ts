import { assert } from '../base/assert.ts';
import { isPlanted } from '../base/planted.ts';
import { type ConfigChange, type ConfigRefusal, changeConfig, decodeConfigChange } from './config-change.ts';
import { answerProvenReads, maybeCommit } from './leader.ts';
import { type Index, NOBODY, type Snapshot } from './messages.ts';
import type { RaftState } from './state.ts';
import { becomeFollower } from './transitions.ts';

export type MembershipRefusal =
  | ConfigRefusal
  /** The change before this one is not applied yet. Wait. */
  | 'pending'
  /** No entry of this leader's term is committed yet. Wait. */
  | 'term-not-committed'
  /** A node becomes a voter by way of learner: with an empty log it would hold up every commit (R16). */
  | 'not-learner'
  /** The learner lacks too much of the log. Wait. */
  | 'not-caught-up';

/** What stands against a change now, or null. Rule 1 of config-change.ts (R12, R13). */
export function whyNotChange(state: RaftState, change: ConfigChange): MembershipRefusal | null {
  if (!state.hasCommittedInTerm) {
    return 'term-not-committed';
  }
  if (state.pendingConfig > state.log.applied && !isPlanted('R12-two-changes')) {
    return 'pending';
  }
  const changed = changeConfig(state.tracker.config, change);
  if (typeof changed === 'string') {
    return changed;
  }
  return change.kind === 'add-voter' ? whyNotPromote(state, change) : null;
}

function whyNotPromote(state: RaftState, change: ConfigChange): MembershipRefusal | null {
  const progress = state.tracker.progress(change.node);
  if (progress === undefined) {
    return 'not-learner';
  }
  const lag = state.log.lastIndex() - progress.match;
  const isFollowing = progress.isActive && progress.state === 'replicate' && lag <= state.limits.promoteLagMax;
  return isFollowing ? null : 'not-caught-up';
}

/** Changes that the state machine has now applied come into force. */
export function applyConfigsTo(state: RaftState, index: Index): void {
  const waiting = state.unappliedConfigs;
  while (waiting[0] !== undefined && waiting[0].index <= index) {
    const change = decodeConfigChange(waiting[0].data);
    waiting.shift();
    const changed = changeConfig(state.tracker.config, change);
    assert(changed !== 'zero-voters', 'a change that leaves no voters got into the log');
    if (changed !== 'no-change') {
      state.tracker.setConfig(changed as Exclude<typeof changed, string>, state.log.lastIndex());
      onConfigChanged(state);
    }
  }
}

/** The state machine came out of a snapshot, and the members with it; what it had yet to apply is part of it. */
export function installConfig(state: RaftState, snapshot: Snapshot): void {
  assert(state.role !== 'leader', 'a leader does not install snapshots');
  state.unappliedConfigs.length = 0;
  state.tracker.setConfig(snapshot.config, snapshot.index);
}

function onConfigChanged(state: RaftState): void {
  if (state.role !== 'leader') {
    return;
  }
  if (!state.tracker.isSelfVoter) {
    // Removed, or a learner now: it must not count itself or go on leading (Raft thesis 4.2.2, R14).
    becomeFollower(state, state.term, NOBODY);
    return;
  }
  if (!state.tracker.isVoter(state.transferTarget)) {
    state.transferTarget = NOBODY;
  }
  // New members want their log, and fewer voters may make a smaller majority.
  state.isReplicationDue = true;
  maybeCommit(state);
  answerProvenReads(state);
}

import { isPlanted } from '../base/planted.ts';
import { ENTRY_CONFIG, INDEX_MAX, type Message, makeMessage, type NodeId, TERM_MAX } from './messages.ts';
import type { RaftState } from './state.ts';
import { becomeCandidate, becomeFollower, becomeLeader, becomePreCandidate } from './transitions.ts';

/** What stands against a campaign now, or null. */
export type CampaignRefusal = 'leader' | 'not-promotable' | 'unapplied-config' | 'exhausted';

export function whyNotCampaign(state: RaftState): CampaignRefusal | null {
  if (state.role === 'leader') {
    return 'leader';
  }
  if (!state.isPromotable) {
    return 'not-promotable';
  }
  if (state.term >= TERM_MAX || state.log.lastIndex() >= INDEX_MAX) {
    return 'exhausted';
  }
  // Rule 2 of config-change.ts: this node's idea of who the voters are is known to be old (R13).
  return hasUnappliedConfig(state) && !isPlanted('R13-campaign-unapplied') ? 'unapplied-config' : null;
}

export function hasUnappliedConfig(state: RaftState): boolean {
  const { applied, committed } = state.log;
  return state.log.some(applied + 1, committed + 1, state.limits.applyBytesMax, (entry) => entry.type === ENTRY_CONFIG);
}

/** The usual way to an election: first ask whether it could be won. */
export function startPreElection(state: RaftState): void {
  becomePreCandidate(state);
  // Asking promises nothing, so the own answer counts without a write.
  if (state.tracker.recordVote(state.id, true) === 'won') {
    startElection(state, false);
    return;
  }
  const { tracker, id, term } = state;
  const ends = endsOf(state);
  for (const to of tracker.config.voters) {
    if (to !== id) {
      state.send(makeMessage({ type: 'pre-vote', from: id, to, term: term + 1, ...ends }));
    }
  }
}

/** Where the log ends, and up to where it is known to be committed: what a request for a vote says of it. */
function endsOf({ log }: RaftState): Pick<Message, 'index' | 'logTerm' | 'commit' | 'context'> {
  const commit = log.committed;
  return { index: log.lastIndex(), logTerm: log.lastTerm(), commit, context: Math.max(log.term(commit), 0) };
}

/**
 * The requests wait for the write as the vote does: they speak of a term and of a log end. A candidate that crashed
 * before the write could come back with less, campaign in the same term again, and win with grants for what it lost.
 */
export function startElection(state: RaftState, force: boolean): void {
  becomeCandidate(state);
  const { tracker, id, term } = state;
  const ends = endsOf(state);
  for (const to of tracker.config.voters) {
    if (to !== id) {
      state.sendAfterPersist(makeMessage({ type: 'vote', from: id, to, term, force, ...ends }));
    }
  }
}

/** A vote for this node's campaign came in; its own one after it was written. */
export function onVote(state: RaftState, from: NodeId, isGranted: boolean): void {
  const result = state.tracker.recordVote(from, isGranted);
  if (result === 'lost') {
    becomeFollower(state, state.term, '');
  } else if (result === 'won') {
    if (state.role === 'pre-candidate') {
      startElection(state, false);
    } else {
      becomeLeader(state);
    }
  }
}

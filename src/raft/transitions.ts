import { assert } from '../base/assert.ts';
import { ENTRY_NORMAL, NOBODY, type NodeId, TERM_MAX, type Term } from './messages.ts';
import type { RaftState } from './state.ts';

const NO_DATA = new Uint8Array(0);

/** What every change of role or term leaves behind. */
function reset(state: RaftState, term: Term): void {
  assert(term >= state.term, 'a term never falls');
  if (term !== state.term) {
    state.term = term;
    state.vote = NOBODY;
  }
  state.leader = NOBODY;
  state.electionElapsed = 0;
  state.heartbeatElapsed = 0;
  state.drawElectionTimeout();
  state.isSelfVoteDue = false;
  state.termStart = 0;
  state.pendingConfig = 0;
  state.uncommittedBytes = 0;
  state.transferTarget = NOBODY;
  state.isReplicationDue = false;
  state.tracker.clearVotes();
  state.reads.reset();
}

/** `leader` is '' when none is known in `term`. */
export function becomeFollower(state: RaftState, term: Term, leader: NodeId): void {
  reset(state, term);
  state.role = 'follower';
  state.leader = leader;
}

/** Asks whether an election could be won, without changing term or vote (Raft thesis 9.6). */
export function becomePreCandidate(state: RaftState): void {
  assert(state.role !== 'leader', 'a leader does not campaign');
  reset(state, state.term);
  state.role = 'pre-candidate';
  state.counters.preElections += 1;
}

export function becomeCandidate(state: RaftState): void {
  assert(state.role !== 'leader', 'a leader does not campaign');
  assert(state.term < TERM_MAX, 'terms are used up');
  reset(state, state.term + 1);
  state.role = 'candidate';
  state.vote = state.id;
  state.isSelfVoteDue = true;
  state.counters.elections += 1;
}

export function becomeLeader(state: RaftState): void {
  assert(state.role === 'candidate', 'only a candidate becomes leader');
  assert(state.durableTerm === state.term, 'leads on a vote that is not durable');
  const { log, tracker } = state;
  reset(state, state.term);
  state.role = 'leader';
  state.leader = state.id;
  tracker.resetProgress(log.lastIndex(), log.durableIndex());
  tracker.progress(state.id)?.becomeReplicate();
  // Some entry of the log may be a membership change; looking for it costs more than waiting for all of them.
  state.pendingConfig = log.lastIndex();
  // An entry of an older term is committed only by one of this term on top of it (R1; Raft paper 5.4.2).
  state.termStart = log.lastIndex() + 1;
  log.push({ term: state.term, index: state.termStart, type: ENTRY_NORMAL, data: NO_DATA });
  state.isReplicationDue = true;
  state.counters.leaderships += 1;
}

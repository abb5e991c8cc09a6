import { isPlanted } from '../base/planted.ts';
import { hasUnappliedConfig } from './campaign.ts';
import { type Index, type Message, makeMessage, NOBODY, type Term } from './messages.ts';
import type { RaftState } from './state.ts';
import { becomeFollower } from './transitions.ts';

/**
 * A leader was heard within the shortest election timeout: then nobody needs a new one, and the request comes from a
 * node that was cut off or removed (Raft thesis 4.2.3). A transfer is the leader's own wish.
 */
export function isVoteUnwelcome(state: RaftState, message: Message): boolean {
  const hasLiveLeader = state.leader !== NOBODY && state.electionElapsed < state.limits.electionTicks;
  return hasLiveLeader && !message.force;
}

/**
 * Answers a vote or pre-vote request; its term is not behind. A node answers also when it believes to be a learner, or
 * no member: the newest members, which it may not know yet, may need its vote (R17).
 */
export function handleVoteRequest(state: RaftState, message: Message): void {
  if (state.role !== 'leader') {
    // A node that is a voter again, and does not know that this is committed, cannot stand for election; and with the longer log it votes for nobody. Seen by the
    // simulator: the leader that made it one had sent it an entry, and lost that itself. raft-rs tells it with the request, too.
    learnCommit(state, message.commit, message.context);
  }
  const isPreVote = message.type === 'pre-vote';
  const isFree = state.vote === NOBODY && state.leader === NOBODY;
  const canVote = state.vote === message.from || isFree || (isPreVote && message.term > state.term);
  const isGranted = canVote && state.log.isUpToDate(message.index, message.logTerm);
  if (isGranted && !isPreVote) {
    state.electionElapsed = 0;
    state.vote = message.from;
  }
  const answer = { type: isPreVote ? 'pre-vote-response' : 'vote-response', from: state.id, to: message.from } as const;
  if (isGranted) {
    // A granted pre-vote is for the term asked about, which nobody is in yet.
    const grant = makeMessage({ ...answer, term: message.term });
    if (isPlanted('R3-vote-before-persist')) {
      state.messages.push(grant);
    } else {
      state.sendAfterPersist(grant);
    }
  } else {
    refuseVote(state, answer);
  }
}

/**
 * A refusal tells the term this node is in and what it knows to be committed. Without the latter the group can lock up:
 * a leader that applied its own removal and stepped down has the longer log, and the rest, which does not know yet that
 * the removal is committed, needs its vote (seen by the simulator; raft-rs passes the commit index on for this, too).
 */
export function refuseVote(state: RaftState, answer: Pick<Message, 'type' | 'from' | 'to'>): void {
  const { log, term } = state;
  const index = log.committed;
  state.sendAfterPersist(makeMessage({ ...answer, term, reject: true, index, logTerm: Math.max(log.term(index), 0) }));
}

/**
 * A refusal names an entry that is committed, and so does a request: if it is in this log too, it is committed here, and all before it. Should
 * a membership change be among that, the campaign was for the wrong voters and ends (rule 2 of config-change.ts).
 */
export function learnCommit(state: RaftState, index: Index, term: Term): void {
  if (term === 0 || !state.log.matches(index, term)) {
    return;
  }
  if (state.log.commitTo(index) && state.role !== 'follower' && hasUnappliedConfig(state)) {
    becomeFollower(state, state.term, NOBODY);
  }
}

import { type Message, makeMessage, NOBODY } from './messages.ts';
import type { RaftState } from './state.ts';
import { becomeFollower } from './transitions.ts';
import { isVoteUnwelcome, learnCommit, refuseVote } from './voting.ts';

/**
 * Raft paper 5.1: who sees a later term follows it; what is of an earlier term is refused. False when the message is
 * dealt with. After true its term is this node's, or one it may be in next (pre-vote).
 */
export function settleTerm(state: RaftState, message: Message): boolean {
  if (message.term === state.term) {
    return true;
  }
  return message.term > state.term ? meetLaterTerm(state, message) : meetEarlierTerm(state, message);
}

function meetLaterTerm(state: RaftState, message: Message): boolean {
  switch (message.type) {
    case 'vote':
    case 'pre-vote':
      if (isVoteUnwelcome(state, message)) {
        state.counters.messagesIgnored += 1;
        return false;
      }
      if (message.type === 'vote') {
        becomeFollower(state, message.term, NOBODY);
      }
      return true;
    case 'pre-vote-response':
      // A grant is of the term asked about, which nobody is in yet. A refusal tells of a real one.
      if (message.reject) {
        becomeFollower(state, message.term, NOBODY);
        if (message.reject) learnCommit(state, message.index, message.logTerm);
      }
      return !message.reject;
    case 'append':
    case 'heartbeat':
    case 'snapshot':
      becomeFollower(state, message.term, message.from);
      return true;
    default:
      becomeFollower(state, message.term, NOBODY);
      return true;
  }
}

function meetEarlierTerm(state: RaftState, message: Message): boolean {
  const { id, term } = state;
  switch (message.type) {
    case 'append':
    case 'heartbeat':
    case 'snapshot':
      // A leader that has not heard of this term. If this node got here while cut off, its requests for votes are
      // ignored as long as that leader lives; only this answer lets both meet in a new term.
      state.sendAfterPersist(makeMessage({ type: 'append-response', from: id, to: message.from, term }));
      break;
    case 'pre-vote':
      // Tells the term, or a node that fell behind could never ask about the right one.
      refuseVote(state, { type: 'pre-vote-response', from: id, to: message.from });
      break;
    default:
      state.counters.messagesIgnored += 1;
  }
  return false;
}

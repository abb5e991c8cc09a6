import { onVote } from './campaign.ts';
import { handleAppend, handleHeartbeat, handleSnapshot } from './follower.ts';
import type { Message } from './messages.ts';
import type { RaftState } from './state.ts';
import { becomeFollower } from './transitions.ts';
import { learnCommit } from './voting.ts';

/** Candidates and pre-candidates. The message's term is this node's, except for granted pre-votes: one above. */
export function stepCandidate(state: RaftState, message: Message): void {
  switch (message.type) {
    case 'append':
      becomeFollower(state, message.term, message.from);
      handleAppend(state, message);
      break;
    case 'heartbeat':
      becomeFollower(state, message.term, message.from);
      handleHeartbeat(state, message);
      break;
    case 'snapshot':
      becomeFollower(state, message.term, message.from);
      handleSnapshot(state, message);
      break;
    case 'pre-vote-response': {
      const isOurs = message.reject || message.term === state.term + 1;
      if (state.role === 'pre-candidate' && isOurs) {
        if (message.reject) learnCommit(state, message.index, message.logTerm);
      }
      if (state.role === 'pre-candidate' && isOurs) {
        onVote(state, message.from, !message.reject);
      }
      break;
    }
    case 'vote-response':
      if (state.role === 'candidate') {
        if (message.reject) learnCommit(state, message.index, message.logTerm);
      }
      if (state.role === 'candidate') {
        onVote(state, message.from, !message.reject);
      }
      break;
    case 'read-index-response':
      state.readStates.push({ context: message.context, index: message.index });
      break;
    default:
      state.counters.messagesIgnored += 1;
  }
}

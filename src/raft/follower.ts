import { assert } from '../base/assert.ts';
import { isPlanted } from '../base/planted.ts';
import { startElection, startPreElection, whyNotCampaign } from './campaign.ts';
import { type Message, makeMessage, NOBODY } from './messages.ts';
import type { RaftState } from './state.ts';

/** Followers, pre-candidates and candidates wait for a leader alike. */
export function tickElection(state: RaftState): void {
  state.electionElapsed += 1;
  if (state.electionElapsed < state.electionTimeout) {
    return;
  }
  if (!state.isPromotable) {
    // It cannot do anything about it, but whoever asks it is told that the leader is silent: a learner, or a node that was removed.
    state.leader = NOBODY;
    return;
  }
  state.electionElapsed = 0;
  if (whyNotCampaign(state) === null) {
    startPreElection(state);
  }
}

/** The message's term is this node's. */
export function stepFollower(state: RaftState, message: Message): void {
  switch (message.type) {
    case 'append':
      followLeader(state, message);
      handleAppend(state, message);
      break;
    case 'heartbeat':
      followLeader(state, message);
      handleHeartbeat(state, message);
      break;
    case 'snapshot':
      followLeader(state, message);
      handleSnapshot(state, message);
      break;
    case 'timeout-now':
      handleTimeoutNow(state);
      break;
    case 'read-index-response':
      state.readStates.push({ context: message.context, index: message.index });
      break;
    default:
      // Answers to what this node asked in another role.
      state.counters.messagesIgnored += 1;
  }
}

function followLeader(state: RaftState, message: Message): void {
  assert(state.leader === NOBODY || state.leader === message.from, () => `two leaders in term ${state.term}`);
  state.electionElapsed = 0;
  state.leader = message.from;
}

/** The leader asks this node to take over: no pre-vote, since nobody is cut off (Raft thesis 3.10). */
function handleTimeoutNow(state: RaftState): void {
  if (whyNotCampaign(state) === null) {
    startElection(state, true);
  }
}

export function handleAppend(state: RaftState, message: Message): void {
  const { log, id, term } = state;
  const answer = { type: 'append-response', from: id, to: message.from, term } as const;
  if (message.index < log.committed) {
    // What is committed matches in any case.
    state.sendAfterPersist(makeMessage({ ...answer, index: log.committed }));
    return;
  }
  const matched = log.tryAppend(message.index, message.logTerm, message.entries);
  if (matched >= 0) {
    // Only up to what this message proves to match (Raft paper, figure 2, AppendEntries step 5).
    log.commitTo(Math.min(message.commit, matched));
    const acknowledgement = makeMessage({ ...answer, index: matched });
    if (isPlanted('R4-ack-before-persist')) {
      state.send(acknowledgement);
    } else {
      state.sendAfterPersist(acknowledgement);
    }
    return;
  }
  state.counters.appendsRefused += 1;
  // The highest place that can still match: up to the leader's previous entry its log has no term above logTerm.
  const hint = log.findConflictByTerm(Math.min(message.index, log.lastIndex()), message.logTerm);
  const hintTerm = Math.max(log.term(hint), 0);
  state.sendAfterPersist(
    makeMessage({ ...answer, index: message.index, reject: true, rejectHint: hint, logTerm: hintTerm }),
  );
}

export function handleHeartbeat(state: RaftState, message: Message): void {
  state.log.commitTo(message.commit);
  const { id, term } = state;
  const { from, context } = message;
  state.send(makeMessage({ type: 'heartbeat-response', from: id, to: from, term, context }));
}

export function handleSnapshot(state: RaftState, message: Message): void {
  const { log, id, term } = state;
  const snapshot = message.snapshot;
  assert(snapshot !== null, 'snapshot message without a snapshot');
  if (snapshot.index > log.committed) {
    if (log.matches(snapshot.index, snapshot.term)) {
      // The log has it all; only the commit index was behind.
      log.commitTo(snapshot.index);
    } else {
      log.restore(snapshot);
    }
  }
  // Never the end of the log: behind the snapshot there may be entries that this leader does not have.
  const index = isPlanted('R19-ack-log-end') ? log.lastIndex() : log.committed;
  const answer = makeMessage({ type: 'append-response', from: id, to: message.from, term, index });
  if (isPlanted('R19-ack-before-install')) {
    state.send(answer);
  } else {
    state.sendAfterPersist(answer);
  }
}

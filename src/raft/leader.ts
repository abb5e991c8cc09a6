import { assert } from '../base/assert.ts';
import { isPlanted } from '../base/planted.ts';
import { INDEX_MAX, type Message, makeMessage, NOBODY, type NodeId } from './messages.ts';
import type { Progress } from './progress.ts';
import type { PendingRead } from './read-only.ts';
import { broadcastHeartbeat, replicate } from './replication.ts';
import type { RaftState } from './state.ts';
import { becomeFollower } from './transitions.ts';

/** The longest wait before a snapshot is sent again, in election timeouts. */
const SNAPSHOT_WAIT_ELECTIONS_MAX = 16;

export function tickLeader(state: RaftState): void {
  state.electionElapsed += 1;
  state.heartbeatElapsed += 1;
  for (const node of state.tracker.peers) {
    const progress = state.tracker.progress(node);
    if (progress !== undefined && progress.snapshotWait > 0) progress.snapshotWait -= 1;
  }
  if (state.electionElapsed >= state.limits.electionTicks) {
    state.electionElapsed = 0;
    if (!state.tracker.checkQuorumActive() && !isPlanted('R10-no-quorum-check')) {
      // Cut off from the majority: others may have a leader by now (R10).
      becomeFollower(state, state.term, NOBODY);
      return;
    }
    // A transfer gets one election timeout (Raft thesis 3.10); then this node takes proposals again.
    state.transferTarget = NOBODY;
  }
  if (state.heartbeatElapsed >= state.limits.heartbeatTicks) {
    state.heartbeatElapsed = 0;
    broadcastHeartbeat(state);
  }
}

/** The message's term is this node's. */
export function stepLeader(state: RaftState, message: Message): void {
  if (message.type === 'append' || message.type === 'heartbeat' || message.type === 'snapshot') {
    assert(false, () => `two leaders in term ${state.term}`);
  }
  const progress = state.tracker.progress(message.from);
  if (progress === undefined) {
    state.counters.messagesIgnored += 1;
    return;
  }
  if (message.type === 'append-response') {
    progress.isActive = true;
    if (message.reject) {
      handleRefusal(state, message, progress);
    } else {
      handleAcknowledgement(state, message, progress);
    }
  } else if (message.type === 'heartbeat-response') {
    progress.isActive = true;
    handleHeartbeatResponse(state, message, progress);
  } else {
    state.counters.messagesIgnored += 1;
  }
}

/**
 * Probing goes term by term, not entry by entry (Raft paper 5.3). The follower has no entry of a term above the hint's
 * up to the hint, so places where our term is higher than that cannot match.
 */
function handleRefusal(state: RaftState, message: Message, progress: Progress): void {
  const { rejectHint, logTerm } = message;
  const hint = logTerm > 0 ? state.log.findConflictByTerm(rejectHint, logTerm) : rejectHint;
  if (progress.maybeRetreat(message.index, hint)) {
    if (progress.state === 'replicate') {
      progress.becomeProbe();
    }
    replicate(state, message.from, true);
  }
}

function handleAcknowledgement(state: RaftState, message: Message, progress: Progress): void {
  const { log } = state;
  assert(message.index <= log.lastIndex(), () => `${message.from} acknowledges more than the log holds`);
  const isKnown = !progress.maybeAdvance(message.index);
  if (isKnown && !(progress.state === 'probe' && message.index === progress.match)) {
    return;
  }
  if (progress.state === 'replicate') {
    progress.inflights.freeTo(message.index);
  } else if (progress.state === 'probe' || progress.match + 1 >= log.firstIndex()) {
    // Also from a snapshot, whichever one was installed: the log now joins up with what the node has.
    progress.becomeReplicate();
  }
  maybeCommit(state);
  replicate(state, message.from);
  if (message.from === state.transferTarget && progress.match === log.lastIndex()) {
    sendTimeoutNow(state, message.from);
  }
}

function handleHeartbeatResponse(state: RaftState, message: Message, progress: Progress): void {
  progress.isPaused = false;
  if (progress.match < state.log.lastIndex() || progress.state === 'probe') {
    // Empty if need be: the answer brings back a lost acknowledgement, or ends the probe (R20, R22).
    replicate(state, message.from, true);
  }
  if (message.context > 0) {
    state.reads.onAck(message.from, message.context);
    answerProvenReads(state);
  }
}

/** The position that is durable on a majority is committed if its entry is of this term (R1; Raft paper 5.4.2). */
export function maybeCommit(state: RaftState): void {
  const { log, tracker, reads } = state;
  const index = tracker.majorityMatch();
  const isOfTerm = log.term(index) === state.term || isPlanted('R1-commit-older-term');
  if (index <= log.committed || !isOfTerm) {
    return;
  }
  log.commitTo(index);
  state.isReplicationDue = true;
  if (reads.hasEarly) {
    for (const read of reads.takeEarly()) {
      admitRead(state, read.from, read.context);
    }
  }
}

/** The entries that this node wrote are durable, so they count from now on (R4). */
export function onOwnAppendDurable(state: RaftState): void {
  const progress = state.tracker.progress(state.id);
  const own = isPlanted('R4-count-unsynced') ? state.log.lastIndex() : state.log.durableIndex();
  if (progress?.maybeAdvance(own)) {
    maybeCommit(state);
  }
}

/** A read for which this node, the leader, is asked. False: too many wait. */
export function addRead(state: RaftState, from: NodeId, context: number): boolean {
  if (state.reads.isFull) {
    return false;
  }
  if (state.hasCommittedInTerm || isPlanted('R2-read-before-own-commit')) {
    admitRead(state, from, context);
  } else {
    state.reads.addEarly(from, context);
  }
  return true;
}

function admitRead(state: RaftState, from: NodeId, context: number): void {
  state.reads.add(from, context, state.log.committed);
  if (state.tracker.isOnlyVoter || isPlanted('R11-lease-read')) {
    state.reads.beginRound();
    answerProvenReads(state);
  }
}

/** Also after a change of the members, when fewer answers may do. */
export function answerProvenReads(state: RaftState): void {
  const isLease = isPlanted('R11-lease-read');
  const round = isLease ? INDEX_MAX : state.tracker.majorityOfFigures(state.reads.acks, Number.MAX_SAFE_INTEGER);
  for (const read of state.reads.takeProven(round)) {
    answerRead(state, read);
  }
}

function answerRead(state: RaftState, read: PendingRead): void {
  const { from, context, index } = read;
  if (from === state.id) {
    state.readStates.push({ context, index });
  } else {
    const { id, term } = state;
    state.send(makeMessage({ type: 'read-index-response', from: id, to: from, term, context, index }));
  }
}

export type TransferResult =
  | 'started'
  | 'not-leader'
  /** The target leads already. A transfer to another node that was under way is given up. */
  | 'self'
  /** The target is no voter. */
  | 'not-voter'
  /** This transfer is under way. */
  | 'under-way';

/** Raft thesis 3.10: stop taking proposals, bring the target up to date, tell it not to wait for its timeout. */
export function startTransfer(state: RaftState, target: NodeId): TransferResult {
  if (state.role !== 'leader') {
    return 'not-leader';
  }
  if (target === state.id) {
    // Whoever wants this leader does not want the other one any more; else proposals stay refused for nobody's sake.
    state.transferTarget = NOBODY;
    return 'self';
  }
  const progress = state.tracker.progress(target);
  if (progress === undefined || progress.isLearner) {
    return 'not-voter';
  }
  if (state.transferTarget === target) {
    return 'under-way';
  }
  state.transferTarget = target;
  state.electionElapsed = 0;
  if (progress.match === state.log.lastIndex()) {
    sendTimeoutNow(state, target);
  } else {
    replicate(state, target, true);
  }
  return 'started';
}

function sendTimeoutNow(state: RaftState, to: NodeId): void {
  const { id, term } = state;
  state.send(makeMessage({ type: 'timeout-now', from: id, to, term }));
}

/** The transport could not reach the node: what is in flight is lost. */
export function onUnreachable(state: RaftState, node: NodeId): void {
  const progress = state.tracker.progress(node);
  if (state.role === 'leader' && node !== state.id && progress?.state === 'replicate') {
    progress.becomeProbe();
  }
}

/** The transport knows what became of a snapshot. Without this the node would get nothing ever after (R20). */
export function onSnapshotReport(state: RaftState, node: NodeId, isDelivered: boolean): void {
  const progress = state.tracker.progress(node);
  if (state.role !== 'leader' || progress?.state !== 'snapshot') {
    return;
  }
  if (!isDelivered) {
    progress.pendingSnapshot = 0;
  }
  progress.becomeProbe();
  // Delivered: its acknowledgement comes first. Failed: not again before a heartbeat is answered.
  progress.isPaused = true;
  progress.snapshotWait = snapshotWaitTicks(progress.snapshotsTried, state.limits.electionTicks);
}

/**
 * A first failure may be a broken connection, and costs a heartbeat, as in etcd's raft. A node that takes none (its disk is full, it cannot read it)
 * would be sent all of it again with every heartbeat, which the network and both disks feel: 1, 2, 4 … election timeouts lie between the others.
 */
function snapshotWaitTicks(tried: number, electionTicks: number): number {
  return tried < 2 ? 0 : electionTicks * Math.min(SNAPSHOT_WAIT_ELECTIONS_MAX, 2 ** (tried - 2));
}

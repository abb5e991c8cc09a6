import { assert } from '../base/assert.ts';
import { sumEntryBytes } from './entries.ts';
import { type Entry, makeMessage, type NodeId } from './messages.ts';
import type { Progress } from './progress.ts';
import type { RaftState } from './state.ts';
import { NO_TERM } from './storage.ts';

const NOTHING: readonly Entry[] = Object.freeze([]);

/** Sends what each peer lacks, as far as its window allows, and the commit index where it is news. */
export function replicateAll(state: RaftState): void {
  state.isReplicationDue = false;
  for (const node of state.tracker.peers) {
    replicate(state, node);
  }
}

/** `force`: one append in any case, also an empty one, as an answer to which the node shows where it stands. */
export function replicate(state: RaftState, node: NodeId, force = false): void {
  const progress = state.tracker.progress(node);
  assert(progress !== undefined, 'no progress of this node');
  let isForced = force;
  while (trySendAppend(state, node, progress, isForced || progress.needsCommit(state.log.committed))) {
    isForced = false;
  }
}

function trySendAppend(state: RaftState, node: NodeId, progress: Progress, allowEmpty: boolean): boolean {
  if (progress.isBlocked) {
    return false;
  }
  const { log, limits, id, term } = state;
  const previous = progress.next - 1;
  const logTerm = log.term(previous);
  if (logTerm === NO_TERM) {
    return trySendSnapshot(state, node, progress);
  }
  // A full window lets an empty append through: should all of the window be lost, its answer says so.
  const isWindowFull = progress.state === 'replicate' && progress.inflights.isFull;
  const entries = isWindowFull ? NOTHING : log.entriesFrom(progress.next, limits.appendBytesMax);
  if (entries === null) {
    return trySendSnapshot(state, node, progress);
  }
  if (entries.length === 0 && !allowEmpty) {
    return false;
  }
  const commit = log.committed;
  state.send(makeMessage({ type: 'append', from: id, to: node, term, index: previous, logTerm, commit, entries }));
  progress.onSent(entries.length, sumEntryBytes(entries), commit);
  return entries.length > 0;
}

/** False also when one was sent: nothing may follow it. */
function trySendSnapshot(state: RaftState, node: NodeId, progress: Progress): boolean {
  if (!progress.isActive || progress.snapshotWait > 0) {
    return false;
  }
  const snapshot = state.log.snapshot();
  if (snapshot === null) {
    return false;
  }
  assert(snapshot.index > 0, 'the log is compacted without a snapshot');
  const { id, term } = state;
  progress.becomeSnapshot(snapshot.index);
  state.counters.snapshotsSent += 1;
  state.send(makeMessage({ type: 'snapshot', from: id, to: node, term, snapshot }));
  return false;
}

/** Carries the commit index only as far as the node's log is known to match, and the newest read round. */
export function broadcastHeartbeat(state: RaftState): void {
  const { id, term, log, reads, tracker } = state;
  const context = reads.beginRound();
  for (const to of tracker.peers) {
    const progress = tracker.progress(to);
    assert(progress !== undefined, 'no progress of a peer');
    const commit = Math.min(progress.match, log.committed);
    state.send(makeMessage({ type: 'heartbeat', from: id, to, term, commit, context }));
  }
}

import type { ConfigState, Index, NodeId, Role, Term } from './messages.ts';
import type { ProgressState } from './progress.ts';
import type { RaftState } from './state.ts';

export interface PeerStatus {
  readonly node: NodeId;
  readonly state: ProgressState;
  readonly match: Index;
  readonly next: Index;
  readonly isLearner: boolean;
  readonly isActive: boolean;
  readonly isBlocked: boolean;
  readonly inflight: number;
  readonly pendingSnapshot: Index;
}

/** A copy for people and tests. */
export interface RaftStatus {
  readonly id: NodeId;
  readonly role: Role;
  readonly term: Term;
  readonly vote: NodeId;
  readonly leader: NodeId;
  readonly committed: Index;
  readonly applied: Index;
  readonly firstIndex: Index;
  readonly lastIndex: Index;
  readonly durableIndex: Index;
  readonly uncommittedBytes: number;
  readonly transferTarget: NodeId;
  readonly config: ConfigState;
  /** Only on the leader: the other members, sorted by name. */
  readonly peers: readonly PeerStatus[];
}

export function describe(state: RaftState): RaftStatus {
  const { log, tracker } = state;
  return {
    id: state.id,
    role: state.role,
    term: state.term,
    vote: state.vote,
    leader: state.leader,
    committed: log.committed,
    applied: log.applied,
    firstIndex: log.firstIndex(),
    lastIndex: log.lastIndex(),
    durableIndex: log.durableIndex(),
    uncommittedBytes: state.uncommittedBytes,
    transferTarget: state.transferTarget,
    config: tracker.config,
    peers: state.role === 'leader' ? tracker.peers.map((node) => describePeer(state, node)) : [],
  };
}

function describePeer(state: RaftState, node: NodeId): PeerStatus {
  const progress = state.tracker.progress(node);
  return {
    node,
    state: progress?.state ?? 'probe',
    match: progress?.match ?? 0,
    next: progress?.next ?? 1,
    isLearner: progress?.isLearner ?? false,
    isActive: progress?.isActive ?? false,
    isBlocked: progress?.isBlocked ?? false,
    inflight: progress?.inflights.count ?? 0,
    pendingSnapshot: progress?.pendingSnapshot ?? 0,
  };
}

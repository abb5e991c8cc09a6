import type { Message, NodeId } from '../raft/messages.ts';

/** What the cluster knows of a member, beside whether it votes. In the log and in snapshots. */
export interface Member {
  readonly node: NodeId;
  /** 128 random bits in hex, made with the data directory: a node that lost its disk is another instance, and no voter (R23). */
  readonly instance: string;
  /** HOST:PORT where peers reach its Raft port. */
  readonly raft: string;
  /** HOST:PORT where clients and peers reach its gRPC port. */
  readonly grpc: string;
  /** Highest version of frames and log entries that it knows. */
  readonly protocol: number;
}

/** The newest version of frames between peers and of log entries that this program knows, and the oldest that it speaks. */
export const PROTOCOL_VERSION = 1;
export const PROTOCOL_VERSION_MIN = 1;

/** What travels between the Raft ports of two members, as plain objects; src/net has the bytes. */
/** A run that is traced: its place in the frame, and the context of the trace (base/trace-context.ts). */
export interface RunTrace {
  readonly index: number;
  readonly context: Uint8Array;
}

export type PeerFrame =
  /** Of a `snapshot` the bytes go a way of their own (PeerNetwork.sendSnapshot). */
  | { readonly kind: 'raft'; readonly message: Message }
  /**
   * To the leader: runs of commands of the sender for its next log entries, in their order. A run begins with its ORIGIN_RUN (src/allot/commands.ts), which
   * names node and incarnation and numbers the run.
   */
  | { readonly kind: 'runs'; readonly runs: readonly Uint8Array[]; readonly traces?: readonly RunTrace[] }
  /** To everybody, for the leader: the sender's own row is not what the cluster knows of it (a new address, a newer program). */
  | { readonly kind: 'member'; readonly member: Member }
  /** Once a second to every peer: wall clock of the sender, epoch ms. */
  | { readonly kind: 'clock'; readonly wallMs: number };

/** A member as this node sees it. */
export interface MemberView extends Member {
  readonly isVoter: boolean;
  readonly isLeader: boolean;
  /** Known by the leader only, -1 elsewhere. */
  readonly match: number;
  /** Heard of within the last election timeout; known by the leader only. */
  readonly isActive: boolean;
  readonly openAllotments: number;
  /** Its wall clock less this node's, in ms, as of its last clock frame (the way here makes it smaller than it is); 0 for this node, null = not known. Over 1 s either way is worth an alarm. */
  readonly clockOffsetMs: number | null;
}

export interface ClusterView {
  readonly node: string;
  /** '' while none is known. */
  readonly leader: string;
  readonly term: number;
  readonly lastIndex: number;
  readonly committed: number;
  readonly applied: number;
  readonly members: readonly MemberView[];
}

export type MemberChange =
  /** As a learner. Repeating it for the same instance changes the addresses only. */
  | { readonly kind: 'add'; readonly member: Member }
  /** `instance` '': whichever it is. `force`: also when those that are heard now would have no majority. */
  | { readonly kind: 'remove'; readonly node: string; readonly instance: string; readonly force: boolean }
  | { readonly kind: 'promote'; readonly node: string }
  /** `node` '': the voter that has most of the log. */
  | { readonly kind: 'transfer'; readonly node: string };

/** `reason`: null when it is done, else a reason of the catalogue, and what it is about in words. */
export interface MemberChangeResult {
  readonly reason: string | null;
  readonly message: string;
}

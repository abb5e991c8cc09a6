import type { AllotMachine } from '../allot/allot-machine.ts';
import type { AllotLimits } from '../allot/allot-state.ts';
import type { Index, NodeId } from '../raft/messages.ts';
import type { RaftStorage } from '../raft/storage.ts';
import type { Member, PeerFrame } from './types.ts';

/** Bytes of a log entry and back: EnvelopeCodec of src/storage/raft-wal fits. */
export interface EntryCodec {
  encode(entry: { readonly kind: number; readonly time: number; readonly payload: Uint8Array }): Uint8Array;
  decode(bytes: Uint8Array): { readonly kind: number; readonly time: number; readonly payload: Uint8Array };
}

export interface ReplicaLimits {
  /** Commands of one log entry, in bytes; a single run may exceed it. */
  readonly entryBytesMax: number;
  /** One run, in bytes, unless a single piece of `submit` is larger. */
  readonly runBytesMax: number;
  /** Runs of this node that are not applied, in bytes; above it `submit` takes nothing. */
  readonly outstandingBytesMax: number;
  /** Runs of this node on their way to the leader, in bytes. */
  readonly windowBytes: number;
  /** On the leader: runs of one node that are not proposed, in bytes. What is beyond is dropped and comes again. */
  readonly intakeBytesMax: number;
  /** Changes of members that wait; one is made at a time. */
  readonly changesMax: number;
  /** An allotment that is open for so long, in ms of log time, is revoked. Infinity: never. */
  readonly openMsMax: number;
}

export interface ReplicaOptions {
  /** This node's row: its id, its instance, its addresses. */
  readonly own: Member;
  /** 8 random bytes of this process, as two little-endian halves. */
  readonly incarnationLow: number;
  readonly incarnationHigh: number;
  readonly storage: RaftStorage;
  /** What `machine` and `members` hold: the index of the snapshot. */
  readonly applied: Index;
  /** Of the election timeouts; different on every node. */
  readonly seed: number;
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  /** Ticks of about a second: clocks are told that often. */
  readonly secondTicks: number;
  readonly machine: AllotMachine;
  readonly members: readonly Member[];
  readonly codec: EntryCodec;
  /** raft.voters: learners become voters while there are fewer. */
  readonly votersMax: number;
  /** What the state machine is to hold at most: the log is told when this process starts, if it says something else. Left out: it says nothing. */
  readonly allotLimits?: AllotLimits;
  readonly limits?: Partial<ReplicaLimits>;
}

/** A frame, and the node it is for. Of a `snapshot` message the caller sends the bytes, and then calls `reportSnapshot`. */
export interface OutgoingFrame {
  readonly to: NodeId;
  readonly frame: PeerFrame;
}

export interface ReplicaCounters {
  /** Runs of other nodes that would not have been sound commands. */
  runsMalformed: number;
  /** Runs that came again. */
  runsRepeated: number;
  /** Runs behind one that is missing, or without room. */
  runsDropped: number;
  /** Own runs that were sent again. */
  runsResent: number;
  /** Frames of nodes that are no members. */
  framesRefused: number;
}

const MIB = 1024 * 1024;

export const LIMITS: ReplicaLimits = {
  entryBytesMax: MIB,
  runBytesMax: MIB / 4,
  outstandingBytesMax: 16 * MIB,
  windowBytes: 4 * MIB,
  intakeBytesMax: 8 * MIB,
  changesMax: 64,
  openMsMax: 60_000,
};

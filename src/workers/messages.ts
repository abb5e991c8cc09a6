import type { MessagePort } from 'node:worker_threads';
import type { SegmentSummary } from '../storage/embedded/sidecar.ts';

/**
 * Life cycle and administration between the main thread and the others, by MessagePort: typed unions, a few a second at most. Work travels on
 * the rings (link.ts).
 */

/** A log line of a thread: only the main thread writes. */
export interface LogLine {
  readonly kind: 'log';
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fields: Readonly<Record<string, string | number | boolean>>;
}

/** Shared memory of one shard's links. */
export interface ShardRings {
  readonly mainControl: SharedArrayBuffer;
  readonly mainPayload: SharedArrayBuffer;
  readonly toMainControl: SharedArrayBuffer;
  readonly toMainPayload: SharedArrayBuffer;
  readonly toRaft: SharedArrayBuffer;
  readonly fromRaft: SharedArrayBuffer;
}

export interface RaftThreadData {
  readonly dataDirectory: string;
  readonly nodeName: string;
  /** 128 random bits in hex (node.json). */
  readonly instanceId: string;
  readonly subjectsMax: number;
  readonly producersMax: number;
  /** Allotments that may be open at a time; more opens are refused. */
  readonly openPerNodeMax: number;
  readonly snapshotEntries: number;
  readonly snapshotBytes: number;
  readonly acceptClock: boolean;
  /** raft.heartbeat: one tick of the core. */
  readonly heartbeatMs: number;
  /** A RaftCounters block. */
  readonly counters: SharedArrayBuffer;
  readonly electionMs: number;
  readonly shards: number;
  readonly doorbell: SharedArrayBuffer;
  readonly mainDoorbell: SharedArrayBuffer;
  readonly failpoints: string;
}

export interface OpenAllotment {
  readonly subject: Uint8Array;
  readonly hash: number;
  readonly base: number;
  readonly count: number;
  /** Revoked already: only its void mark is missing. */
  readonly revoked: boolean;
}

export interface SubjectRow {
  readonly subject: Uint8Array;
  readonly first: number;
  readonly head: number;
  readonly settled: number;
}

export interface RaftStatus {
  readonly term: number;
  readonly applied: number;
  readonly lastIndex: number;
  readonly snapshotIndex: number;
  readonly subjects: number;
  readonly producers: number;
  readonly openAllotments: number;
  readonly logTime: number;
}

export type ToRaftThread =
  | {
      readonly kind: 'attach';
      readonly shard: number;
      readonly rings: ShardRings;
      readonly doorbell: SharedArrayBuffer;
    }
  | { readonly kind: 'detach'; readonly token: number; readonly shard: number }
  | { readonly kind: 'open-allotments'; readonly token: number }
  | {
      readonly kind: 'list-subjects';
      readonly token: number;
      readonly prefix: Uint8Array;
      readonly cursor: number;
      readonly limit: number;
    }
  | { readonly kind: 'status'; readonly token: number }
  | { readonly kind: 'stop'; readonly token: number };

export type FromRaftThread =
  | { readonly kind: 'ready'; readonly status: RaftStatus }
  | { readonly kind: 'fatal'; readonly reason: string; readonly message: string }
  | { readonly kind: 'detached'; readonly token: number }
  | { readonly kind: 'open-allotments'; readonly token: number; readonly allotments: readonly OpenAllotment[] }
  | { readonly kind: 'subjects'; readonly token: number; readonly rows: readonly SubjectRow[]; readonly next: number }
  | { readonly kind: 'status'; readonly token: number; readonly status: RaftStatus }
  | { readonly kind: 'stopped'; readonly token: number }
  | LogLine;

export interface ShardLimits {
  readonly bodyBytes: number;
  readonly headersBytes: number;
  readonly headersCount: number;
  readonly batchBytes: number;
  readonly lingerMs: number;
  readonly groupsInFlight: number;
}

export interface ShardStoreOptions {
  readonly segmentBytes: number;
  readonly lowSpaceBytes: number;
  readonly cacheBytes: number;
}

/** The one task of a shard thread: runs until it is told to stop. */
export interface ShardTask {
  readonly shard: number;
  readonly shards: number;
  readonly generation: number;
  /** A thread of this shard died in this process: its lane is not sealed yet. */
  readonly isReplacement: boolean;
  readonly dataDirectory: string;
  readonly rings: ShardRings;
  readonly doorbell: SharedArrayBuffer;
  readonly mainDoorbell: SharedArrayBuffer;
  readonly raftDoorbell: SharedArrayBuffer;
  readonly counters: SharedArrayBuffer;
  readonly limits: ShardLimits;
  readonly store: ShardStoreOptions;
  /** Allotments of its slots that were open when the process, or its predecessor, ended. */
  readonly leftOpen: readonly OpenAllotment[];
  readonly failpoints: string;
  readonly port: MessagePort;
}

export interface SegmentsReport {
  readonly segments: readonly SegmentSummary[];
  /** Bytes of the segment that is being written. */
  readonly openBytes: number;
}

export type ToShardThread =
  | { readonly kind: 'stop' }
  | { readonly kind: 'segments'; readonly token: number }
  /** Let go of these segments; `isTrimmed`: the log has to trim what is in them first. */
  | {
      readonly kind: 'release';
      readonly token: number;
      readonly segments: readonly number[];
      readonly isTrimmed: boolean;
    };

export type FromShardThread =
  | { readonly kind: 'ready' }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'fatal'; readonly reason: string; readonly message: string }
  | { readonly kind: 'segments'; readonly token: number; readonly report: SegmentsReport }
  | { readonly kind: 'released'; readonly token: number }
  | LogLine;

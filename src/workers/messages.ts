import type { MessagePort } from 'node:worker_threads';
import type { SubjectReport } from '../allot/queries.ts';
import type { SubjectScope } from '../base/subject-space.ts';
import type { PeerMaterial, PeerTlsSettings } from '../net/peer-tls.ts';
import type { ClusterView, Member, MemberChange, MemberChangeResult } from '../replica/types.ts';
import type { SegmentSummary } from '../storage/embedded/sidecar.ts';
import type { SlotColumns } from '../storage/embedded/slot-index.ts';
import type { DatabaseOptions } from '../storage/open-database.ts';
import type { LogLine } from '../telemetry/log.ts';
import type { ShardTraceSettings } from './tracing/shard-traces.ts';
import type { ForeignIds } from './tracing/trace-record.ts';

/**
 * Life cycle and administration between the main thread and the others, by MessagePort: typed unions, a few a second at most. Work travels on
 * the rings (link.ts).
 */

export type { ClusterView, MemberChange, MemberChangeResult, MemberView } from '../replica/types.ts';
export type { LogLine } from '../telemetry/log.ts';

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
  /** Entries that stay in memory behind a snapshot, for peers that lack a few: else each of them would be sent all of it. */
  readonly catchUpEntries: number;
  readonly acceptClock: boolean;
  /** The store is a database: it acknowledges behind the close, so closes are answered. */
  readonly hasDatabase: boolean;
  /** raft.heartbeat: one tick of the core. */
  readonly heartbeatMs: number;
  /** A RaftCounters block. */
  readonly counters: SharedArrayBuffer;
  readonly electionMs: number;
  /** shards.max */
  readonly shardsMax: number;
  /** Owner of each slot (SlotOwners). */
  readonly owners: SharedArrayBuffer;
  readonly doorbell: SharedArrayBuffer;
  readonly mainDoorbell: SharedArrayBuffer;
  readonly failpoints: string;
  /** Null: alone, with no Raft port, for as long as this process runs. */
  readonly cluster: ClusterThreadData | null;
  /** tracing.endpoint is set. */
  readonly isTracing?: boolean;
}

/** What a node with peers is told at its start. */
export interface ClusterThreadData {
  readonly clusterId: string;
  /** Where its Raft port listens; port 0: the system chooses. */
  readonly listen: { readonly host: string; readonly port: number };
  /** HOST:PORT as peers reach it; null: where it listens. */
  readonly raftAdvertise: string | null;
  readonly grpcAdvertise: string;
  /** raft.voters: learners become voters while there are fewer. */
  readonly votersMax: number;
  /** Of a node without state that joins: the members, as the cluster told them. Null: it has state, or is the first. */
  readonly joining: readonly Member[] | null;
  /** None or null: its Raft port speaks clear text. */
  readonly tls?: PeerTlsSettings | null;
}

/** Where an instance of a node says, by gossip, that its Raft port is. */
export interface RaftAddress {
  readonly node: string;
  readonly instance: string;
  /** HOST:PORT */
  readonly raft: string;
}

export interface OpenAllotment {
  readonly subject: Uint8Array;
  readonly hash: number;
  readonly base: number;
  readonly count: number;
  /** Revoked already: only its void mark is missing. */
  readonly revoked: boolean;
  /** Log time of its open, epoch ms, and the largest expiry of its messages in s, 0 if one never expires: a database files by them. */
  readonly openedAt: number;
  readonly expiresMax: number;
}

/** A batch that the log has closed as stored. */
export interface StoredAllotment {
  readonly subject: Uint8Array;
  readonly hash: number;
  readonly base: number;
}

export interface SubjectRow {
  readonly subject: Uint8Array;
  readonly first: number;
  readonly head: number;
  readonly settled: number;
}

export interface ReportPage {
  readonly reports: readonly SubjectReport[];
  /** -1: that was all. */
  readonly next: number;
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
      readonly scope: SubjectScope;
      readonly cursor: number;
      readonly limit: number;
    }
  | { readonly kind: 'status'; readonly token: number }
  /** Up to where the log has given ids of these subjects, packed as heads.ts says. Also before `lead`. */
  | { readonly kind: 'heads'; readonly token: number; readonly subjects: Uint8Array }
  /** What `verify` holds the store against: a page, as the log is applied here. */
  | {
      readonly kind: 'report-page';
      readonly token: number;
      readonly scope: SubjectScope;
      readonly cursor: number;
      readonly limit: number;
    }
  /** The same of some subjects, behind all that was committed anywhere before the question. */
  | { readonly kind: 'report-now'; readonly token: number; readonly subjects: readonly Uint8Array[] }
  /** With a database: it has nothing beyond the log. Nothing is written to the log before. */
  | { readonly kind: 'lead' }
  | { readonly kind: 'cluster'; readonly token: number }
  /** Only the leader can; elsewhere it is refused with NOT_LEADER. Answered when it is applied or refused. */
  | { readonly kind: 'change'; readonly token: number; readonly change: MemberChange }
  /** All that is known now; with peers only. */
  | { readonly kind: 'addresses'; readonly addresses: readonly RaftAddress[] }
  /** New certificates, for connections from now on; with TLS only. */
  | { readonly kind: 'certificates'; readonly material: PeerMaterial }
  | { readonly kind: 'stop'; readonly token: number };

export type FromRaftThread =
  /** `lastStored`: with a database, some of the last batches that must be in it. */
  | { readonly kind: 'ready'; readonly status: RaftStatus; readonly lastStored: readonly StoredAllotment[] }
  /** The log is recovered. */
  | { readonly kind: 'opened' }
  | { readonly kind: 'fatal'; readonly reason: string; readonly message: string }
  | { readonly kind: 'detached'; readonly token: number }
  | { readonly kind: 'open-allotments'; readonly token: number; readonly allotments: readonly OpenAllotment[] }
  | { readonly kind: 'subjects'; readonly token: number; readonly rows: readonly SubjectRow[]; readonly next: number }
  | { readonly kind: 'status'; readonly token: number; readonly status: RaftStatus }
  | { readonly kind: 'heads'; readonly token: number; readonly heads: readonly number[] }
  | { readonly kind: 'reports'; readonly token: number; readonly page: ReportPage }
  /** In the order of the question; null: the log does not know the subject. */
  | { readonly kind: 'reports-now'; readonly token: number; readonly reports: readonly (SubjectReport | null)[] }
  | { readonly kind: 'cluster'; readonly token: number; readonly cluster: ClusterView }
  | { readonly kind: 'changed'; readonly token: number; readonly result: MemberChangeResult }
  /** Who leads has changed; '' = nobody is known to. Unasked. */
  | { readonly kind: 'leader'; readonly leader: string; readonly grpc: string }
  /** The Raft port is open. */
  | { readonly kind: 'listening'; readonly port: number }
  /** Requests were applied whose answers a snapshot has swallowed: the shards that wait for them have to be replaced. */
  | { readonly kind: 'answers-lost' }
  /** This node led, and traced ids were given to another one. */
  | { readonly kind: 'gave-ids'; readonly ids: ForeignIds }
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
  /** The database that holds the messages; null: the embedded log. */
  readonly database: DatabaseOptions | null;
}

/** The one task of a shard thread: runs until it is told to stop. */
export interface ShardTask {
  readonly shard: number;
  /** By slot: 1 if it belongs to this shard. */
  readonly slots: Uint8Array;
  /** It also counts the segments of lanes that are not among `writtenLanes`: nobody else does. */
  readonly countsOthers: boolean;
  readonly writtenLanes: readonly number[];
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
  /** Other nodes give and close ids of the same subjects; the store is a database. */
  readonly hasPeers: boolean;
  /** Allotments of its slots that were open when the process, or its predecessor, ended. */
  readonly leftOpen: readonly OpenAllotment[];
  readonly failpoints: string;
  /** Null: nothing is traced. */
  readonly tracing: ShardTraceSettings | null;
  readonly port: MessagePort;
}

/** A subject that much is published to, with the messages that the shard's sketch has counted for it. */
export interface HotSubject {
  readonly tenant: string;
  readonly subject: string;
  readonly messages: number;
}

export interface HotSubjects {
  readonly subjects: readonly HotSubject[];
  /** Messages of all subjects, counted in the same way. */
  readonly total: number;
}

/** The lowest sequence of a publish stream that was refused and may come again, for one subject. */
export interface StreamFailure {
  readonly subject: Uint8Array;
  readonly hash: number;
  readonly stream: number;
  readonly sequence: number;
}

/** What a shard hands over of slots that it owns no longer. */
export interface ExportedSlots {
  readonly slots: readonly number[];
  /** The index of each, in the order of `slots`; null if nothing is known of it. Transferred. */
  readonly columns: readonly (SlotColumns | null)[];
  /** Refused batches of publish streams that later ones of them must not overtake. */
  readonly failures: readonly StreamFailure[];
  /** Positions of the rings to main behind which nothing concerns these slots. */
  readonly controlPosition: number;
  readonly payloadPosition: number;
}

export interface SegmentsReport {
  readonly segments: readonly SegmentSummary[];
  /** Bytes of the segment that is being written. */
  readonly openBytes: number;
}

export type ToShardThread =
  | { readonly kind: 'stop' }
  /** End as if something had failed: answers that are waited for will never come, and the thread in its place finds out in the store. */
  | { readonly kind: 'give-up'; readonly why: string }
  | { readonly kind: 'segments'; readonly token: number }
  /** Let go of these segments; `isTrimmed`: the log has to trim what is in them first. */
  | {
      readonly kind: 'release';
      readonly token: number;
      readonly segments: readonly number[];
      readonly isTrimmed: boolean;
    }
  /** The drain that the ring's record of this token began is given up, unless its slots were exported already. */
  | { readonly kind: 'cancel-drain'; readonly token: number }
  /** Own these slots from now on. */
  | {
      readonly kind: 'import';
      readonly token: number;
      readonly slots: readonly number[];
      readonly columns: readonly (SlotColumns | null)[];
      readonly failures: readonly StreamFailure[];
    }
  /** Count these sealed segments: the shard that did has stopped. */
  | { readonly kind: 'adopt'; readonly token: number; readonly segments: readonly SegmentSummary[] }
  /** The lane has a shard of its own again, which counts its segments. */
  | { readonly kind: 'disown'; readonly token: number; readonly lane: number }
  /** The shard's share of store.cache_bytes. */
  | { readonly kind: 'cache'; readonly bytes: number }
  | { readonly kind: 'hot'; readonly token: number; readonly limit: number };

export type FromShardThread =
  | { readonly kind: 'ready' }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'exported'; readonly token: number; readonly exported: ExportedSlots }
  | { readonly kind: 'drain-cancelled'; readonly token: number }
  /** `import`, `adopt` or `disown` was done. */
  | { readonly kind: 'done'; readonly token: number }
  | { readonly kind: 'hot'; readonly token: number; readonly hot: HotSubjects }
  | { readonly kind: 'fatal'; readonly reason: string; readonly message: string }
  | { readonly kind: 'segments'; readonly token: number; readonly report: SegmentsReport }
  | { readonly kind: 'released'; readonly token: number }
  | LogLine;

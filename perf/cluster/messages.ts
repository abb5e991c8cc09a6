/** What the threads of `allotments` are told and tell: each is one Raft node with its load. */
import type { Member } from '../../src/replica/types.ts';

export interface RaftWorkerData {
  readonly name: string;
  readonly folder: string;
  readonly clusterId: string;
  /** Null: it founds the cluster. */
  readonly joining: readonly Member[] | null;
  /** Requests of this node that are under way at a time, each of a producer of its own. */
  readonly inFlight: number;
  readonly subjects: number;
}

export type ToRaftWorker =
  | { readonly kind: 'start' }
  | { readonly kind: 'add'; readonly member: Member }
  | { readonly kind: 'voters' }
  /** The load begins. */
  | { readonly kind: 'run' }
  | { readonly kind: 'measure' }
  /** No new allotments; answered when the last is closed. */
  | { readonly kind: 'end' }
  | { readonly kind: 'state' }
  | { readonly kind: 'stop' };

/** Counters since the process began; differences are what counts. */
export interface RaftCounts {
  readonly atMs: number;
  /** Own allotments that are opened and closed, applied on this node. */
  readonly done: number;
  readonly entries: number;
  readonly bytes: number;
  /** fdatasyncs of the log. */
  readonly syncs: number;
  /** Share of the time in which the thread's event loop had something to do, since the last such answer. */
  readonly busy: number;
  readonly term: number;
  /** Ms from the open to its close, median and p99, since the last such answer. */
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export type FromRaftWorker =
  | { readonly kind: 'open'; readonly own: Member }
  | { readonly kind: 'started' }
  | { readonly kind: 'added' }
  | { readonly kind: 'voters'; readonly voters: number }
  | { readonly kind: 'running' }
  | { readonly kind: 'measured'; readonly counts: RaftCounts }
  | { readonly kind: 'ended' }
  | { readonly kind: 'state'; readonly applied: number; readonly hash: number; readonly open: number }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'failed'; readonly why: string };

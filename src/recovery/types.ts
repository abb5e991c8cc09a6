/** What `broker cluster recover`, `broker backup` and `broker restore` ask for and are told. */
import type { Config, StoreKind } from '../config/schema.ts';
import type { Progress } from '../verify/types.ts';

export type { Finding, Progress as VerifyProgress } from '../verify/types.ts';

export interface RecoveryProgress {
  /** In words, such as `reading the newest ids`. */
  readonly step: string;
  /** Subjects or bytes so far. */
  readonly done: number;
}

interface RunOptions {
  /** Names the data directory, the node, and how to reach the store. */
  readonly config: Config;
  /** Ends early, between two steps. `recover` and `restore` go on from there when they are run again; a backup begins anew, in another folder. */
  readonly interrupt: AbortSignal;
  readonly onProgress: (progress: RecoveryProgress) => void;
}

export interface RecoverRequest extends RunOptions {
  /** Otherwise nothing is changed: the plan alone. */
  readonly apply: boolean;
  /** Of the Raft state that is there only the heads are taken over. */
  readonly discardState: boolean;
  /** An id that no subject may be given again, 0 or more: what an operator knows and neither store nor log do. */
  readonly floor: number;
}

export interface RestoreRequest extends RunOptions {
  readonly from: string;
  readonly apply: boolean;
  readonly floor: number;
}

export interface BackupRequest extends RunOptions {
  readonly to: string;
}

export interface VerifyOfflineRequest {
  readonly config: Config;
  /** Only its subjects; '': all. */
  readonly tenant: string;
  /** Only subjects that begin with it. */
  readonly prefix: string;
  /** 0: as fast as it goes. */
  readonly bytesPerSecond: number;
  readonly interrupt: AbortSignal;
  readonly onProgress: (progress: Progress) => void;
}

/** What a recovery does, or would do. */
export interface RecoverySummary {
  readonly store: StoreKind;
  /** False: this is a plan. */
  readonly done: boolean;
  readonly nodeId: string;
  readonly clusterName: string;
  /** Null where nothing says which cluster it was. */
  readonly clusterBefore: string | null;
  /** Null in a plan. */
  readonly cluster: string | null;
  /** Nodes that have started on the database and are made to end; 0 with the embedded store. */
  readonly nodesFenced: number;
  /** Heads from the store, and from the log of the directory or of the backup. */
  readonly subjects: number;
  readonly subjectsOfLog: number;
  /** Ids that the log gave and the store does not reach to: lost, expired, trimmed, or never stored. Null where the store was not looked at. */
  readonly idsBeyondStore: number | null;
  /** Of any subject, as it was, and its name; 0 and '' if there is none. */
  readonly largestHead: number;
  readonly largestSubject: string;
  /** In whose space it is; '': in none. */
  readonly largestTenant: string;
  /** Every head moves by this. */
  readonly gap: number;
  /** Subjects that were not found begin behind it. */
  readonly floor: number;
  /** Log time of the new state, epoch ms. */
  readonly logTime: number;
  /** Producers that are forgotten, if a log tells how many; else null. */
  readonly producersForgotten: number | null;
  /** Where the Raft state that was there lies now, or null. */
  readonly discarded: string | null;
  readonly warnings: readonly string[];
}

export interface BackupSummary {
  readonly store: StoreKind;
  readonly to: string;
  readonly files: number;
  readonly bytes: number;
  readonly subjects: number;
  readonly producers: number;
  readonly logIndex: number;
  /** Epoch ms. */
  readonly logTime: number;
}

export type Outcome<T> =
  | { readonly kind: 'done'; readonly summary: T }
  | { readonly kind: 'refused'; readonly message: string; readonly next: string };

export interface Recovery {
  recover(request: RecoverRequest): Promise<Outcome<RecoverySummary>>;
  restore(request: RestoreRequest): Promise<Outcome<RecoverySummary>>;
  backup(request: BackupRequest): Promise<Outcome<BackupSummary>>;
  /** Resolves with the last progress. */
  verify(request: VerifyOfflineRequest): Promise<Outcome<Progress>>;
}

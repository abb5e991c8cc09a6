/** What a verification is given, what it asks, and what it tells. */

import type { SubjectReport } from '../allot/queries.ts';
import type { Reason } from '../base/errors.ts';
import type { SubjectScope } from '../base/subject-space.ts';
import type { DatabaseOptions } from '../storage/open-database.ts';

/** What a store and its log are held against each other for. Travels to the thread that does it. */
export interface VerifyTask {
  /** Folder of the lanes of the embedded store; null: `database`. */
  readonly segmentsPath: string | null;
  readonly database: DatabaseOptions | null;
  /** Only these subjects. */
  readonly scope: SubjectScope;
  /** Read at most; 0: as fast as it goes. */
  readonly bytesPerSecond: number;
  /** Of a node that has stopped: the time of its log's last entry, epoch ms. Null: the node runs, and it is now. */
  readonly stoppedAt: number | null;
  /** An id that is open for longer than this should have its verdict, in ms. */
  readonly openMsMax: number;
}

/** The log revokes what is open for a minute; then somebody writes the mark, and closes it. */
export const OPEN_MS_MAX = 180_000;

export type { SubjectReport } from '../allot/queries.ts';

/** The log as it is asked. The order of a listing is the same for ever; subjects that are born join at the end of their slot. */
export interface LogView {
  /** `cursor`: 0 to begin, then `next` of the page before; -1: that was all. */
  page(
    scope: SubjectScope,
    cursor: number,
    limit: number,
  ): Promise<{ readonly reports: readonly SubjectReport[]; readonly next: number }>;
  /** Behind all that was committed before the question; null: the log does not know the subject. */
  now(subjects: readonly Uint8Array[]): Promise<readonly (SubjectReport | null)[]>;
}

export type FindingKind = 'missing' | 'damaged' | 'twice' | 'beyond-head' | 'not-settled';

/** Ids [firstId, lastId] of the subject, of a tenant if it is not ''. Of a file that is damaged the subject is '' and the ids are 0. */
export interface Finding {
  readonly tenant: string;
  readonly subject: string;
  readonly firstId: number;
  readonly lastId: number;
  readonly kind: FindingKind;
  readonly detail: string;
}

/** Counts grow; `findings` are those since the progress before. */
export interface Progress {
  /** What it is at, in words. */
  readonly step: string;
  readonly subjectsDone: number;
  readonly subjectsTotal: number;
  readonly batches: number;
  readonly messages: number;
  readonly voids: number;
  readonly bytes: number;
  readonly findings: readonly Finding[];
  /** Also those that were too many to be told. */
  readonly findingsTotal: number;
  /** Ids that are missing in subjects some messages of which expire: expired or lost, nobody can tell. */
  readonly maybeExpired: number;
}

export type ToVerifyThread =
  | {
      readonly kind: 'page';
      readonly token: number;
      readonly reports: readonly SubjectReport[];
      readonly next: number;
    }
  | { readonly kind: 'now'; readonly token: number; readonly reports: readonly (SubjectReport | null)[] };

export type FromVerifyThread =
  | {
      readonly kind: 'page';
      readonly token: number;
      readonly scope: SubjectScope;
      readonly cursor: number;
      readonly limit: number;
    }
  | { readonly kind: 'now'; readonly token: number; readonly subjects: readonly Uint8Array[] }
  | { readonly kind: 'progress'; readonly progress: Progress }
  | { readonly kind: 'done'; readonly progress: Progress }
  /** `reason` null: a defect. */
  | { readonly kind: 'failed'; readonly reason: Reason | null; readonly message: string };

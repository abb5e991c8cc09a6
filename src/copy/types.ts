/** What `broker store copy` asks for and is told. */
import type { Config, StoreKind } from '../config/schema.ts';

export interface CopyRequest {
  /** Names the data directory, which has the log, and whatever the two stores need. */
  readonly config: Config;
  readonly from: StoreKind;
  readonly to: StoreKind;
  /** Writes nothing. */
  readonly compareOnly: boolean;
  /** The broker will start on the target from now on, if the comparison finds no difference. */
  readonly switchOver: boolean;
  /** Also if messages of the source are damaged or missing. */
  readonly acceptLoss: boolean;
  /** Ends early; what was copied stays, and the next run goes on. */
  readonly interrupt: AbortSignal;
  readonly onProgress: (progress: CopyProgress) => void;
  /** The final comparison, subject by subject. */
  readonly onSubject: (compared: ComparedSubject) => Promise<void>;
}

export interface CopyProgress {
  readonly phase: 'copying' | 'comparing';
  /** Ids that were dealt with, of `total`. */
  readonly done: number;
  readonly total: number;
  /** Of batches that were written to the target, or compared. */
  readonly bytes: number;
}

/** One store's batches and void marks of a subject. */
export interface Side {
  readonly batches: number;
  /** Messages, without voids. */
  readonly messages: number;
  /** Encoded. */
  readonly bytes: number;
  /** Ids; 0 if there are none. */
  readonly first: number;
  readonly last: number;
  /** CRC-32 over the batches in order, and the ids of the marks between them. */
  readonly checksum: number;
}

export interface ComparedSubject {
  /** In whose space it is; '': in none. */
  readonly tenant: string;
  readonly subject: string;
  readonly source: Side;
  readonly target: Side;
  /** The first difference in words, or null. */
  readonly difference: string | null;
}

export interface CopySummary {
  readonly from: StoreKind;
  readonly to: StoreKind;
  readonly subjects: number;
  /** In the source. */
  readonly batches: number;
  readonly messages: number;
  readonly bytes: number;
  /** Written by this run; batches that were in the target already are not written again. */
  readonly copiedBatches: number;
  readonly copiedBytes: number;
  readonly foundBatches: number;
  /** All of their messages have expired: they stay behind. */
  readonly expiredBatches: number;
  /** Batches of the source that cannot be read. */
  readonly damagedBatches: number;
  /** Ids without a batch or mark, of subjects in which nothing expires. */
  readonly missingIds: number;
  readonly differingSubjects: number;
  /** The directory belongs to the target now. */
  readonly switched: boolean;
  readonly ms: number;
}

export type CopyOutcome =
  | { readonly kind: 'done'; readonly summary: CopySummary }
  /** Nothing was changed, but for what earlier runs had copied. */
  | { readonly kind: 'refused'; readonly message: string; readonly next: string };

export type CopyStore = (request: CopyRequest) => Promise<CopyOutcome>;

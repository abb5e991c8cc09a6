import type { BrokerError } from '../../base/errors.ts';
import type { GroupTimes } from '../tracing/trace-record.ts';
import type { OpenBatch } from './open-batch.ts';
import type { ActiveSubject, Unresolved } from './subjects.ts';

/** Ids whose void mark has to go to the store. */
export interface VoidMark {
  readonly subject: ActiveSubject;
  readonly allotment: Unresolved;
  readonly publishedAt: number;
  /** As of the batch: a database files both by it. Seconds, 0 = never. */
  readonly expiresMax: number;
}

/** Batches that share one request for ids and one durable write. */
export interface Group {
  readonly batches: OpenBatch[];
  readonly marks: VoidMark[];
  /** Batches whose ids are not known yet. */
  unanswered: number;
  bytes: number;
  messages: number;
  /**
   * durable: in a database, behind one that is not yet. closing: the same, and the log has yet to say so. written: it may be acknowledged.
   */
  state: 'allotting' | 'ready' | 'writing' | 'durable' | 'closing' | 'written' | 'failed';
  /** Batches whose close is not applied yet. */
  unclosed: number;
  /** The database did not say what became of a write: it may still read the memory of the batches. */
  wasUncertain: boolean;
  /** Why the store took nothing of it. */
  error: BrokerError | null;
  writingSince: number;
  /** When the log was last asked for something of it, ms of performance.now(): for its ids, then to close it. */
  askedAt: number;
  /** Null if nothing of it is traced. */
  times: GroupTimes | null;
}

export function newGroup(batches: OpenBatch[], marks: VoidMark[]): Group {
  return {
    batches,
    marks,
    unanswered: 0,
    bytes: 0,
    messages: 0,
    state: 'allotting',
    unclosed: 0,
    wasUncertain: false,
    error: null,
    writingSince: 0,
    askedAt: 0,
    times: null,
  };
}

/** The log has not been told that it is stored, so all of it can still be taken back. */
export function isUnclosed({ state }: Group): boolean {
  return state === 'allotting' || state === 'ready' || state === 'writing' || state === 'durable';
}

/** Ids that were taken back because their batch could not be stored; their calls are answered once the revoke is applied. */
export interface Revocation extends VoidMark {
  calls: Uint32Array;
  /** Reason code of each call; one entry for each. */
  readonly reasons: Uint16Array;
  /** Ms of performance.now(). */
  readonly since: number;
  /** The log did not answer in time: nobody waits for it any more. */
  isAbandoned: boolean;
}

/** The parts of an answer, read straight from the ring's record. Part i is row i of the batch. */
export interface PartAnswers {
  readonly count: number;
  /** It got new ids of this allotment. */
  isNew(i: number): boolean;
  /** It repeats a sequence whose batch is stored. */
  isStored(i: number): boolean;
  firstId(i: number): number;
  /** Reason code, or -1. */
  refusal(i: number): number;
}

import type { Reason } from '../../base/errors.ts';
import type { RowTrace } from '../tracing/trace-record.ts';
import type { ActiveSubject, Unresolved } from './subjects.ts';

/** What the publish path tells the rest of the shard. */
export interface PublishEvents {
  /** A batch asks for its ids. */
  onSealed(subject: ActiveSubject, messages: number): void;
  /** Ids got their verdict in the store: `bytes` is the stored batch, or null for a void mark. `traces`: rows of it that are traced. */
  onResolved(
    subject: ActiveSubject,
    allotment: Unresolved,
    bytes: Buffer | null,
    traces?: readonly RowTrace[] | null,
  ): void;
  /** The store has nothing of these ids any more, nor does the log: they were trimmed since they had their verdict. */
  onForgotten(subject: ActiveSubject, allotment: Unresolved): void;
  /** A repeated sequence waits for ids that may be another node's. */
  onRepeat(subject: ActiveSubject): void;
  /** The store finished a write; the loop should run soon. */
  onProgress(): void;
  onFatal(error: unknown): void;
}

export interface PublishCounters {
  onGroup(messages: number, batches: number, bytes: number): void;
  onWritten(microseconds: number): void;
  /** The store refused a write, or left open what became of it. */
  writeFailed(): void;
  /** What is known of the store's health: why it takes no messages, or null when it took some. */
  storeRefuses(reason: Reason | null): void;
}

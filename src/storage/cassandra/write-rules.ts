/** What a batch's row is written with, from its allotment (log time, largest expiry) and, for the time to live only, from what time it is. */
import type { SealedBatch } from '../store.ts';

/** Rows outlive their messages by this, so that readers whose clocks are behind find what they may still deliver. */
const TTL_MARGIN_SECONDS = 600;
/** The server refuses longer lives (20 years) and, in its compatible formats, ends after 2038-01-19; such rows get none. */
const TTL_SECONDS_MAX = 630_720_000;
const EXPIRES_BEFORE_MS = Date.UTC(2038, 0, 18);
/** The table's default: deleted rows are remembered for this long. */
const GC_GRACE_SECONDS = 864_000;

/** Epoch ms. */
export interface Now {
  /** This clock. */
  readonly clockMs: number;
  /** The same, or log time where that is earlier: a clock that is ahead ends nothing before its time. */
  readonly earliestMs: number;
}

/** Microseconds. Log time orders writes, never a node's clock; a mark is one later than the data of its key, so it wins whichever comes first. */
export function writeTimestamp({ publishedAt, kind }: Pick<SealedBatch, 'publishedAt' | 'kind'>): number {
  return publishedAt * 1000 + (kind === 'void' ? 1 : 0);
}

/** Microseconds. Later than a mark of that ms: what a trim deletes is gone whatever it was. */
export function trimTimestamp(ms: number): number {
  return ms * 1000 + 2;
}

/** Seconds; 0 for no end; null if the row would be gone already. A mark outlives every late write of its batch. */
export function timeToLive(batch: Pick<SealedBatch, 'publishedAt' | 'expiresMax' | 'kind'>, now: Now): number | null {
  if (batch.expiresMax === 0) return 0;
  const left = Math.ceil(batch.publishedAt / 1000 + batch.expiresMax - now.earliestMs / 1000) + TTL_MARGIN_SECONDS;
  const seconds = batch.kind === 'void' ? left + GC_GRACE_SECONDS : left;
  if (seconds <= 0) return null;
  return canExpire(seconds, now) ? seconds : 0;
}

/** Whether the server takes a time to live, in seconds; what it does not take gets none. */
export function canExpire(seconds: number, { clockMs }: Now): boolean {
  return seconds <= TTL_SECONDS_MAX && clockMs + seconds * 1000 <= EXPIRES_BEFORE_MS;
}

/**
 * Which partition a batch lies in. The slice follows from the allotment alone (log time and the largest `expirationSeconds`), so a writer, its
 * retry and a void mark always meet in one partition, where the primary key sees them; and all of a slice expires by a known time, so expiry
 * is a dropped partition.
 *
 * Expiring batches are filed by the time at which the last of their messages expires, in one of 8 classes by length of life. Class k holds lives up to
 * 8^k hours in slices of a quarter of that, so about 6 of its slices are alive at a time. Never-expiring batches are filed
 * by two years of log time, 16 slices for ever (the last one is open). 8 x 6 + 16 = 64 partitions at most.
 */
import { assert } from '../../base/assert.ts';

const HOUR_MS = 3_600_000;
const CLASSES = 8;
/** Slices of a class start at multiples of this, and those of the never-expiring at 0. */
const CLASS_SPAN = 1_000_000_000;
const NEVER_FROM_MS = Date.UTC(2026, 0, 1);
const NEVER_WIDTH_MS = 2 * 365.25 * 24 * HOUR_MS;
const NEVER_SLICES = 16;
/** Between the end of a slice and its drop: readers that began before have to end. */
export const SLICE_GRACE_MS = 10 * 60_000;

/** Ms of expiry time that a slice of the class covers: 15 min, 2 h, 16 h, 5.3 d, 43 d, 341 d, 7.5 y, 60 y. */
function widthMs(lifeClass: number): number {
  return (HOUR_MS / 4) * 8 ** lifeClass;
}

/** `publishedAt` in epoch ms, `expiresMax` in seconds, 0 for never. */
export function sliceOf(publishedAt: number, expiresMax: number): number {
  assert(publishedAt >= 0 && expiresMax >= 0, 'a time before 1970');
  if (expiresMax === 0) {
    const index = Math.floor((publishedAt - NEVER_FROM_MS) / NEVER_WIDTH_MS);
    return Math.min(NEVER_SLICES - 1, Math.max(0, index));
  }
  let lifeClass = 0;
  while (expiresMax * 1000 > HOUR_MS * 8 ** lifeClass) lifeClass += 1;
  assert(lifeClass < CLASSES, 'a life longer than any class');
  return (lifeClass + 1) * CLASS_SPAN + Math.floor((publishedAt + expiresMax * 1000) / widthMs(lifeClass));
}

/** Epoch ms at which everything in the slice has expired; Infinity if it never does. */
function sliceEndMs(slice: number): number {
  const lifeClass = Math.floor(slice / CLASS_SPAN) - 1;
  if (lifeClass < 0) return Number.POSITIVE_INFINITY;
  return ((slice % CLASS_SPAN) + 1) * widthMs(lifeClass);
}

/** True if the partition of the slice may be dropped, and is not made again: nothing in it will ever be delivered. */
export function isSliceOver(slice: number, nowMs: number): boolean {
  return sliceEndMs(slice) + SLICE_GRACE_MS <= nowMs;
}

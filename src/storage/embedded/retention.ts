import { join } from 'node:path';
import { assert } from '../../base/assert.ts';
import type { Disk } from '../disk.ts';
import { laneName, laneOf, numberOf, segmentName, sidecarName } from './segment-format.ts';
import type { SegmentSummary } from './sidecar.ts';

export interface RetentionPolicy {
  /** retention.max_age in ms; 0: keep for ever. */
  readonly maxAgeMs: number;
  /** retention.max_bytes of all segments of the node; 0: no bound. */
  readonly maxBytes: number;
}

export interface RetentionInput {
  /** Sealed segments of all lanes of the node. */
  readonly segments: readonly SegmentSummary[];
  /** Bytes of the segments that are being written; they count, and they stay. */
  readonly openBytes: number;
  readonly policy: RetentionPolicy;
  /** Log time, epoch ms: the time of the newest applied entry. */
  readonly logTime: number;
  /** This node's clock, epoch ms. */
  readonly wallTime: number;
  /** True within 10 minutes of a step of this node's clock (ClockSteps). */
  readonly clockStepped: boolean;
}

export type DropReason = 'expired' | 'max_age' | 'max_bytes';

export interface Drop {
  readonly segment: SegmentSummary;
  readonly reason: DropReason;
}

/** Expired messages stay this much longer, in ms: a reader whose clock is behind must not find a hole where it expects a message. */
const EXPIRY_GRACE_MS = 60_000;

/**
 * Which segments to delete now, oldest first. By age only what log time *and* wall clock call old: one clock that is wrong deletes nothing
 * (traps S10). Size needs no clock, so it goes by `newest` alone.
 *
 * For `max_age` and `max_bytes` the subjects in a segment have to be trimmed in the log first (`EmbeddedStore.trimsFor`), so that ids that are gone are
 * not taken for lost. For `expired` nothing is trimmed: the log knows that messages of these subjects expire.
 */
export function decideRetention(input: RetentionInput): Drop[] {
  const { policy, clockStepped } = input;
  const oldestFirst = [...input.segments].sort((a, b) => a.newest - b.newest || a.segment - b.segment);
  const now = Math.min(input.logTime, input.wallTime);
  const byTime = oldestFirst.map((segment) => (clockStepped ? null : reasonByTime(segment, policy, now)));
  // What goes by time makes room first, wherever it is: what has not expired is not dropped for it.
  let bytes = input.openBytes;
  for (const [i, { length }] of oldestFirst.entries()) if (byTime[i] === null) bytes += length;
  const drops: Drop[] = [];
  for (const [i, segment] of oldestFirst.entries()) {
    const reason = byTime[i] ?? null;
    if (reason !== null) drops.push({ segment, reason });
    else if (policy.maxBytes > 0 && bytes > policy.maxBytes) {
      drops.push({ segment, reason: 'max_bytes' });
      bytes -= segment.length;
    }
  }
  return drops;
}

function reasonByTime(segment: SegmentSummary, policy: RetentionPolicy, now: number): DropReason | null {
  if (segment.expiresAt > 0 && segment.expiresAt + EXPIRY_GRACE_MS <= now) return 'expired';
  return policy.maxAgeMs > 0 && segment.newest > 0 && segment.newest + policy.maxAgeMs <= now ? 'max_age' : null;
}

/**
 * Deletes segments that every store of the node has let go of (`releaseSegments`). The sidecar goes last: without its segment it is harmless,
 * while a segment without sidecar is scanned and found again. What is gone already is no error: an attempt before may have failed half-way.
 */
export function deleteSegments(disk: Disk, directory: string, segments: Iterable<number>): void {
  for (const segment of segments) {
    assert(segment > 0, 'no segment has this id');
    const lane = join(directory, laneName(laneOf(segment)));
    for (const name of [segmentName(numberOf(segment)), sidecarName(numberOf(segment))]) {
      const path = join(lane, name);
      if (disk.size(path) >= 0) disk.unlink(path);
    }
  }
}

import { SLOT_COUNT } from '../base/subject.ts';

/** Slots are dealt to shards evenly, at run time only: nothing stored depends on it. */
export function shardOfSlot(slot: number, shards: number): number {
  return Math.floor((slot * shards) / SLOT_COUNT);
}

import { REASONS, type Reason } from '../../base/errors.ts';
import type { ShardCounters } from '../shard/shard-counters.ts';

/** Why the store takes no messages, in words, each reason once; empty when it does, as far as its last results tell. */
export function storeRefusals(shards: readonly ShardCounters[]): string[] {
  const reasons = new Set<Reason>();
  for (const { storeRefusal } of shards) {
    if (storeRefusal !== null) reasons.add(storeRefusal);
  }
  return [...reasons].map((reason) => `${reason}: ${REASONS[reason].when}`);
}

import { REASONS, type Reason } from '../../base/errors.ts';
import type { ShardCounters } from '../shard/shard-counters.ts';

/** Whether the store takes messages: as the shards' last writes tell, and, with a database, what it says when it is asked. */
export class StoreHealth {
  readonly #shards: readonly Pick<ShardCounters, 'storeRefusal'>[];
  /** Why the database would take no messages, in words; null: it would, as far as is known. */
  problem: string | null = null;
  /** Settings of the database that lose acknowledged messages, one sentence each. */
  weaknesses: readonly string[] = [];

  constructor(shards: readonly Pick<ShardCounters, 'storeRefusal'>[]) {
    this.#shards = shards;
  }

  /** Why messages are refused, in words, each reason once; empty when they are taken. */
  refusals(): string[] {
    const reasons = new Set<Reason>();
    for (const { storeRefusal } of this.#shards) if (storeRefusal !== null) reasons.add(storeRefusal);
    const { problem } = this;
    if (problem !== null && reasons.size === 0) reasons.add('STORE_UNAVAILABLE');
    const why = problem === null ? '' : ` (${problem})`;
    return [...reasons].map((reason) => `${reason}: ${REASONS[reason].when}${why}`);
  }
}

import { assert } from '../base/assert.ts';
import type { Index } from './messages.ts';

export type VoteResult = 'won' | 'lost' | 'pending';

/** The smallest number of voters of which two such groups always share one. */
export function majorityOf(voters: number): number {
  return Math.floor(voters / 2) + 1;
}

/**
 * The highest position that a majority of the voters has reached (Raft paper 5.3, figure 2 "Rules for Servers").
 * Sorts `reached` in place (ascending); it holds one value per voter. A handful of voters: insertion sort.
 */
export function majorityIndex(reached: Float64Array, voters: number): Index {
  assert(voters > 0 && voters <= reached.length, 'majorityIndex: no voters');
  for (let i = 1; i < voters; i += 1) {
    const value = reached[i] as number;
    let hole = i;
    while (hole > 0 && (reached[hole - 1] as number) > value) {
      reached[hole] = reached[hole - 1] as number;
      hole -= 1;
    }
    reached[hole] = value;
  }
  return reached[voters - majorityOf(voters)] as number;
}

/** Where an election stands. It is lost as soon as those who have not refused cannot make a majority. */
export function voteResult(granted: number, rejected: number, voters: number): VoteResult {
  assert(granted >= 0 && rejected >= 0 && granted + rejected <= voters, 'voteResult: more votes than voters');
  const needed = majorityOf(voters);
  if (granted >= needed) {
    return 'won';
  }
  return voters - rejected < needed ? 'lost' : 'pending';
}

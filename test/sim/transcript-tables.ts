import { type ConfigChangeKind, changeConfig } from '../../src/raft/config-change.ts';
import type { ConfigState } from '../../src/raft/messages.ts';
import { majorityIndex, type VoteResult, voteResult } from '../../src/raft/quorum.ts';
import { formatConfig } from './transcript-format.ts';

/**
 * The parts of the core that are tables: cases as lines of a transcript. Each answer is compared with a slow model,
 * which is the definition written down, so that a wrong answer can be neither recorded nor overlooked.
 */

function agree<T>(words: readonly string[], answer: T, definition: T): T {
  if (answer !== definition) {
    throw new Error(`[${words.join(' ')}]: the core says ${answer}, the definition ${definition}`);
  }
  return answer;
}

/** `commit 5 3 -`: what is committed when the voters hold so much; `-` was never heard of. */
export function showCommit(words: readonly string[]): string {
  const held = words.map((word) => (word === '-' ? 0 : Number(word)));
  const holders = (index: number) => held.filter((value) => value >= index).length;
  const definition = Math.max(0, ...held.filter((index) => holders(index) * 2 > held.length));
  const index = agree(words, majorityIndex(Float64Array.from(held), held.length), definition);
  return `[${words.join(' ')}] commits ${index}, held by ${holders(index)} of ${held.length}`;
}

/** `vote y n -`: where an election stands; `-` has not answered. */
export function showVote(words: readonly string[]): string {
  const granted = words.filter((word) => word === 'y').length;
  const rejected = words.filter((word) => word === 'n').length;
  const missing = words.length - granted - rejected;
  // Every way in which the missing answers can come in.
  const outcomes = new Set<boolean>();
  for (let more = 0; more <= missing; more += 1) {
    outcomes.add((granted + more) * 2 > words.length);
  }
  const definition: VoteResult = outcomes.size > 1 ? 'pending' : outcomes.has(true) ? 'won' : 'lost';
  return `[${words.join(' ')}] ${agree(words, voteResult(granted, rejected, words.length), definition)}`;
}

/** Members that are changed one after the other, without a log. */
export class MemberTable {
  #config: ConfigState = { voters: [], learners: [] };

  /** `members a b learners=c` */
  set(voters: readonly string[], learners: readonly string[]): void {
    this.#config = { voters: [...voters].sort(), learners: [...learners].sort() };
  }

  /** `member add-voter d` */
  change(kind: ConfigChangeKind, node: string): string {
    const before = this.#config;
    const after = changeConfig(before, { kind, node, context: new Uint8Array(0) });
    if (typeof after === 'string') {
      return `${kind} ${node}: ${after}`;
    }
    if (!doMajoritiesMeet(before.voters, after.voters)) {
      throw new Error(`majorities of [${before.voters}] and [${after.voters}] need not meet`);
    }
    this.#config = after;
    return `${kind} ${node}: ${formatConfig(after)}`;
  }
}

/** Whether each majority of the one has a member of each majority of the other, by trying all. */
export function doMajoritiesMeet(left: readonly string[], right: readonly string[]): boolean {
  const others = majorities(right);
  return majorities(left).every((one) => others.every((other) => one.some((node) => other.includes(node))));
}

function majorities(nodes: readonly string[]): string[][] {
  const found: string[][] = [];
  for (let mask = 0; mask < 2 ** nodes.length; mask += 1) {
    const chosen = nodes.filter((_, i) => (mask >> i) % 2 === 1);
    if (chosen.length * 2 > nodes.length) {
      found.push(chosen);
    }
  }
  return found;
}

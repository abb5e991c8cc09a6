import { assert } from '../base/assert.ts';
import type { ConfigState, Index, NodeId } from './messages.ts';
import { Inflights, Progress } from './progress.ts';
import { majorityIndex, majorityOf, type VoteResult, voteResult } from './quorum.ts';

/** The members, what the leader knows of each, and the votes of the election that is on. */
export class Tracker {
  readonly #self: NodeId;
  readonly #inflightMessagesMax: number;
  readonly #inflightBytesMax: number;
  readonly #progress = new Map<NodeId, Progress>();
  readonly #votes = new Map<NodeId, boolean>();
  #config: ConfigState = { voters: [], learners: [] };
  /** Everybody but this node, sorted: what a broadcast walks. */
  #peers: readonly NodeId[] = [];
  /** One per voter; sorted by every count. */
  #scratch = new Float64Array(0);

  constructor(self: NodeId, inflightMessagesMax: number, inflightBytesMax: number) {
    this.#self = self;
    this.#inflightMessagesMax = inflightMessagesMax;
    this.#inflightBytesMax = inflightBytesMax;
  }

  get config(): ConfigState {
    return this.#config;
  }

  get peers(): readonly NodeId[] {
    return this.#peers;
  }

  /** This node decides alone. */
  get isOnlyVoter(): boolean {
    return this.#config.voters.length === 1 && this.#config.voters[0] === this.#self;
  }

  get isSelfVoter(): boolean {
    return this.#progress.get(this.#self)?.isLearner === false;
  }

  isVoter(node: NodeId): boolean {
    return this.#progress.get(node)?.isLearner === false;
  }

  progress(node: NodeId): Progress | undefined {
    return this.#progress.get(node);
  }

  /** Nodes that stay keep their progress; a new one counts as heard from, so that it does not fail a quorum check. */
  setConfig(config: ConfigState, lastIndex: Index): void {
    for (const node of config.voters) {
      assert(!config.learners.includes(node), 'a node is voter and learner');
      this.#admit(node, false, lastIndex);
    }
    for (const node of config.learners) {
      this.#admit(node, true, lastIndex);
    }
    for (const node of [...this.#progress.keys()]) {
      if (!config.voters.includes(node) && !config.learners.includes(node)) {
        this.#progress.delete(node);
      }
    }
    this.#config = config;
    this.#peers = [...this.#progress.keys()].filter((node) => node !== this.#self).sort();
    this.#scratch = new Float64Array(config.voters.length);
  }

  #admit(node: NodeId, isLearner: boolean, lastIndex: Index): void {
    const known = this.#progress.get(node);
    if (known !== undefined) {
      known.isLearner = isLearner;
      return;
    }
    const inflights = new Inflights(this.#inflightMessagesMax, this.#inflightBytesMax);
    this.#progress.set(node, new Progress({ next: lastIndex + 1, match: 0, isLearner, isActive: true, inflights }));
  }

  /** A new leader knows nothing yet but its own log, and of that only the durable part counts (R4). */
  resetProgress(lastIndex: Index, durableIndex: Index): void {
    for (const [node, old] of this.#progress) {
      const isSelf = node === this.#self;
      old.inflights.clear();
      const { isLearner, inflights } = old;
      const match = isSelf ? durableIndex : 0;
      this.#progress.set(node, new Progress({ next: lastIndex + 1, match, isLearner, isActive: isSelf, inflights }));
    }
  }

  /** The highest position that is durable on a majority of the voters. */
  majorityMatch(): Index {
    const voters = this.#config.voters;
    for (let i = 0; i < voters.length; i += 1) {
      this.#scratch[i] = this.#progress.get(voters[i] as NodeId)?.match ?? 0;
    }
    return majorityIndex(this.#scratch, voters.length);
  }

  /** The same count over other figures, 0 for a voter that has none; `own` is this node's. */
  majorityOfFigures(figures: ReadonlyMap<NodeId, number>, own: number): number {
    const voters = this.#config.voters;
    for (let i = 0; i < voters.length; i += 1) {
      const node = voters[i] as NodeId;
      this.#scratch[i] = node === this.#self ? own : (figures.get(node) ?? 0);
    }
    return majorityIndex(this.#scratch, voters.length);
  }

  /** Whether a majority was heard from since the last question; starts the next round of it. */
  checkQuorumActive(): boolean {
    let active = 0;
    for (const [node, progress] of this.#progress) {
      const isHeard = node === this.#self || progress.isActive;
      progress.isActive = node === this.#self;
      if (isHeard && !progress.isLearner) {
        active += 1;
      }
    }
    return active >= majorityOf(this.#config.voters.length);
  }

  clearVotes(): void {
    this.#votes.clear();
  }

  /** The first answer of a node counts. */
  recordVote(node: NodeId, isGranted: boolean): VoteResult {
    if (!this.#votes.has(node)) {
      this.#votes.set(node, isGranted);
    }
    let granted = 0;
    let rejected = 0;
    for (const voter of this.#config.voters) {
      const vote = this.#votes.get(voter);
      granted += vote === true ? 1 : 0;
      rejected += vote === false ? 1 : 0;
    }
    return voteResult(granted, rejected, this.#config.voters.length);
  }
}

import type { Index, NodeId } from './messages.ts';

/** A read that waits for the leader to prove that it still is the leader. */
export interface PendingRead {
  /** Who asked; this node for its own. */
  readonly from: NodeId;
  readonly context: number;
  /** The commit index when the read arrived. */
  index: Index;
  /** The round of heartbeats that proves it. */
  round: number;
}

/**
 * ReadIndex (Raft thesis 6.4): the answer to a read is the commit index at its arrival, given once a majority has
 * answered a heartbeat sent after it. All reads that arrive between two rounds share the next one.
 */
export class ReadQueue {
  readonly #readsMax: number;
  /** Arrived before this leader committed an entry of its own term: it may not know yet what is committed (R2). */
  #early: PendingRead[] = [];
  /** In order of arrival, so also of rounds. */
  #open: PendingRead[] = [];
  readonly #acks = new Map<NodeId, number>();
  /** The round that reads arriving now wait for. Never falls or repeats, over all terms: an old answer proves nothing. */
  #nextRound = 1;

  constructor(readsMax: number) {
    this.#readsMax = readsMax;
  }

  get isFull(): boolean {
    return this.#early.length + this.#open.length >= this.#readsMax;
  }

  get hasEarly(): boolean {
    return this.#early.length > 0;
  }

  get acks(): ReadonlyMap<NodeId, number> {
    return this.#acks;
  }

  addEarly(from: NodeId, context: number): void {
    this.#early.push({ from, context, index: 0, round: 0 });
  }

  add(from: NodeId, context: number, index: Index): void {
    this.#open.push({ from, context, index, round: this.#nextRound });
  }

  takeEarly(): readonly PendingRead[] {
    const reads = this.#early;
    this.#early = [];
    return reads;
  }

  /** Some read waits for a round that has not begun. */
  get needsRound(): boolean {
    const last = this.#open.at(-1);
    return last !== undefined && last.round === this.#nextRound;
  }

  /** The number that heartbeats sent now carry; 0 when nothing waits. */
  beginRound(): number {
    const last = this.#open.at(-1);
    if (last === undefined) {
      return 0;
    }
    if (last.round === this.#nextRound) {
      this.#nextRound += 1;
    }
    return last.round;
  }

  onAck(node: NodeId, round: number): void {
    if (round > (this.#acks.get(node) ?? 0)) {
      this.#acks.set(node, round);
    }
  }

  /** Takes out what a majority's answers up to `round` prove. */
  takeProven(round: number): readonly PendingRead[] {
    let count = 0;
    while (count < this.#open.length && (this.#open[count] as PendingRead).round <= round) {
      count += 1;
    }
    return count === 0 ? [] : this.#open.splice(0, count);
  }

  /** Leadership ended or begins: reads not answered are not answered any more. */
  reset(): void {
    this.#early = [];
    this.#open = [];
    this.#acks.clear();
  }
}

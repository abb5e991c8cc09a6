import type { ReadState } from '../../raft/messages.ts';
import type { Replica } from '../../replica/replica.ts';

/**
 * Read indexes of this node, one under way at a time: who waits for one is answered when the node has applied whatever was committed anywhere before the
 * question. Whoever comes while one is under way waits for the next, since that one says nothing of what was committed since it was asked for.
 */
export class LogReads {
  readonly #replica: Pick<Replica, 'readIndex' | 'applied'>;
  readonly #timeoutTicks: number;
  #context: number;
  /** Ticks since the read that is under way was asked for; -1 = none is. */
  #ticks = -1;
  /** Answers of the leader that this node has not applied far enough for. */
  #answers: ReadState[] = [];
  readonly #waiting: (() => void)[] = [];
  /** They wait for the read that was asked for last. */
  readonly #asked: (() => void)[] = [];

  /**
   * A read that has no answer within `timeoutTicks` is lost. `seed`: random, below 2^32. Numbers of reads begin there, since an answer may come late that was
   * meant for the process before.
   */
  constructor(replica: Pick<Replica, 'readIndex' | 'applied'>, timeoutTicks: number, seed: number) {
    this.#replica = replica;
    this.#timeoutTicks = timeoutTicks;
    this.#context = seed;
  }

  /** One was asked for and may still be answered. */
  get isUnderWay(): boolean {
    return this.#ticks >= 0;
  }

  /** False while it cannot be had, or is on its way. */
  ask(): boolean {
    if (this.#ticks >= 0 && this.#ticks < this.#timeoutTicks) return false;
    this.#context += 1;
    const isAsked = this.#replica.readIndex(this.#context) === 'accepted';
    this.#ticks = isAsked ? 0 : -1;
    if (isAsked) this.#asked.push(...this.#waiting.splice(0));
    return isAsked;
  }

  wait(then: () => void): void {
    this.#waiting.push(then);
  }

  tick(): void {
    if (this.#ticks >= 0) this.#ticks += 1;
  }

  /** What was asked of another leader is not answered. */
  leaderChanged(): void {
    this.#ticks = -1;
  }

  answered(reads: readonly ReadState[]): void {
    for (const read of reads) this.#answers.push(read);
  }

  /** Asks for whom that is to be done, and tells those whose answer is applied. True if the read that was asked for last is over. */
  work(): boolean {
    // Also when one is under way that has been lost.
    if (this.#waiting.length + this.#asked.length > 0) this.ask();
    const { applied } = this.#replica;
    const isOver = this.#answers.some(({ context, index }) => context === this.#context && index <= applied);
    this.#answers = this.#answers.filter(({ context, index }) => context === this.#context && index > applied);
    if (!isOver) return false;
    this.#ticks = -1;
    for (const then of this.#asked.splice(0)) then();
    return true;
  }
}

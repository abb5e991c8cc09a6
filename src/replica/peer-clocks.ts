import type { NodeId } from '../raft/messages.ts';

/** A leader whose clock is this much ahead of those of a majority leaves the lead, in ms (design section 2, log time). */
export const CLOCK_LEAD_MAX_MS = 60_000;
/** Seconds for which a node's clock counts after its last frame. */
const FRESH_SECONDS = 10;

/** So many of a node's are kept. */
const READINGS = 3;

interface Readings {
  /** The newest first. */
  readonly offsetsMs: readonly number[];
  /** Of the newest. */
  readonly tick: number;
}

export interface ClockJudgement {
  readonly isUsable: boolean;
  /** Whom to hand the lead to, if it is for being ahead. */
  readonly behind: readonly NodeId[];
}

/** What is known of the wall clocks of the others. */
export class PeerClocks {
  readonly #readings = new Map<NodeId, Readings>();
  readonly #freshTicks: number;

  constructor(secondTicks: number) {
    this.#freshTicks = FRESH_SECONDS * secondTicks;
  }

  /** `offsetMs`: its clock less this node's. */
  saw(node: NodeId, offsetMs: number, tick: number): void {
    const before = this.#readings.get(node)?.offsetsMs ?? [];
    this.#readings.set(node, { offsetsMs: [offsetMs, ...before.slice(0, READINGS - 1)], tick });
  }

  /** In ms, as it was read last; null when it is not known, or was long ago. */
  offsetOf(node: NodeId, tick: number): number | null {
    return this.#fresh(node, tick)?.[0] ?? null;
  }

  /**
   * For people: of the last readings the one that is least off. A frame that lay about while this process or the line stood still says what
   * the time was then.
   */
  leastOffsetOf(node: NodeId, tick: number): number | null {
    const offsets = this.#fresh(node, tick);
    if (offsets === null) return null;
    return offsets.reduce((least, offset) => (Math.abs(offset) < Math.abs(least) ? offset : least));
  }

  #fresh(node: NodeId, tick: number): readonly number[] | null {
    const readings = this.#readings.get(node);
    return readings === undefined || tick - readings.tick > this.#freshTicks ? null : readings.offsetsMs;
  }

  /** This node's clock was set, or it stood still: what was heard before says nothing about it. */
  forget(): void {
    this.#readings.clear();
  }

  /**
   * Whether `self`, one of these voters, may give entries the time of its clock: as long as it knows the clocks of enough others to be a majority
   * with them, and is not that far ahead of most of those whose clocks it knows. Of two that differ the later one is held to be wrong: a time
   * that is too early only makes log time stand, one that is too late stays in the log for ever.
   */
  judge(voters: readonly NodeId[], self: NodeId, tick: number): ClockJudgement {
    const offsets = voters.flatMap((node) => (node === self ? 0 : (this.offsetOf(node, tick) ?? [])));
    if (offsets.length * 2 <= voters.length) return { isUsable: false, behind: [] };
    const behind = voters.filter((node) => node !== self && (this.offsetOf(node, tick) ?? 0) < -CLOCK_LEAD_MAX_MS);
    const isAhead = behind.length > 0 && behind.length * 2 >= offsets.length;
    return { isUsable: !isAhead, behind: isAhead ? behind : [] };
  }

  keepOnly(nodes: readonly NodeId[]): void {
    for (const node of [...this.#readings.keys()]) if (!nodes.includes(node)) this.#readings.delete(node);
  }
}

import type { NodeId } from '../raft/messages.ts';

/** A leader whose clock is this much ahead of those of a majority leaves the lead, in ms (design section 2, log time). */
export const CLOCK_LEAD_MAX_MS = 60_000;
/** Seconds for which a node's clock counts after its last frame. */
const FRESH_SECONDS = 10;

interface Reading {
  readonly offsetMs: number;
  readonly tick: number;
}

/** What is known of the wall clocks of the others. */
export class PeerClocks {
  readonly #readings = new Map<NodeId, Reading>();
  readonly #freshTicks: number;

  constructor(secondTicks: number) {
    this.#freshTicks = FRESH_SECONDS * secondTicks;
  }

  /** `offsetMs`: its clock less this node's. */
  saw(node: NodeId, offsetMs: number, tick: number): void {
    this.#readings.set(node, { offsetMs, tick });
  }

  /** In ms; null when it is not known, or was long ago. */
  offsetOf(node: NodeId, tick: number): number | null {
    const reading = this.#readings.get(node);
    return reading === undefined || tick - reading.tick > this.#freshTicks ? null : reading.offsetMs;
  }

  /** The voters that are so far behind this node, if they are a majority; else none. */
  majorityBehind(voters: readonly NodeId[], tick: number): NodeId[] {
    const behind = voters.filter((node) => (this.offsetOf(node, tick) ?? 0) < -CLOCK_LEAD_MAX_MS);
    return behind.length * 2 > voters.length ? behind : [];
  }

  keepOnly(nodes: readonly NodeId[]): void {
    for (const node of [...this.#readings.keys()]) if (!nodes.includes(node)) this.#readings.delete(node);
  }
}

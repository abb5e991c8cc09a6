import type { SerfMembers } from './members.ts';
import type { JoinTarget } from './types.ts';

export interface RejoinOptions {
  readonly random: (below: number) => number;
  readonly reconnectIntervalMs: number;
  readonly rejoinIntervalMs: number;
}

const CHANCE_STEPS = 2 ** 30;

/**
 * Whom to meet again, and when: first the nodes of a snapshot, one after another, until anybody is alive (hashicorp/serf serf/serf.go handleRejoin); and from then
 * on failed members, so that all nodes together try each of them about once in `reconnectIntervalMs` (reconnect).
 */
export class Rejoin {
  readonly #options: RejoinOptions;
  readonly #previous: JoinTarget[] = [];
  #rejoinAt: number;
  #reconnectAt: number;

  constructor(options: RejoinOptions, previous: readonly JoinTarget[], now: number) {
    this.#options = options;
    // In any order, or all nodes that start together would ask the same one.
    for (const target of previous) this.#previous.splice(options.random(this.#previous.length + 1), 0, target);
    this.#rejoinAt = now;
    this.#reconnectAt = now + options.reconnectIntervalMs;
  }

  nextAt(): number {
    return this.#previous.length === 0 ? this.#reconnectAt : Math.min(this.#rejoinAt, this.#reconnectAt);
  }

  /** Whom to meet now, or null. */
  tick(now: number, members: SerfMembers): JoinTarget | null {
    if (members.hasOthersAlive) this.#previous.length = 0;
    if (this.#previous.length > 0 && now >= this.#rejoinAt) {
      this.#rejoinAt = now + this.#options.rejoinIntervalMs;
      return this.#previous.pop() ?? null;
    }
    if (now < this.#reconnectAt) return null;
    this.#reconnectAt = now + this.#options.reconnectIntervalMs;
    return this.#failedMember(members);
  }

  #failedMember(members: SerfMembers): JoinTarget | null {
    const failed = members.withStatus('failed');
    if (failed.length === 0) return null;
    const chance = failed.length / Math.max(members.livingCount, 1);
    if (this.#options.random(CHANCE_STEPS) / CHANCE_STEPS > chance) return null;
    return failed[this.#options.random(failed.length)] ?? null;
  }
}

/** Where addresses of other nodes are looked up, and what is said about it. */
import type { Endpoint } from '../base/endpoint.ts';

/** Seeds that are kept of one source; the rest is left out, and a problem says so. One that answers is enough to join. */
export const SEEDS_MAX = 1_000;

export interface Discovery {
  /** Begins to look; once. Nothing throws: what goes wrong is a problem, and is tried again. */
  start(): void;
  /** Ends it for good. Nothing is called any more, and nothing is left that would keep the process alive. */
  stop(): void;
}

export interface DiscoveryEvents {
  /**
   * What is known now: addresses, no names, each once, sorted, 1 to SEEDS_MAX of them; this node itself may be among them. Called when
   * it has changed, and when it has been found again after a problem. While nothing is found the last ones stay.
   */
  onSeeds(seeds: readonly Endpoint[]): void;
  /** One line for people, with no secret in it. Each is told once until seeds are found again. */
  onProblem(reason: string): void;
}

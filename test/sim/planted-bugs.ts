import { type PlantedBug, plantBug } from '../../src/base/planted.ts';
import { simulateBroker } from './broker-sim.ts';
import { simulateCluster } from './cluster-sim.ts';
import { simulateGossip } from './gossip-sim.ts';
import { simulateRaft } from './raft-sim.ts';

export interface Planted {
  readonly bug: PlantedBug;
  readonly simulator: 'raft' | 'cluster' | 'gossip' | 'broker';
  /** The first seed that finds it: `npm run sim -- --planted`. */
  readonly seed: number;
}

/** The issue asks for each to be found within this many. */
export const SEEDS_MAX = 1_000;

const SIMULATORS = { raft: simulateRaft, cluster: simulateCluster, gossip: simulateGossip, broker: simulateBroker };

/** What the simulator says of a seed with the bug in place; null when it sees nothing. */
export async function findingOf(
  { bug, simulator }: Pick<Planted, 'bug' | 'simulator'>,
  seed: number,
): Promise<string | null> {
  plantBug(bug);
  try {
    await SIMULATORS[simulator](seed);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    plantBug(null);
  }
}

/** Every bug, where it is looked for, and the seed that finds it first. Kept in step with docs/reliability.md by test/sim/planted.test.ts. */
export const PLANTED: readonly Planted[] = [
  { bug: 'R1-commit-older-term', simulator: 'raft', seed: 14 },
  { bug: 'R2-read-before-own-commit', simulator: 'raft', seed: 4 },
  { bug: 'R3-vote-before-persist', simulator: 'raft', seed: 2 },
  { bug: 'R4-ack-before-persist', simulator: 'raft', seed: 2 },
  { bug: 'R4-count-unsynced', simulator: 'raft', seed: 1 },
  { bug: 'R5-truncate-matching', simulator: 'raft', seed: 2 },
  { bug: 'R6-stale-write-vouches', simulator: 'raft', seed: 2 },
  { bug: 'R7-apply-before-durable', simulator: 'raft', seed: 2 },
  { bug: 'R10-no-quorum-check', simulator: 'raft', seed: 3 },
  { bug: 'R11-lease-read', simulator: 'raft', seed: 216 },
  { bug: 'R12-two-changes', simulator: 'raft', seed: 44 },
  { bug: 'R13-campaign-unapplied', simulator: 'raft', seed: 117 },
  { bug: 'R19-ack-before-install', simulator: 'raft', seed: 2 },
  { bug: 'R19-ack-log-end', simulator: 'raft', seed: 569 },
  { bug: 'R23-any-instance', simulator: 'cluster', seed: 7 },
  { bug: 'R25-run-twice', simulator: 'cluster', seed: 1 },
  { bug: 'R26-run-number-lost', simulator: 'cluster', seed: 1 },
  { bug: 'R27-timeout-is-none', simulator: 'cluster', seed: 1 },
  { bug: 'S11-close-before-write', simulator: 'cluster', seed: 1 },
  { bug: 'S12-upsert', simulator: 'cluster', seed: 1 },
  { bug: 'S7-ack-before-close', simulator: 'cluster', seed: 1 },
  { bug: 'S7-void-before-mark', simulator: 'cluster', seed: 1 },
  { bug: 'S7-close-revoked', simulator: 'cluster', seed: 1 },
  { bug: 'S7-no-cascade', simulator: 'cluster', seed: 6 },
  { bug: 'S7-sequence-outlives-revoke', simulator: 'cluster', seed: 1 },
  { bug: 'G1-no-refutation', simulator: 'gossip', seed: 3 },
  { bug: 'G1-refutes-too-low', simulator: 'gossip', seed: 11 },
  { bug: 'G1-unconfirmed-at-once', simulator: 'gossip', seed: 2 },
  { bug: 'G1-no-stream-ping', simulator: 'gossip', seed: 2 },
  { bug: 'G1-not-contradicted', simulator: 'gossip', seed: 427 },
  { bug: 'G4-same-incarnation-revives', simulator: 'gossip', seed: 1 },
  { bug: 'G4-push-pull-revives', simulator: 'gossip', seed: 1 },
  { bug: 'G5-late-tick-judges', simulator: 'gossip', seed: 77 },
  { bug: 'B2-ack-before-stored', simulator: 'broker', seed: 1 },
  { bug: 'B4-reader-not-rejoined', simulator: 'broker', seed: 5 },
  { bug: 'B4-trim-unheeded', simulator: 'broker', seed: 8 },
  { bug: 'B5-retry-reorders', simulator: 'broker', seed: 5 },
];

import type { Member } from '../../grpc/gen/broker/v1/cluster.ts';

/** Entries that a learner may be behind without a word: it is being sent them. */
const BEHIND_MAX = 10_000;

export interface ClusterFacts {
  readonly members: readonly Member[];
  readonly leader: string;
  readonly lastIndex: number;
  readonly votersWanted: number;
  /** The leader has said whom it hears; without that nobody can be called silent. */
  readonly isHeard: boolean;
}

/** How many voters may fail with a majority left. */
export function tolerated(voters: number): number {
  return Math.max(0, Math.ceil(voters / 2) - 1);
}

/** The same from here on, given those that are heard: the majority is always of all. */
export function toleratedNow(voters: number, heard: number): number {
  return Math.max(0, heard - (Math.floor(voters / 2) + 1));
}

/** What needs attention, in words, with the command that helps. */
export function clusterWarnings(facts: ClusterFacts): string[] {
  const { members, leader, votersWanted, isHeard } = facts;
  const voters = members.filter(({ role }) => role === 'voter');
  const warnings: string[] = [];
  if (leader === '') {
    warnings.push(
      'no leader is known: messages are refused until more than half of the voters reach each other; start those that are down',
    );
  }
  if (isHeard) warnings.push(...silentVoters(voters), ...waitingLearners(facts));
  if (voters.length % 2 === 0 && voters.length > 0) {
    warnings.push(
      `${voters.length} voters survive the loss of ${countOf(tolerated(voters.length))}, as ${voters.length - 1} would: start another node, or take one out with \`broker cluster remove NODE\``,
    );
  } else if (voters.length < votersWanted) {
    warnings.push(
      `${voters.length} of ${votersWanted} voters (raft.voters) are there: start more nodes with --join and the gRPC address of this one`,
    );
  }
  return warnings;
}

function silentVoters(voters: readonly Member[]): string[] {
  const heard = voters.filter(({ isActive }) => isActive);
  return voters
    .filter(({ isActive }) => !isActive)
    .map(
      ({ nodeId, instanceId }) =>
        `voter ${nodeId} is not heard of: ${heard.length} of ${voters.length} voters are there, and the cluster survives the loss of ${countOf(toleratedNow(voters.length, heard.length))}. Start it again; if its data directory is lost: \`broker cluster remove ${nodeId}/${instanceId}\`, then start it on a new one with --join`,
    );
}

function waitingLearners({ members, lastIndex, votersWanted }: ClusterFacts): string[] {
  const hasSeat = members.filter(({ role }) => role === 'voter').length < votersWanted;
  return members
    .filter(({ role }) => role === 'learner')
    .flatMap(({ nodeId, instanceId, isActive, matchIndex }) => {
      if (!isActive) {
        return [
          `learner ${nodeId} is not heard of: start it, or forget it with \`broker cluster remove ${nodeId}/${instanceId}\``,
        ];
      }
      const behind = lastIndex - matchIndex;
      if (matchIndex >= 0 && behind > BEHIND_MAX) return [`learner ${nodeId} is ${behind} log entries behind`];
      return hasSeat
        ? [`learner ${nodeId} waits to become a voter, which it does by itself once it has caught up`]
        : [];
    });
}

function countOf(nodes: number): string {
  return nodes === 0 ? 'none' : nodes === 1 ? 'one' : String(nodes);
}

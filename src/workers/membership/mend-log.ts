/**
 * A member whose Raft log is damaged has forgotten what it promised: votes, and entries that others counted it for. So it never starts on that log
 * again. It has itself taken out by the others, which needs a majority of voters without it, and comes back as another instance of itself:
 * a learner that is sent everything, and becomes a voter when it has caught up. Without a majority nothing is touched, and the node halts.
 *
 * In this order, so that a node that is killed on the way goes on at its next start: out of the members; another instance id; the marker `joining`;
 * the log aside. Until the last step the log is that of another instance, which is damage too, and all of it begins again.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ServiceError, status } from '@grpc/grpc-js';
import { callPeer, type PeerCallOptions } from '../../grpc/cluster-client.ts';
import { readDetails } from '../../grpc/error-details.ts';
import { ClusterService } from '../../grpc/gen/broker/v1/cluster.ts';
import type { PeerCredentials } from '../../grpc/peer-credentials.ts';
import type { Member } from '../../replica/types.ts';
import { writeClusterMarker } from '../../storage/cluster-marker.ts';
import { type DataDirectory, type NodeIdentity, replaceNode } from '../../storage/data-directory.ts';
import type { Disk } from '../../storage/disk.ts';
import { StartError } from '../../storage/start-error.ts';
import { mendAdvice, type Obstacle } from './mend-advice.ts';

/** How long the others are asked, in election timeouts: one election, or two, and the change itself fit in well. */
const MEND_ELECTIONS = 10;
const MEND_MS_MIN = 5_000;
const MEND_MS_MAX = 20_000;
const ASK_MS = 3_000;
const REMOVE_MS = 10_000;
const RETRY_MS = 250;

export interface MendOptions {
  readonly disk: Disk;
  readonly directory: Pick<DataDirectory, 'path' | 'raftPath'>;
  readonly node: NodeIdentity;
  /** What is wrong with the log, in words, with file and position. */
  readonly damage: string;
  /** HOST:PORT of gRPC ports of members, as far as they are known; asked again and again. */
  readonly seeds: () => readonly string[];
  /** Members as the data directory knows them. */
  readonly known: readonly Member[];
  /** raft.election_timeout */
  readonly electionMs: number;
  /** How this node shows the others who it is. */
  readonly security: PeerCredentials;
  readonly signal: AbortSignal;
  readonly tell: (message: string, fields: Readonly<Record<string, string>>) => void;
}

/** Resolves with what the node is from now on: it has no log, and is about to join. StartError RAFT_LOG_DAMAGED if the others cannot take it out. */
export async function mendLog(options: MendOptions): Promise<NodeIdentity> {
  const { disk, directory, node, tell } = options;
  await takeOut(options);
  const fresh = { ...node, instanceId: randomBytes(16).toString('hex') };
  replaceNode(disk, directory.path, fresh);
  writeClusterMarker(disk, directory.path, { state: 'joining', members: options.known });
  const aside = freeName(disk, `${directory.raftPath}.damaged`);
  disk.rename(directory.raftPath, aside);
  tell(
    'the damaged Raft log was put aside, and nothing of it was deleted: the node joins as another instance of itself',
    {
      aside,
      instance: fresh.instanceId,
    },
  );
  return fresh;
}

async function takeOut(options: MendOptions): Promise<void> {
  const { node, damage, seeds, electionMs, signal, tell } = options;
  const self = `${node.nodeId}/${node.instanceId}`;
  const asked = seeds();
  tell('the Raft log is damaged: this node does not lead or vote, and asks the others to take it in anew', {
    reason: 'RAFT_LOG_DAMAGED',
    damage,
    seeds: asked.join(),
  });
  const mendMs = Math.min(Math.max(MEND_MS_MIN, MEND_ELECTIONS * electionMs), MEND_MS_MAX);
  const until = performance.now() + mendMs;
  let said: Obstacle = { words: 'nobody is known to ask (--join, or gossip, names members)', isRefusal: false };
  do {
    for (const seed of seeds()) {
      const obstacle = await takeOutBy(seed, options);
      signal.throwIfAborted();
      if (obstacle === null) return;
      said = { ...obstacle, words: `${seed}: ${obstacle.words}` };
    }
    await sleep(RETRY_MS);
    signal.throwIfAborted();
  } while (performance.now() < until);
  throw new StartError(
    'RAFT_LOG_DAMAGED',
    `${damage}. The other members could not take ${self} out and in again within ${mendMs / 1_000} s, so nothing was changed (${said.words}). ${mendAdvice(self, said)}`,
  );
}

/** Null: this instance is no member any more. Else why it still may be. */
export async function takeOutBy(
  seed: string,
  { node, security, signal }: Pick<MendOptions, 'node' | 'security' | 'signal'>,
): Promise<Obstacle | null> {
  const within = (ms: number): PeerCallOptions => ({
    deadlineMs: Date.now() + ms,
    isForwarded: false,
    security,
    signal,
  });
  const { nodeId, instanceId, clusterId } = node;
  try {
    const view = await callPeer(seed, ClusterService.members, {}, within(ASK_MS));
    if (view.clusterId !== clusterId) return obstacle(`it is of cluster ${view.clusterId}`);
    // Only what the leader says now is the truth.
    if (view.toleratesNow < 0) return obstacle('it knows no leader: there is no majority of voters without this node');
    const row = view.members.find((member) => member.nodeId === nodeId);
    if (row === undefined) return null;
    if (row.instanceId !== instanceId)
      return obstacle(`${nodeId} is instance ${row.instanceId}: another data directory took its place`);
    const leader = view.members.find((member) => member.nodeId === view.leader);
    if (leader === undefined) return obstacle(`it names ${view.leader} as the leader, and not where that is`);
    // The leader hears it from this node itself: nobody may ask it for another one.
    const asked = { ...within(REMOVE_MS), node: leader.nodeId };
    await callPeer(leader.grpcAddress, ClusterService.remove, { nodeId, instanceId, force: false }, asked);
    return null;
  } catch (error) {
    const { details, metadata, code } = error as Partial<ServiceError>;
    if (code === undefined) throw error;
    const { reason } = readDetails(metadata);
    if (reason === 'MEMBER_UNKNOWN') return null;
    const isRefusal = code === status.UNAUTHENTICATED || code === status.PERMISSION_DENIED;
    return obstacle(`${reason ?? ''} ${details ?? String(error)}`.trim(), isRefusal);
  }
}

function obstacle(words: string, isRefusal = false): Obstacle {
  return { words, isRefusal };
}

function freeName(disk: Disk, path: string): string {
  let number = 1;
  while (disk.size(`${path}-${number}`) >= 0) number += 1;
  return `${path}-${number}`;
}

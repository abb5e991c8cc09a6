import { setTimeout as sleep } from 'node:timers/promises';
import { type ServiceError, status } from '@grpc/grpc-js';
import { callPeer } from '../../grpc/cluster-client.ts';
import { readDetails } from '../../grpc/error-details.ts';
import { ClusterService } from '../../grpc/gen/broker/v1/cluster.ts';
import { CLEAR_TEXT, type PeerCredentials } from '../../grpc/peer-credentials.ts';
import type { Member } from '../../replica/types.ts';
import type { JoinAnswer, JoinPort } from './join-cluster.ts';
import { joinProof } from './join-proof.ts';

/** Longest wait for one seed, in ms: it may have to find a leader first. */
const ASK_MS = 10_000;
/** Other news comes close behind the first, and each look costs a read of the database. */
const NEWS_MS = 50;

/** One seed's answer to a node that wants to join. `key`: the gossip key, if there is one. Never rejects. */
export async function askSeed(
  seed: string,
  clusterId: string,
  member: Member,
  signal: AbortSignal,
  key: Uint8Array | null,
  security: PeerCredentials = CLEAR_TEXT,
): Promise<JoinAnswer> {
  const proof = key === null ? Buffer.alloc(0) : Buffer.from(joinProof(key, clusterId, member));
  const wire = {
    nodeId: member.node,
    instanceId: member.instance,
    raftAddress: member.raft,
    grpcAddress: member.grpc,
    role: 'learner',
    isLeader: false,
    matchIndex: 0,
    isActive: false,
    protocol: member.protocol,
    openAllotments: 0,
  };
  try {
    const options = { deadlineMs: Date.now() + ASK_MS, isForwarded: false, signal, security };
    const { members } = await callPeer(seed, ClusterService.join, { clusterId, member: wire, proof }, options);
    // The first node of a cluster that was recovered leads before its own row is in the log. Who took this answer could never dial it, and
    // would not hear of its address, since that comes by the log.
    const silent = members.find(({ isLeader, raftAddress }) => isLeader && raftAddress === '');
    if (silent !== undefined) {
      return {
        kind: 'unavailable',
        message: `the leader, ${silent.nodeId}, has not told the log its Raft address yet`,
      };
    }
    return {
      kind: 'joined',
      members: members.map((one) => ({
        node: one.nodeId,
        instance: one.instanceId,
        raft: one.raftAddress,
        grpc: one.grpcAddress,
        protocol: one.protocol,
      })),
    };
  } catch (error) {
    return answerOf(error as ServiceError);
  }
}

/** A no is final if a broker gave it and said nothing of trying again. What is no broker, or an older one, may become one. */
function answerOf(error: ServiceError): JoinAnswer {
  const message = error.details ?? String(error);
  const { reason, retryAfterMs } = readDetails(error.metadata);
  const isFinal = reason !== null && retryAfterMs === null && error.code !== status.UNAVAILABLE;
  return isFinal ? { kind: 'refused', reason, message } : { kind: 'unavailable', message };
}

/** What a joining node does of the world: calls, waits and log lines. `news` resolves when others were found, or at the end of its signal; `key` is the gossip key. */
export function joinPort(
  tell: JoinPort['tell'],
  news: (signal: AbortSignal) => Promise<void>,
  key: () => Uint8Array | null,
  security: PeerCredentials = CLEAR_TEXT,
): JoinPort {
  return {
    ask: (seed, clusterId, member, signal) => askSeed(seed, clusterId, member, signal, key(), security),
    tell,
    pause: async (ms, signal) => {
      const end = new AbortController();
      const ending = AbortSignal.any([signal, end.signal]);
      const slept = (wait: number): Promise<void> =>
        sleep(wait, undefined, { signal: ending }).catch((error: unknown) => {
          if (!ending.aborted) throw error;
        });
      await Promise.race([slept(ms), news(ending).then(() => slept(NEWS_MS))]);
      end.abort();
    },
  };
}

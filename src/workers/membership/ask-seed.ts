import { setTimeout as sleep } from 'node:timers/promises';
import { type ServiceError, status } from '@grpc/grpc-js';
import { callPeer } from '../../grpc/cluster-client.ts';
import { readDetails } from '../../grpc/error-details.ts';
import { ClusterService } from '../../grpc/gen/broker/v1/cluster.ts';
import type { Member } from '../../replica/types.ts';
import type { JoinAnswer, JoinPort } from './join-cluster.ts';

/** Longest wait for one seed, in ms: it may have to find a leader first. */
const ASK_MS = 10_000;

/** One seed's answer to a node that wants to join. Never rejects. */
export async function askSeed(
  seed: string,
  clusterId: string,
  member: Member,
  signal: AbortSignal,
): Promise<JoinAnswer> {
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
    const options = { deadlineMs: Date.now() + ASK_MS, isForwarded: false, signal };
    const { members } = await callPeer(seed, ClusterService.join, { clusterId, member: wire }, options);
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

/** What a joining node does of the world: calls, waits and log lines. */
export function joinPort(tell: JoinPort['tell']): JoinPort {
  return {
    ask: askSeed,
    tell,
    pause: async (ms, signal) => {
      await sleep(ms, undefined, { signal }).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
    },
  };
}

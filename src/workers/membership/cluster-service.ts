import { status } from '@grpc/grpc-js';
import { assert } from '../../base/assert.ts';
import { BrokerError, REASONS, type Reason } from '../../base/errors.ts';
import type { ClusterPort } from '../../grpc/cluster.ts';
import { type callPeer, isServiceError, type UnaryMethod } from '../../grpc/cluster-client.ts';
import { readDetails } from '../../grpc/error-details.ts';
import {
  type AddRequest,
  type ChangeResponse,
  type GossipKeysRequest,
  type GossipKeysResponse,
  type JoinRequest,
  type JoinResponse,
  type Member,
  type MembersResponse,
  ClusterService as Methods,
  type PromoteRequest,
  type RemoveRequest,
  type Seen,
  type TransferLeaderRequest,
} from '../../grpc/gen/broker/v1/cluster.ts';
import type { CallContext } from '../../grpc/operator-calls.ts';
import { passedOn } from '../../grpc/status.ts';
import { PROTOCOL_VERSION } from '../../replica/types.ts';
import type { GossipMember } from '../gossip/types.ts';
import type { ClusterView, MemberChange, MemberView } from '../messages.ts';
import type { RaftHandle } from '../raft/raft-handle.ts';
import { clusterWarnings, tolerated, toleratedNow } from './cluster-warnings.ts';
import { isProven } from './join-proof.ts';
import { checkInstanceId, checkMember, checkNodeId } from './member-input.ts';
import { RefusedAsks } from './refused-asks.ts';
import { seenByGossip } from './seen-by-gossip.ts';

/** Longest wait for the leader's answer to a change, in ms: an election and a transfer may lie in between. */
const CHANGE_MS = 20_000;
/** The same for what it knows of the members: a leader that does not answer must not keep the others' view back. */
const ASK_MS = 1_000;

export interface ClusterServiceOptions {
  readonly raft: Pick<RaftHandle, 'cluster' | 'change' | 'status'>;
  /** Without peers there is nothing to change, and the Raft thread knows of no members. */
  readonly isClustered: boolean;
  readonly clusterId: string;
  readonly clusterName: string;
  readonly nodeId: string;
  readonly instanceId: string;
  /** HOST:PORT of this node's gRPC port. */
  readonly grpcAddress: () => string;
  /** raft.voters */
  readonly votersWanted: number;
  readonly call: typeof callPeer;
  /** What gossip says; null: this node does not gossip. */
  readonly gossip: () => readonly GossipMember[] | null;
  /** Lists or changes the gossip keys of all nodes. */
  readonly changeKeys: (request: GossipKeysRequest) => Promise<GossipKeysResponse>;
  /** Gossip keys: who joins shows that it has one of them. */
  readonly keys: () => readonly Uint8Array[];
  /** Without keys too: then a certificate shows it. */
  readonly joinsNeedProof: boolean;
  /** Epoch ms. */
  readonly now: () => number;
}

/** The cluster service of one node: what its Raft thread knows, and, of what only the leader knows or may do, the leader's answer. */
export class ClusterService implements ClusterPort {
  readonly #options: ClusterServiceOptions;
  readonly #refusedAsks = new RefusedAsks();

  constructor(options: ClusterServiceOptions) {
    this.#options = options;
  }

  /** What this node is, in the words of `broker status`. */
  async standing(): Promise<{ readonly role: string; readonly leader: string }> {
    if (!this.#options.isClustered) return { role: 'alone', leader: this.#options.nodeId };
    const view = await this.#view();
    const own = view.members.find(({ node }) => node === view.node);
    const role = view.leader === view.node ? 'leader' : own === undefined || !own.isVoter ? 'learner' : 'voter';
    return { role, leader: view.leader };
  }

  async members(context: CallContext): Promise<MembersResponse> {
    if (!this.#options.isClustered) return await this.#alone();
    const view = await this.#view();
    const { clusterId, clusterName, votersWanted } = this.#options;
    const known = view.leader === view.node ? view.members.map(toWire) : await this.#askLeader(view, context);
    const isHeard = known !== null;
    const members = known ?? view.members.map(unheard);
    const voters = members.filter(({ role }) => role === 'voter');
    const { node: nodeId, leader, term, lastIndex, committed, applied } = view;
    return {
      clusterId,
      cluster: clusterName,
      nodeId,
      leader,
      term,
      lastIndex,
      committed,
      applied,
      votersWanted,
      tolerates: tolerated(voters.length),
      toleratesNow: isHeard ? toleratedNow(voters.length, voters.filter(({ isActive }) => isActive).length) : -1,
      members,
      warnings: clusterWarnings({ members, leader, lastIndex, votersWanted, isHeard }),
      seen: this.#seen(members, isHeard),
    };
  }

  join(request: JoinRequest, context: CallContext): Promise<JoinResponse> {
    return this.#checked(async () => {
      const { clusterId, joinsNeedProof } = this.#options;
      const { certified = null, isForwarded } = context;
      const keys = this.#options.keys();
      const member = checkMember(request.member);
      const hasKey = isProven(keys, request.clusterId, member, request.proof);
      if (request.clusterId !== clusterId) {
        // Strangers are not told the id: it is part of what peers say who they are.
        const ours = hasKey || certified !== null ? `, this one of ${clusterId}` : '';
        throw new BrokerError('CLUSTER_MISMATCH', `it is of ${request.clusterId.slice(0, 64)}${ours}`);
      }
      // Who passes it on vouches for it.
      if (certified !== null && certified !== member.node && !isForwarded) {
        throw new BrokerError('NODE_UNPROVEN', `${member.node} asks with the certificate of ${certified}`);
      }
      if (keys.length > 0 ? !hasKey : joinsNeedProof && certified === null) throw new BrokerError('JOIN_UNPROVEN');
      return await this.#change(Methods.join, request, { kind: 'add', member }, context);
    });
  }

  add(request: AddRequest, context: CallContext): Promise<ChangeResponse> {
    return this.#checked(async () => {
      const member = checkMember(request.member);
      return await this.#change(Methods.add, request, { kind: 'add', member }, context);
    });
  }

  remove(request: RemoveRequest, context: CallContext): Promise<ChangeResponse> {
    return this.#checked(async () => {
      const { nodeId: node, instanceId: instance, force } = request;
      checkNodeId(node);
      checkInstanceId(instance);
      const { certified = null } = context;
      if (certified !== null && (certified !== node || force)) {
        const words = `node ${certified} may have itself taken out, and not by force: anything else is asked with the token of an operator`;
        throw new BrokerError('PERMISSION_DENIED', words);
      }
      return await this.#change(Methods.remove, request, { kind: 'remove', node, instance, force }, context);
    });
  }

  promote(request: PromoteRequest, context: CallContext): Promise<ChangeResponse> {
    return this.#checked(async () => {
      checkNodeId(request.nodeId);
      return await this.#change(Methods.promote, request, { kind: 'promote', node: request.nodeId }, context);
    });
  }

  transferLeader(request: TransferLeaderRequest, context: CallContext): Promise<ChangeResponse> {
    return this.#checked(async () => {
      if (request.nodeId !== '') checkNodeId(request.nodeId);
      return await this.#change(Methods.transferLeader, request, { kind: 'transfer', node: request.nodeId }, context);
    });
  }

  /** Also of a node without peers: gossip has its own cluster. */
  gossipKeys(request: GossipKeysRequest): Promise<GossipKeysResponse> {
    return this.#options.changeKeys(request);
  }

  async #checked<T>(work: () => Promise<T>): Promise<T> {
    if (!this.#options.isClustered) throw new BrokerError('NOT_CLUSTERED');
    return await work();
  }

  async #view(): Promise<ClusterView> {
    const view = await this.#options.raft.cluster();
    if (view === null) throw new BrokerError('SHUTTING_DOWN');
    return view;
  }

  /** Here if this node leads, else on the leader, passed on once. */
  async #change<Request, Response extends ChangeResponse>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    change: MemberChange,
    context: CallContext,
  ): Promise<ChangeResponse> {
    let view = await this.#view();
    if (view.leader === view.node) {
      const { reason, message } = await this.#options.raft.change(change);
      view = await this.#view();
      if (reason === null) return { members: view.members.map(toWire), leader: view.leader };
      // The lead was lost before the change was in the log: whoever leads now may take it.
      if (reason !== 'NOT_LEADER') throw refusal(reason, message);
    }
    const leader = leaderOf(view);
    if (leader === null) throw new BrokerError('NOT_LEADER', 'no leader is known');
    // What a node asks for itself the leader has to hear from itself: passed on, it would be the word of another one.
    const isOwn = change.kind === 'remove' && (context.certified ?? null) !== null;
    if (context.isForwarded || isOwn) throw new BrokerError('NOT_LEADER', `${leader.node} at ${leader.grpc} leads`);
    return await this.#passOn(leader, method, request, context);
  }

  async #passOn<Request, Response>(
    leader: MemberView,
    method: UnaryMethod<Request, Response>,
    request: Request,
    context: CallContext,
  ): Promise<Response> {
    const { call, now } = this.#options;
    const deadlineMs = Math.min(context.deadlineMs, now() + CHANGE_MS);
    try {
      const { authorization = null } = context;
      const options = { deadlineMs, isForwarded: true, authorization, node: leader.node };
      return await call(leader.grpc, method, request, options);
    } catch (error) {
      if (!isServiceError(error)) throw error;
      const { reason } = readDetails(error.metadata);
      // It has not heard who asks.
      if (reason === 'CREDENTIALS_MISSING' || (reason === 'PERMISSION_DENIED' && !context.authorization)) {
        const words = `${leader.node} at ${leader.grpc} leads, and has to be asked itself: a token is passed on between nodes with certificates, and nothing else is`;
        throw new BrokerError('NOT_LEADER', words);
      }
      // Never sent, or lost with the connection: every change may be asked for again.
      const isLost = error.code === status.UNAVAILABLE && reason === null;
      if (isLost) throw new BrokerError('NOT_LEADER', `${leader.node} at ${leader.grpc} does not answer`);
      throw passedOn(error);
    }
  }

  /** The members as the leader sees them; null if it does not say. */
  async #askLeader(view: ClusterView, context: CallContext): Promise<Member[] | null> {
    const leader = leaderOf(view);
    if (leader === null || context.isForwarded) return null;
    const { call, now } = this.#options;
    if (!this.#refusedAsks.mayAsk(leader.instance, now())) return null;
    const deadlineMs = Math.min(context.deadlineMs, now() + ASK_MS);
    try {
      const answer = await call(leader.grpc, Methods.members, {}, { deadlineMs, isForwarded: true, node: leader.node });
      this.#refusedAsks.answered();
      // It has lost the lead meanwhile, and knows as little as this node.
      return answer.leader === answer.nodeId && answer.clusterId === this.#options.clusterId ? answer.members : null;
    } catch (error) {
      if (!isServiceError(error)) throw error;
      if (error.code === status.PERMISSION_DENIED || error.code === status.UNAUTHENTICATED) {
        this.#refusedAsks.refused(leader.instance, now());
      }
      return null;
    }
  }

  async #alone(): Promise<MembersResponse> {
    const raft = await this.#options.raft.status();
    if (raft === null) throw new BrokerError('SHUTTING_DOWN');
    const { clusterId, clusterName, nodeId, instanceId, grpcAddress } = this.#options;
    const { term, lastIndex, applied, openAllotments } = raft;
    const self: Member = {
      nodeId,
      instanceId,
      raftAddress: '',
      grpcAddress: grpcAddress(),
      role: 'voter',
      isLeader: true,
      matchIndex: lastIndex,
      isActive: true,
      protocol: PROTOCOL_VERSION,
      openAllotments,
    };
    return {
      clusterId,
      cluster: clusterName,
      nodeId,
      leader: nodeId,
      term,
      lastIndex,
      committed: applied,
      applied,
      votersWanted: 1,
      tolerates: 0,
      toleratesNow: 0,
      members: [self],
      warnings: [],
      seen: this.#seen([self], true),
    };
  }

  #seen(members: readonly Member[], isHeard: boolean): Seen[] {
    const { clusterId, clusterName, gossip } = this.#options;
    return seenByGossip({ clusterId, clusterName, members, isHeard }, gossip());
  }
}

function leaderOf(view: ClusterView): MemberView | null {
  if (view.leader === '' || view.leader === view.node) return null;
  return view.members.find(({ node }) => node === view.leader) ?? null;
}

function toWire(member: MemberView): Member {
  return {
    nodeId: member.node,
    instanceId: member.instance,
    raftAddress: member.raft,
    grpcAddress: member.grpc,
    role: member.isVoter ? 'voter' : 'learner',
    isLeader: member.isLeader,
    matchIndex: member.match,
    isActive: member.isActive,
    protocol: member.protocol,
    openAllotments: member.openAllotments,
  };
}

/** Where only the leader knows, and does not say. */
function unheard(member: MemberView): Member {
  return { ...toWire(member), matchIndex: -1, isActive: false };
}

function refusal(reason: string, message: string): BrokerError {
  assert(Object.hasOwn(REASONS, reason), () => `the Raft thread refused a change with ${reason}, which is no reason`);
  return new BrokerError(reason as Reason, message);
}

import type { Server } from '@grpc/grpc-js';
import {
  type AddRequest,
  type ChangeResponse,
  ClusterService,
  type GossipKeysRequest,
  type GossipKeysResponse,
  type JoinRequest,
  type JoinResponse,
  type MembersResponse,
  type PromoteRequest,
  type RemoveRequest,
  type TransferLeaderRequest,
} from './gen/broker/v1/cluster.ts';
import { type CallContext, tolerant, unary } from './operator-calls.ts';

/** The members of the cluster, for operators and for nodes that join. Rejections are BrokerErrors, or statuses; any other is a defect. */
export interface ClusterPort {
  members(context: CallContext): Promise<MembersResponse>;
  join(request: JoinRequest, context: CallContext): Promise<JoinResponse>;
  add(request: AddRequest, context: CallContext): Promise<ChangeResponse>;
  remove(request: RemoveRequest, context: CallContext): Promise<ChangeResponse>;
  promote(request: PromoteRequest, context: CallContext): Promise<ChangeResponse>;
  transferLeader(request: TransferLeaderRequest, context: CallContext): Promise<ChangeResponse>;
  gossipKeys(request: GossipKeysRequest, context: CallContext): Promise<GossipKeysResponse>;
}

/** `onDefect` is told of every rejection that is not an operating error; its caller gets INTERNAL_ERROR. */
export function addCluster(server: Server, cluster: ClusterPort, onDefect: (error: unknown) => void): void {
  const { members, join, add, remove, promote, transferLeader, gossipKeys } = ClusterService;
  server.addService(
    {
      members: tolerant(members),
      join: tolerant(join),
      add: tolerant(add),
      remove: tolerant(remove),
      promote: tolerant(promote),
      transferLeader: tolerant(transferLeader),
      gossipKeys: tolerant(gossipKeys),
    },
    {
      members: unary((_, context) => cluster.members(context), onDefect),
      join: unary((request: JoinRequest, context) => cluster.join(request, context), onDefect),
      add: unary((request: AddRequest, context) => cluster.add(request, context), onDefect),
      remove: unary((request: RemoveRequest, context) => cluster.remove(request, context), onDefect),
      promote: unary((request: PromoteRequest, context) => cluster.promote(request, context), onDefect),
      transferLeader: unary(
        (request: TransferLeaderRequest, context) => cluster.transferLeader(request, context),
        onDefect,
      ),
      gossipKeys: unary((request: GossipKeysRequest, context) => cluster.gossipKeys(request, context), onDefect),
    },
  );
}

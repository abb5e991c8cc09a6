import { formatEndpoint } from '../../base/endpoint.ts';
import type { Member, Seen } from '../../grpc/gen/broker/v1/cluster.ts';
import { ROLE, TAGS } from '../gossip/gossip-view.ts';
import type { GossipMember } from '../gossip/types.ts';

/** What Raft knows, for gossip to be held against. */
export interface RaftSide {
  readonly clusterId: string;
  readonly clusterName: string;
  readonly members: readonly Member[];
  /** The leader has said whom it hears. */
  readonly isHeard: boolean;
}

/** What gossip says of each member, in their order, and then of others that it has met, by name. `view` null: this node does not gossip. */
export function seenByGossip(raft: RaftSide, view: readonly GossipMember[] | null): Seen[] {
  if (view === null) return [];
  const byName = new Map(view.map((seen) => [seen.node, seen]));
  const members = raft.members.map((member) => {
    const seen = byName.get(member.nodeId);
    if (seen !== undefined) return toSeen(seen, true, differenceOf(raft, member, seen));
    return {
      ...{ nodeId: member.nodeId, instanceId: '', raftAddress: '', grpcAddress: '', status: '', gossipAddress: '' },
      isMember: true,
      difference:
        'gossip has not met it: it runs without gossip, or nothing reaches its gossip port (UDP and TCP) from here',
    };
  });
  const known = new Set(raft.members.map(({ nodeId }) => nodeId));
  const others = view
    .filter(({ node }) => !known.has(node))
    .sort((a, b) => (a.node < b.node ? -1 : 1))
    .map((seen) => toSeen(seen, false, strangerBecause(raft, seen)));
  return [...members, ...others];
}

function toSeen({ node, status, address, tags }: GossipMember, isMember: boolean, difference: string): Seen {
  return {
    nodeId: node,
    instanceId: tags[TAGS.instance] ?? '',
    raftAddress: tags[TAGS.raft] ?? '',
    grpcAddress: tags[TAGS.grpc] ?? '',
    status,
    gossipAddress: formatEndpoint(address),
    isMember,
    difference,
  };
}

function differenceOf({ isHeard, clusterId }: RaftSide, member: Member, { status, tags }: GossipMember): string {
  const { nodeId, instanceId, role, raftAddress, isActive } = member;
  const isThere = status === 'alive' || status === 'suspect';
  if (isThere && tags[TAGS.role] !== ROLE) {
    return `an agent that is no broker gossips under the name of this ${role}: give it another name`;
  }
  const other = tags[TAGS.clusterId] ?? '';
  if (isThere && other !== '' && other !== clusterId) {
    return `it says that it is of cluster ${other}: two clusters gossip together, and both have a node of this name`;
  }
  const claimed = tags[TAGS.instance] ?? '';
  if (isThere && claimed !== '' && claimed !== instanceId) {
    const words = `gossip sees instance ${claimed}, the ${role} is ${instanceId}`;
    // Whoever is heard is well, whatever somebody says of it.
    if (isHeard && isActive)
      return `${words} and the leader hears it: two nodes have this name, give one of them another`;
    return `${words}: it lost its data directory, or two nodes have this name; \`broker cluster remove ${nodeId}/${instanceId}\` lets the new one in`;
  }
  if (isHeard && isActive && status === 'failed') {
    return `gossip calls it failed and the leader hears it: UDP is blocked, it stood still for a while, or it was started again without gossip or with another key; it stays a ${role}`;
  }
  if (isHeard && isActive && status === 'left') {
    return `it has left gossip and the leader still hears it: it is stopping, or was started again without gossip or with another key; it stays a ${role}`;
  }
  if (isHeard && !isActive && status === 'left') {
    return `it was stopped, and stays a ${role}: start it again, or take it out with \`broker cluster remove ${nodeId}\``;
  }
  if (isHeard && !isActive && status === 'alive') {
    return `it gossips and the leader does not hear it: it is starting, or nothing gets through to its Raft port (${raftAddress})`;
  }
  const advertised = tags[TAGS.raft] ?? '';
  // A node alone opens no Raft port, so there is none to differ from.
  if (isThere && advertised !== '' && raftAddress !== '' && advertised !== raftAddress) {
    return `it says that its Raft port is at ${advertised} by now: the log learns that from itself as soon as a leader hears it`;
  }
  return '';
}

function strangerBecause({ clusterId, clusterName }: RaftSide, { status, tags }: GossipMember): string {
  const isGone = status === 'failed' || status === 'left';
  if (tags[TAGS.role] !== ROLE) {
    return isGone ? 'no broker: an agent; gossip forgets it in a day' : 'no broker: an agent that gossips along';
  }
  const name = tags[TAGS.cluster] ?? '';
  if (name !== clusterName) return `a broker of cluster "${name}"`;
  if (isGone) return 'it was removed, or never taken in; gossip forgets it in a day';
  const other = tags[TAGS.clusterId] ?? '';
  if (other === '') return 'it is about to ask to be taken in';
  if (other !== clusterId) return `a broker of another cluster of the same name (${other})`;
  return 'it was removed from the cluster and runs on: stop it';
}

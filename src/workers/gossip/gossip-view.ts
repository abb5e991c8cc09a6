import type { RaftAddress } from '../messages.ts';
import type { GossipMember } from './types.ts';

/** Tags of a broker. All of a node are under 512 bytes together. */
export const TAGS = {
  /** `broker`: without it somebody else's agent gossips along. */
  role: 'role',
  /** The key `cluster`. */
  cluster: 'cluster',
  /** Empty until the node has found its cluster. */
  clusterId: 'cid',
  instance: 'inst',
  /** HOST:PORT each. */
  grpc: 'grpc',
  raft: 'raft',
  version: 'version',
  /** Of the Raft port (PROTOCOL_VERSION). */
  protocol: 'proto',
} as const;

export const ROLE = 'broker';

/** What a broker says of itself. */
export interface OwnTags {
  readonly cluster: string;
  readonly clusterId: string;
  readonly instance: string;
  readonly advertised: { readonly raft: string; readonly grpc: string } | null;
  readonly version: string;
  readonly protocol: number;
}

export function tagsOf(own: OwnTags): Record<string, string> {
  return {
    [TAGS.role]: ROLE,
    [TAGS.cluster]: own.cluster,
    ...(own.clusterId === '' ? {} : { [TAGS.clusterId]: own.clusterId }),
    [TAGS.instance]: own.instance,
    ...(own.advertised === null ? {} : { [TAGS.grpc]: own.advertised.grpc, [TAGS.raft]: own.advertised.raft }),
    [TAGS.version]: own.version,
    [TAGS.protocol]: String(own.protocol),
  };
}

/** A broker of the cluster of this name that seems to be there. */
function isPeer({ status, tags }: GossipMember, cluster: string): boolean {
  return (status === 'alive' || status === 'suspect') && tags[TAGS.role] === ROLE && tags[TAGS.cluster] === cluster;
}

/**
 * gRPC addresses of brokers to ask for being taken in: of this cluster name, and of this cluster id or none yet; those that have found their cluster
 * first. Somebody else's refusal would be taken for that of the cluster.
 */
export function seedsIn(
  view: readonly GossipMember[],
  { cluster, clusterId, self }: { readonly cluster: string; readonly clusterId: string; readonly self: string },
): string[] {
  const idOf = ({ tags }: GossipMember): string => tags[TAGS.clusterId] ?? '';
  const isIn = (member: GossipMember): number => (idOf(member) === '' ? 1 : 0);
  return view
    .filter((member) => member.node !== self && isPeer(member, cluster) && hasAddress(member))
    .filter((member) => ['', clusterId].includes(idOf(member)))
    .sort((a, b) => isIn(a) - isIn(b) || (a.node < b.node ? -1 : 1))
    .map(({ tags }) => tags[TAGS.grpc] as string);
}

function hasAddress({ tags }: GossipMember): boolean {
  return (tags[TAGS.grpc] ?? '') !== '';
}

/**
 * How many brokers of this cluster name seem to be there that have found no cluster yet, this one included. For one that finds no cluster in its database
 * those that have one are of another database, and would not come.
 */
export function brokersIn(view: readonly GossipMember[], cluster: string): number {
  return view.filter((member) => isPeer(member, cluster) && (member.tags[TAGS.clusterId] ?? '') === '').length;
}

/** Raft addresses of the brokers that seem to be there and are of this cluster id, by name. */
export function raftAddressesIn(view: readonly GossipMember[], cluster: string, clusterId: string): RaftAddress[] {
  return view
    .filter((member) => isPeer(member, cluster) && member.tags[TAGS.clusterId] === clusterId)
    .map(({ node, tags }) => ({
      node,
      instance: tags[TAGS.instance] ?? '',
      raft: tags[TAGS.raft] ?? '',
    }))
    .filter(({ instance, raft }) => instance !== '' && raft !== '')
    .sort((a, b) => (a.node < b.node ? -1 : 1));
}

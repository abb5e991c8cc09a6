/** Rules between the keys of nodes that have, find or will have peers. A part of `RULES`. */
import { type Endpoint, formatEndpoint, isAnyAddress } from './endpoint.ts';
import type { Rule } from './rules.ts';
import type { Config } from './schema.ts';

/** The ways to have peers, for messages. */
export const PEERS = 'bootstrap, bootstrap_expect, join, gossip.join or discovery';

/** It will have peers, by what it was told; what its data directory says is found out at the start. Gossip alone is no peer. */
export function hasPeers(
  config: Pick<Config, 'bootstrap' | 'bootstrapExpect' | 'join' | 'gossip' | 'discovery'>,
): boolean {
  return config.bootstrap || config.join !== null || seeksPeers(config);
}

/** It waits for peers that gossip finds. */
function seeksPeers({ bootstrapExpect, gossip, discovery }: Pick<Config, 'bootstrapExpect' | 'gossip' | 'discovery'>) {
  return bootstrapExpect > 0 || gossip.join !== null || discovery.kind !== 'none';
}

/** Whether gossip runs: it was turned on, or something needs it. */
export function hasGossip(config: Pick<Config, 'bootstrapExpect' | 'gossip' | 'discovery'>): boolean {
  return config.gossip.enabled || seeksPeers(config);
}

/** Whether peers can be told where to connect: also after the next start, so that the system may not choose the port. */
function isAdvertisable({ listen, advertise }: { listen: Endpoint; advertise: Endpoint | null }): boolean {
  return advertise !== null || (listen.port > 0 && !isAnyAddress(listen));
}

/** HOST:PORT as peers reach the node's ports; null if nobody could. */
export function advertisedBy({ raft, grpc }: Pick<Config, 'raft' | 'grpc'>): { raft: string; grpc: string } | null {
  if (!isAdvertisable(raft) || !isAdvertisable(grpc)) return null;
  return { raft: formatEndpoint(raft.advertise ?? raft.listen), grpc: formatEndpoint(grpc.advertise ?? grpc.listen) };
}

function advertiseRule(section: 'grpc' | 'raft'): Rule {
  return {
    key: `${section}.advertise`,
    text: `${section}.advertise is needed with ${PEERS} where ${section}.listen is 0.0.0.0 or [::], or its port is 0`,
    holds: (config) => !hasPeers(config) || isAdvertisable(config[section]),
    against: (config) => `${section}.listen is ${formatEndpoint(config[section].listen)}`,
  };
}

/** The messages of an embedded store are on the disk of one node: another one could not read them. */
function sharedStoreRule(key: string, isGiven: (config: Config) => boolean): Rule {
  return {
    key,
    text: `${key} needs a store that all nodes share (postgres or cassandra): embedded keeps the messages on the disk of one node`,
    holds: (config) => config.store.kind !== 'embedded' || !isGiven(config),
    against: ({ store }) => `store is ${store.kind}`,
  };
}

type Listener = 'raft' | 'grpc' | 'admin';

function differentPorts(
  section: 'raft' | 'gossip',
  other: Listener,
  isUsed: (config: Config) => boolean,
  when: string,
): Rule {
  return {
    key: `${section}.listen`,
    text: `${section}.listen and ${other}.listen must differ with ${when}`,
    holds: (config) =>
      !isUsed(config) ||
      config[section].listen.port === 0 ||
      formatEndpoint(config[section].listen) !== formatEndpoint(config[other].listen),
    against: (config) => `${other}.listen is ${formatEndpoint(config[other].listen)}`,
  };
}

export const MEMBERSHIP_RULES: readonly Rule[] = [
  sharedStoreRule('bootstrap', ({ bootstrap }) => bootstrap),
  sharedStoreRule('bootstrap_expect', ({ bootstrapExpect }) => bootstrapExpect > 0),
  sharedStoreRule('join', ({ join }) => join !== null),
  sharedStoreRule('gossip.join', ({ gossip }) => gossip.join !== null),
  sharedStoreRule('discovery.kind', ({ discovery }) => discovery.kind !== 'none'),
  {
    key: 'bootstrap_expect',
    text: 'bootstrap_expect must be 0 with bootstrap, which waits for nobody',
    holds: ({ bootstrap, bootstrapExpect }) => !bootstrap || bootstrapExpect === 0,
    against: () => 'bootstrap is true',
  },
  {
    key: 'gossip.enabled',
    text: 'gossip must not be false with gossip.join, discovery or bootstrap_expect, which need it',
    holds: (config, isGiven) => config.gossip.enabled || !seeksPeers(config) || !isGiven('gossip.enabled'),
    against: ({ bootstrapExpect, gossip, discovery }) => {
      if (gossip.join !== null) return 'gossip.join is set';
      return discovery.kind === 'none' ? `bootstrap_expect is ${bootstrapExpect}` : `discovery is ${discovery.kind}`;
    },
  },
  advertiseRule('grpc'),
  advertiseRule('raft'),
  {
    // Port 0 will do: others learn the port that it got, and none keeps it for a later start.
    key: 'gossip.advertise',
    text: 'gossip.advertise is needed with gossip where gossip.listen is 0.0.0.0 or [::]',
    holds: (config) => !hasGossip(config) || config.gossip.advertise !== null || !isAnyAddress(config.gossip.listen),
    against: ({ gossip }) => `gossip.listen is ${formatEndpoint(gossip.listen)}`,
  },
  differentPorts('raft', 'grpc', hasPeers, PEERS),
  differentPorts('raft', 'admin', hasPeers, PEERS),
  differentPorts('gossip', 'raft', hasGossip, 'gossip'),
  differentPorts('gossip', 'grpc', hasGossip, 'gossip'),
  differentPorts('gossip', 'admin', hasGossip, 'gossip'),
  {
    key: 'discovery.dns_name',
    text: 'discovery.dns_name is needed with discovery dns',
    holds: ({ discovery }) => discovery.kind !== 'dns' || discovery.dnsName !== null,
    against: () => 'it is not set',
  },
  {
    key: 'discovery.kubernetes_service',
    text: 'discovery.kubernetes_service is needed with discovery kubernetes',
    holds: ({ discovery }) => discovery.kind !== 'kubernetes' || discovery.kubernetesService !== null,
    against: () => 'it is not set',
  },
];

import { formatEndpoint } from '../../base/endpoint.ts';
import { VERSION } from '../../base/version.ts';
import { META_BYTES_MAX } from '../../gossip/types.ts';
import { serfCodec } from '../../net/gossip/serf-codec.ts';
import { PROTOCOL_VERSION } from '../../replica/types.ts';
import type { DataDirectory, NodeIdentity } from '../../storage/data-directory.ts';
import { StartError } from '../../storage/start-error.ts';
import type { MetricsRegistry } from '../../telemetry/metrics.ts';
import { GossipAgent } from '../gossip/gossip-agent.ts';
import { addGossipMetrics } from '../gossip/gossip-metrics.ts';
import { type OwnTags, tagsOf } from '../gossip/gossip-view.ts';
import type { MembershipOptions } from './membership.ts';
import { PeerFinder } from './peer-finder.ts';

/** Of a UUID. */
const CLUSTER_ID_LENGTH = 36;

/** What knows whom to ask, as the configuration says. It does not gossip yet. */
export function finderOf({ config, seeds, seeks, advertised }: MembershipOptions, node: NodeIdentity): PeerFinder {
  return new PeerFinder({
    nodeId: node.nodeId,
    own: ownTags(node, advertised),
    join: seeds,
    expect: config.bootstrapExpect,
    hasSource: seeks,
    keys: keysOf(config.gossip),
  });
}

function keysOf({ key }: MembershipOptions['config']['gossip']): Uint8Array[] {
  return key === null ? [] : [Buffer.from(key, 'base64')];
}

function ownTags({ clusterName, instanceId }: NodeIdentity, advertised: OwnTags['advertised']): OwnTags {
  return {
    cluster: clusterName,
    clusterId: '',
    instance: instanceId,
    advertised,
    version: VERSION,
    protocol: PROTOCOL_VERSION,
  };
}

/** From now on the node gossips, and whatever is found tells the finder. StartError if the port cannot be opened. */
export async function openGossip(
  finder: PeerFinder,
  { config, advertised, openDiscovery, log }: MembershipOptions,
  { path, node, metrics }: Pick<DataDirectory, 'path' | 'node'> & { readonly metrics: MetricsRegistry | null },
): Promise<void> {
  const { gossip } = config;
  checkTags(ownTags(node, advertised));
  const agent = new GossipAgent({
    node: node.nodeId,
    listen: gossip.listen,
    advertise: gossip.advertise,
    keys: keysOf(gossip),
    label: gossip.label ?? '',
    profile: gossip.profile,
    tags: tagsOf(ownTags(node, advertised)),
    clusterName: node.clusterName,
    dataDirectory: path,
    log,
    onChange: () => finder.changed(),
  });
  await agent.start();
  if (metrics !== null) addGossipMetrics(metrics, agent);
  void agent.join((gossip.join ?? []).map(formatEndpoint));
  const discovery = openDiscovery({
    onSeeds: (addresses) => void agent.found(addresses.map(formatEndpoint)),
    onProblem: (reason) => log.warn('discovery has a problem', { reason }),
  });
  finder.use(agent, discovery);
}

/** The cluster's id comes with the cluster: a tag that has no room then would leave the node unknown to those who look for it. */
function checkTags(own: OwnTags): void {
  const tags = tagsOf({ ...own, clusterId: own.clusterId.padEnd(CLUSTER_ID_LENGTH) });
  const bytes = serfCodec.encodeTags(new Map(Object.entries(tags))).length;
  if (bytes <= META_BYTES_MAX) return;
  throw new StartError(
    'ADVERTISE_NEEDED',
    `what gossip says of this node has ${bytes} bytes, and at most ${META_BYTES_MAX} fit: shorten raft.advertise, grpc.advertise or cluster by ${bytes - META_BYTES_MAX}`,
  );
}

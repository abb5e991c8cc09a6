import type { PeerCredentials } from '../../grpc/peer-credentials.ts';
import type { PeerHandler } from '../../grpc/stream-services.ts';
import type { Log } from '../../telemetry/log.ts';
import type { ClusterView } from '../messages.ts';
import type { Peers } from './peers.ts';

/** A node with peers begins to exchange messages with them. Before a client is let in. Returns who takes their calls. */
export function meetPeers(
  peers: Peers,
  raft: { cluster(): Promise<ClusterView | null> },
  node: { readonly clusterId: string; readonly nodeId: string; readonly instanceId: string },
  {
    messageBytes,
    log,
    security,
  }: { readonly messageBytes: number; readonly log: Log; readonly security: PeerCredentials },
): PeerHandler {
  peers.start({
    clusterId: node.clusterId,
    node: node.nodeId,
    instance: node.instanceId,
    incarnation: Math.floor(performance.timeOrigin),
    messageBytesMax: messageBytes,
    members: async () => (await raft.cluster())?.members ?? null,
    log,
    security,
  });
  return (call) => peers.accept(call);
}

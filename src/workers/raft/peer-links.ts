import { PeerNetwork } from '../../net/peer-network.ts';
import { type PeerMaterial, PeerTls } from '../../net/peer-tls.ts';
import type { Hello, Refusal, SnapshotReceiver } from '../../net/types.ts';
import { type Message, NOBODY, type NodeId } from '../../raft/messages.ts';
import { type Hearing, hearingOf, isHeard, SpokenTo } from '../../replica/admission.ts';
import type { Member, PeerFrame } from '../../replica/types.ts';
import type { SnapshotReader } from '../../storage/raft-wal/snapshot-file.ts';
import type { ClusterThreadData, LogLine, RaftAddress } from '../messages.ts';
import type { LogTraces } from '../tracing/log-traces.ts';
import { dialList } from './dial-list.ts';
import { snapshotPieces } from './snapshot-transfer.ts';

/** The node that frames and snapshots are for. */
export interface LinkedNode {
  /** The cluster's members, as far as this node has applied the log; none before it has joined. */
  readonly members: () => readonly Member[];
  /** Heard of within the last election timeout; NOBODY else. */
  readonly leader: () => NodeId;
  readonly onFrame: (from: NodeId, frame: PeerFrame) => void;
  readonly onUnreachable: (node: NodeId) => void;
  readonly onSnapshotSent: (to: NodeId, outcome: 'delivered' | 'failed') => void;
  /** Null: not now. */
  readonly beginSnapshot: (message: Message) => SnapshotReceiver | null;
  /** The newest snapshot, if it is that of the message. */
  readonly openSnapshot: (message: Message) => SnapshotReader | null;
}

/** What the Raft node says to its peers and hears of them: who may speak, whom to dial, frames and snapshots. */
export class PeerLinks {
  readonly #node: NodeId;
  readonly #report: (line: LogLine) => void;
  readonly #network: PeerNetwork;
  readonly #tls: PeerTls | null;
  /** Null: nothing is traced. */
  traces: LogTraces | null = null;
  #linked: LinkedNode | null = null;
  #dialed = '';
  /** The members as the cluster named them to a node that joins. */
  #told: readonly Member[];
  /** What the members were when they were last looked at. */
  #followed: readonly Member[] | null = null;
  readonly #spokenTo = new SpokenTo();
  /** Where members say they are by now, by node. */
  #moved: ReadonlyMap<NodeId, RaftAddress> = new Map();

  constructor(cluster: ClusterThreadData, node: NodeId, instance: string, report: (line: LogLine) => void) {
    this.#told = cluster.joining ?? [];
    this.#node = node;
    this.#report = report;
    this.#tls = cluster.tls == null ? null : new PeerTls(cluster.tls);
    this.#network = new PeerNetwork({
      tls: this.#tls,
      clusterId: cluster.clusterId,
      node,
      instance,
      listen: cluster.listen,
      events: {
        admit: (hello) => this.#admit(hello),
        onFrame: (from, frame, instance) => {
          if (!isHeard(this.#hearingOf(from, instance), frame)) return;
          if (frame.kind === 'runs' && frame.traces !== undefined) this.traces?.came(from, frame);
          this.#linked?.onFrame(from, frame);
        },
        onUnreachable: (peer) => this.#linked?.onUnreachable(peer),
        onRefused: (peer, { code, words }) => {
          this.#tell('warn', 'a member refuses this node', { peer, code, reason: words });
        },
        beginSnapshot: (_from, message) => this.#linked?.beginSnapshot(message) ?? null,
      },
      log: {
        info: (message, fields) => this.#tell('info', message, { ...fields } as LogLine['fields']),
        warn: (message, fields) => this.#tell('warn', message, { ...fields } as LogLine['fields']),
      },
    });
  }

  useCertificates(material: PeerMaterial): void {
    this.#tls?.set(material);
  }

  /** Connections to the Raft port that were refused for what TLS says of them. */
  get untrusted(): number {
    return this.#network.counters.untrusted;
  }

  /** From here on frames are for that node, and its members are dialed. */
  attach(linked: LinkedNode): void {
    this.#linked = linked;
    this.follow();
  }

  listen(): Promise<number> {
    return this.#network.listen();
  }

  close(): Promise<void> {
    return this.#network.close();
  }

  /**
   * Where nodes say, outside the log, that their Raft ports are: the log learns a new address only from a node that is heard, and if all of them
   * have moved nobody hears anybody (G4). It counts for the instance that is a member only, while nothing answers at the address of the log: it is hearsay, and
   * must not cut off who is well where the log says. It changes nobody's part in the cluster.
   */
  heardOf(addresses: readonly RaftAddress[]): void {
    this.#moved = new Map(addresses.map((address) => [address.node, address]));
    this.#followed = null;
  }

  /** Dials the members of now. Costs nothing when they are those of before: it is called with every round of the loop. */
  follow(): void {
    const known = this.#linked?.members() ?? [];
    if (known === this.#followed) return;
    this.#followed = known;
    const spokenTo = known.map((member) => ({ ...member, instance: this.#spokenTo.instanceOf(member) }));
    const peers = dialList(spokenTo, this.#told, this.#moved, this.#node);
    const key = JSON.stringify(peers);
    if (key === this.#dialed) return;
    this.#dialed = key;
    this.#network.setPeers(peers);
  }

  send(to: NodeId, frame: PeerFrame): void {
    if (frame.kind === 'raft' && frame.message.type === 'snapshot') this.#sendSnapshot(to, frame.message);
    else this.#network.send(to, frame.kind === 'runs' && this.traces !== null ? this.traces.attach(frame) : frame);
  }

  #sendSnapshot(to: NodeId, message: Message): void {
    const linked = this.#linked;
    if (linked === null) return;
    const failed = (error: unknown): void => {
      this.#tell('warn', 'a snapshot could not be sent', { to, error: String(error) });
      linked.onSnapshotSent(to, 'failed');
    };
    try {
      const reader = linked.openSnapshot(message);
      if (reader === null) {
        // There is a newer one by now: the core sends that when it hears of the failure.
        linked.onSnapshotSent(to, 'failed');
        return;
      }
      this.#tell('info', 'sending a snapshot', { to, index: message.snapshot?.index ?? 0 });
      this.#network
        .sendSnapshot(to, message, snapshotPieces(reader))
        .finally(() => reader.close())
        .then((outcome) => linked.onSnapshotSent(to, outcome), failed);
    } catch (error) {
      failed(error);
    }
  }

  /** This node has applied the log to beyond the place where it joined: its own table says who may speak and is dialed. */
  caughtUp(): void {
    if (this.#told.length === 0) return;
    this.#told = [];
    this.#followed = null;
  }

  #hearingOf(node: NodeId, instance: string): Hearing {
    // A node that joins may be sent a snapshot from before the leader itself was taken in anew: its table is older than what it was told when it joined.
    if (this.#told.some((member) => member.node === node && member.instance === instance)) return 'everything';
    const { members, leader } = this.#linked ?? { members: () => [], leader: () => NOBODY };
    return hearingOf(members(), leader(), node, instance);
  }

  #admit({ node, instance }: Hello): Refusal | null {
    const hearing = this.#hearingOf(node, instance);
    // Who is connected under that name is not given up for somebody who may be the older of the two.
    const isSettled = hearing === 'requests' && this.#network.isConnected(node);
    if (!isSettled && this.#spokenTo.heard(this.#linked?.members() ?? [], node, instance, hearing)) {
      this.#followed = null;
      if (hearing === 'requests') this.#tell('warn', REQUESTS_ONLY, { peer: node, instance });
    }
    if (hearing !== 'nothing') return null;
    return refuse(
      `the cluster knows another instance of ${node}: what lost its data directory comes back as a new member. Run \`broker cluster remove ${node}\`, then start it with an empty data directory and --join`,
    );
  }

  #tell(level: LogLine['level'], message: string, fields: LogLine['fields']): void {
    this.#report({ kind: 'log', level, message, fields });
  }
}

const REQUESTS_ONLY =
  'a member speaks as another instance than the log of this node knows: it is answered, and nothing that it promises counts, until the log tells more';

function refuse(words: string): Refusal {
  return { code: 'INSTANCE_REFUSED', words };
}

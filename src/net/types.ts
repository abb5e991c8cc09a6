import type { Message, NodeId } from '../raft/messages.ts';
import type { PeerFrame } from '../replica/types.ts';
import type { NetworkCaps } from './caps.ts';
import type { PeerTls } from './peer-tls.ts';

/** Why an acceptor does not take a connection. Sent to the dialer, so append-only. */
export const REFUSAL_CODES = [
  'WRONG_CLUSTER',
  'WRONG_NODE',
  'WRONG_VERSION',
  'INSTANCE_REFUSED',
  'BUSY',
  'WRONG_CERTIFICATE',
] as const;

/**
 * WRONG_CLUSTER: the two have different cluster ids. WRONG_NODE: the acceptor is not whom the dialer wanted. WRONG_VERSION: no version that both speak.
 * INSTANCE_REFUSED: the cluster does not know the dialer, or knows another instance of it (R23). BUSY: too many connections; worth another try. WRONG_CERTIFICATE: the
 * dialer's certificate is for another node than its hello.
 */
export type RefusalCode = (typeof REFUSAL_CODES)[number];

export interface Refusal {
  readonly code: RefusalCode;
  /** For people: what was expected and what came. At most 512 characters are sent. */
  readonly words: string;
}

export type Purpose = 'frames' | 'snapshot';

/** Who dials, whom it wants, and what for: the first thing on every connection. */
export interface Hello {
  /** Versions of frames that the dialer speaks, both included. */
  readonly versionMin: number;
  readonly versionMax: number;
  readonly clusterId: string;
  readonly node: NodeId;
  readonly instance: string;
  readonly targetNode: NodeId;
  /** '' if the dialer does not know it. */
  readonly targetInstance: string;
  readonly purpose: Purpose;
}

/** A member to send to. */
export interface Peer {
  readonly node: NodeId;
  /** HOST:PORT of its Raft port. */
  readonly address: string;
  /** When known, another instance that answers at the address is not spoken to. */
  readonly instance?: string | undefined;
  /** HOST:PORT where somebody says that it is by now; null or none: nobody does. */
  readonly rumour?: string | null;
  /** Clear text, where TLS is optional: it was found to speak nothing else. */
  readonly isClear?: boolean;
}

/** Takes one snapshot in. Calls come one after another, each after the one before it has resolved; after `end` or `abort` there are none. */
export interface SnapshotReceiver {
  /** The next bytes; the receiver may keep them. Nothing more is read from the connection until it resolves. */
  write(chunk: Uint8Array): void | Promise<void>;
  /** All bytes came, length and checksum are right. Resolves when the snapshot is installed, or safe to install; rejects if it cannot be. */
  end(): Promise<void>;
  /** The rest will not come: forget it. Also after `write` or `end` has rejected. */
  abort(): void;
}

/** What the Raft thread gives to the network; each is called in the thread's own turns, never from inside a call of PeerNetwork. */
export interface PeerEvents {
  /** Cluster, target and version of the hello are right already: may this node and instance speak here? */
  admit(hello: Hello): Refusal | null;
  /** A frame of an admitted peer, and the instance of its hello, in the order in which that peer sent them. Its data are views on memory that nobody else writes. */
  onFrame(from: NodeId, frame: PeerFrame, instance: string): void;
  /** The connection to the peer was lost, or could not be made: frames under way may be lost. Once for each loss, not for each try. */
  onUnreachable(node: NodeId): void;
  /** The peer refuses this node. Once for each change of the refusal, not for each try. */
  onRefused(node: NodeId, refusal: Refusal): void;
  /** A peer wants to send a snapshot; `message` is Raft's, of type `snapshot`. Null: not now. */
  beginSnapshot(from: NodeId, message: Message): SnapshotReceiver | null;
}

/** What the network needs of a log; src/telemetry's fits. */
export interface NetworkLog {
  info(message: string, fields?: Readonly<Record<string, unknown>>): void;
  warn(message: string, fields?: Readonly<Record<string, unknown>>): void;
}

export interface PeerNetworkOptions {
  readonly clusterId: string;
  readonly node: NodeId;
  /** 128 random bits in hex (node.json). */
  readonly instance: string;
  /** Port 0: the system chooses. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly events: PeerEvents;
  readonly log: NetworkLog;
  readonly caps?: Partial<NetworkCaps>;
  /** None or null: clear text. */
  readonly tls?: PeerTls | null;
}

/** Since the peer became one. `In` is what came from it, `Out` what was handed to the kernel or waits for it. */
export interface PeerCounters {
  framesIn: number;
  framesOut: number;
  bytesIn: number;
  bytesOut: number;
  /** Frames that `send` did not take. */
  dropped: number;
  /** Connections to it that were established after the first one. */
  reconnects: number;
}

export interface NetworkCounters {
  /** Connections that were closed with a refusal. */
  refused: number;
  /** Connections that were closed for what TLS says of them: clear text, no certificate, a wrong one. */
  untrusted: number;
  /** Connections that were closed because of what came on them. */
  malformed: number;
  /** Connections that were closed because too many had not said hello, or did not say it in time. */
  unspoken: number;
  readonly peers: ReadonlyMap<NodeId, Readonly<PeerCounters>>;
}

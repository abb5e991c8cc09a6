import { assert } from '../base/assert.ts';
import type { Message, NodeId } from '../raft/messages.ts';
import type { PeerFrame } from '../replica/types.ts';
import { Acceptor } from './acceptor.ts';
import { DEFAULT_CAPS, type NetworkCaps } from './caps.ts';
import type { DialContext } from './dialed.ts';
import { FRAME_HEADER_BYTES } from './framing.ts';
import { GreetingCodec } from './hello.ts';
import { OutgoingPeer } from './outgoing-peer.ts';
import { FrameCodec } from './raft-frames.ts';
import { type SnapshotChunks, type SnapshotOutcome, SnapshotSender } from './snapshot-sender.ts';
import type { Hello, NetworkCounters, Peer, PeerCounters, PeerNetworkOptions } from './types.ts';

/**
 * The Raft port of a node: TCP to all other members. Each node dials every other one and sends on the connection that it dialed; an acceptor only answers
 * the hello, and says that it is alive. So each direction fails by itself (docs/adr/0012-cluster.md). Frames of a peer come in the order in which it sent
 * them; any may be lost, none is doubled or changed.
 */
export class PeerNetwork {
  readonly #options: PeerNetworkOptions;
  readonly #context: DialContext;
  readonly #codec = new FrameCodec();
  readonly #acceptor: Acceptor;
  readonly #outgoing = new Map<NodeId, OutgoingPeer>();
  readonly #snapshots = new Map<NodeId, SnapshotSender>();
  readonly #counters = new Map<NodeId, PeerCounters>();
  #isClosed = false;

  constructor(options: PeerNetworkOptions) {
    const { clusterId, node, instance, events } = options;
    const caps: NetworkCaps = { ...DEFAULT_CAPS, ...options.caps };
    assert(node !== '' && instance !== '' && clusterId !== '', 'a peer needs a node, an instance and a cluster');
    assert(caps.silenceMs >= 2 * caps.aliveEveryMs, 'silenceMs must be at least twice aliveEveryMs');
    const greetings = new GreetingCodec();
    this.#options = options;
    this.#context = { clusterId, node, instance, greetings, caps, tls: options.tls ?? null };
    this.#acceptor = new Acceptor(options, {
      caps,
      greetings,
      codec: this.#codec,
      onFrame: (from, frame, bytes) => this.#handleFrame(from, frame, bytes),
      beginSnapshot: (from, message) => events.beginSnapshot(from, message),
    });
  }

  /** As of now; those of a peer end when it is no peer any more. */
  get counters(): NetworkCounters {
    const { refused, untrusted, malformed, unspoken } = this.#acceptor;
    return { refused, untrusted, malformed, unspoken, peers: this.#counters };
  }

  /** Opens the port; resolves with it. Rejects with Node's error (EADDRINUSE, ...). */
  listen(): Promise<number> {
    return this.#acceptor.listen();
  }

  /**
   * Whom to dial from now on: new ones are dialed, gone ones dropped, others kept unless address or instance changed; a changed rumour counts when they are dialed next. This node itself is left out. Accepted
   * connections are judged again: `admit` is called from inside.
   */
  setPeers(peers: readonly Peer[]): void {
    assert(!this.#isClosed, 'the network is closed');
    const others = new Map(peers.filter(({ node }) => node !== this.#options.node).map((peer) => [peer.node, peer]));
    for (const [node, outgoing] of this.#outgoing) {
      const peer = others.get(node);
      if (peer !== undefined && outgoing.isOf(peer)) {
        outgoing.follow(peer);
        continue;
      }
      outgoing.close();
      this.#outgoing.delete(node);
      this.#snapshots.get(node)?.cancel();
    }
    for (const node of this.#counters.keys()) if (!others.has(node)) this.#counters.delete(node);
    for (const [node, peer] of others) {
      if (!this.#outgoing.has(node)) this.#outgoing.set(node, this.#dial(peer));
    }
    this.#acceptor.membersChanged(others.size + 1);
  }

  /** Established, and heard of within `silenceMs`. */
  isConnected(node: NodeId): boolean {
    return this.#outgoing.get(node)?.isOpen === true;
  }

  /**
   * Not for messages of type `snapshot`. False: not connected, or too much unsent; the frame is lost, as Raft expects of a network. All frames of one turn
   * leave in one write.
   */
  send(to: NodeId, frame: PeerFrame): boolean {
    assert(frame.kind !== 'raft' || frame.message.type !== 'snapshot', 'snapshots have a connection of their own');
    const outgoing = this.#outgoing.get(to);
    if (outgoing?.hasRoom !== true) {
      if (outgoing !== undefined) this.#countersOf(to).dropped += 1;
      return false;
    }
    outgoing.write(this.#codec.encode(frame));
    return true;
  }

  /**
   * On a connection of its own, one at a time for each peer. `delivered`: the peer's receiver has said that it is installed. Never rejects unless `chunks`
   * throws; takes the next chunk only when the connection has room.
   */
  async sendSnapshot(to: NodeId, message: Message, chunks: SnapshotChunks): Promise<SnapshotOutcome> {
    assert(message.type === 'snapshot' && message.to === to, 'not a snapshot for this peer');
    const outgoing = this.#outgoing.get(to);
    if (outgoing === undefined || this.#snapshots.has(to)) return 'failed';
    const sender = new SnapshotSender(outgoing.dialed, this.#context, this.#codec);
    this.#snapshots.set(to, sender);
    try {
      const outcome = await sender.send(message, chunks);
      if (outcome === 'failed') {
        this.#options.log.warn('a snapshot did not reach a peer', { peer: to, reason: sender.reason });
      }
      return outcome;
    } finally {
      this.#snapshots.delete(to);
    }
  }

  /** Ends all connections and timers; snapshots under way fail, and receivers are told of it. Resolves when the port is free. No other event is called afterwards. */
  close(): Promise<void> {
    this.#isClosed = true;
    for (const outgoing of this.#outgoing.values()) outgoing.close();
    this.#outgoing.clear();
    for (const sender of this.#snapshots.values()) sender.cancel();
    return this.#acceptor.close();
  }

  #dial(peer: Peer): OutgoingPeer {
    const { events, log } = this.#options;
    return new OutgoingPeer(peer, this.#context, events, log, this.#countersOf(peer.node));
  }

  #handleFrame({ node, instance }: Hello, frame: PeerFrame, bytes: number): void {
    const counters = this.#countersOf(node);
    counters.framesIn += 1;
    counters.bytesIn += bytes + FRAME_HEADER_BYTES;
    this.#options.events.onFrame(node, frame, instance);
  }

  #countersOf(node: NodeId): PeerCounters {
    let counters = this.#counters.get(node);
    if (counters === undefined) {
      counters = { framesIn: 0, framesOut: 0, bytesIn: 0, bytesOut: 0, dropped: 0, reconnects: 0 };
      this.#counters.set(node, counters);
    }
    return counters;
  }
}

import type { ServerDuplexStream } from '@grpc/grpc-js';
import { assert } from '../../base/assert.ts';
import type { Reason } from '../../base/errors.ts';
import { subjectHash } from '../../base/subject.ts';
import { TRACE_CONTEXT_BYTES } from '../../base/trace-context.ts';
import { nodeOfCall } from '../../grpc/node-callers.ts';
import {
  encodeBatch,
  encodeBroadcast,
  encodeInterest,
  encodeProof,
  PEER_VERSION,
  type PeerBatchScan,
  type PeerHello,
  type PeerInterest,
} from '../../grpc/peer-codec.ts';
import { CLEAR_TEXT, type PeerCredentials } from '../../grpc/peer-credentials.ts';
import { makeStatus } from '../../grpc/status.ts';
import type { Log } from '../../telemetry/log.ts';
import type { ShardLink } from '../front/shard-link.ts';
import { PEER_BATCH_HEADER, ToShard } from '../link.ts';
import type { Tracing } from '../tracing/tracing.ts';
import { Demand, type DemandRoutes } from './demand.ts';
import { InterestSet } from './interest-set.ts';
import { OwnInterest } from './own-interest.ts';
import { PeerCall, type PeerCallPort, SILENCE_MS_MAX } from './peer-call.ts';
import { PeerLink, type PeerLinkPort, type PeerTarget } from './peer-link.ts';

/** How often members are looked up, and what is silent is ended, in ms. */
const TICK_MS = 1_000;
/** Challenges of callers under one name that are answered: the last ones. The true node is among them, unless somebody floods it. */
const CHALLENGES_MAX = 4;
/** Between two times that a peer is told everything, in ms. */
const TELL_MS_MIN = 100;
/** How long the interest of a node is kept whose call has ended, in ms: it calls again at once if it lives. */
const INTEREST_KEPT_MS = 5_000;

export interface PeersOptions {
  readonly clusterId: string;
  readonly node: string;
  readonly instance: string;
  /** When this process began, ms since 1970. */
  readonly incarnation: number;
  /** limits.message_bytes */
  readonly messageBytesMax: number;
  /** Members of the cluster as this node knows them, itself among them; null: not known now. */
  readonly members: () => Promise<readonly PeerTarget[] | null>;
  readonly log: Log;
  /** None: clear text. */
  readonly security?: PeerCredentials;
}

/** What it needs of the dispatcher. */
export interface PeerRoutes extends DemandRoutes {
  /** To the subscribers of this node. Null, or what is wrong with it. */
  broadcastHere(request: Buffer): Reason | null;
}

interface Peer {
  readonly link: PeerLink;
  readonly interest: InterestSet;
  /** The one that has proven to be of this node. */
  call: PeerCall | null;
  /** Of whoever has called under its name, newest last. They are answered to the address of the node: only it can do something with them. */
  readonly challenges: string[];
  tellTimer: NodeJS.Timeout | null;
  /** Ms of performance.now(). */
  toldAt: number;
  /** Of the call that was proven last. */
  incarnation: number;
  /** When its call ended, ms of performance.now(). */
  silentSince: number;
}

/**
 * What travels between the main threads of nodes. Broadcasts go to every node, stored batches to those that have subscribers of the subject, so that
 * these need not read the store. Everything is best effort, bounded, and counted where it is dropped: the log tells each node what there is to
 * deliver, and what has not come this way is read. Without `start` (a node alone) it does nothing and costs nothing.
 */
export class Peers implements PeerLinkPort, PeerCallPort {
  readonly own: OwnInterest;
  readonly demand: Demand;
  readonly received: PeerCallPort['received'];
  batchesSent = 0;
  batchesReceived = 0;
  broadcastsSent = 0;
  broadcastsReceived = 0;
  /** Batches and broadcasts that a peer had no room for, or that it was not reached with. */
  unsent = 0;
  /** Batches that nobody here is subscribed to, or that their shard had no room for. */
  batchesIgnored = 0;
  /** Null: nothing is traced. */
  tracing: Tracing | null = null;
  readonly #routes: PeerRoutes;
  readonly #peers = new Map<string, Peer>();
  /** Calls that have not ended, of strangers too. */
  readonly #calls = new Set<PeerCall>();
  #options: PeersOptions | null = null;
  #hello: PeerHello | null = null;
  #timer: NodeJS.Timeout | null = null;
  #isLooking = false;

  constructor(routes: PeerRoutes, received: PeerCallPort['received'], own = new OwnInterest()) {
    this.#routes = routes;
    this.received = received;
    this.own = own;
    this.demand = new Demand(routes);
  }

  /** Before the first client is let in. */
  start(options: PeersOptions): void {
    assert(this.#options === null, 'peers are started once');
    this.#options = options;
    this.#hello = {
      clusterId: options.clusterId,
      nodeId: options.node,
      instanceId: options.instance,
      incarnation: options.incarnation,
      version: PEER_VERSION,
      messageBytesMax: options.messageBytesMax,
      challenge: '',
    };
    this.own.activate(() => setImmediate(this.#announce));
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    void this.#lookUp();
  }

  /** An authority was taken away by which nodes that are called may have shown themselves. Calls from others end where their connections do. */
  dialAnew(why: string): void {
    for (const { link } of this.#peers.values()) link.dialAnew(why);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#options = null;
    for (const peer of this.#peers.values()) stop(peer);
    for (const call of this.#calls) call.end('SHUTTING_DOWN');
  }

  /** Nodes that are reached. */
  get open(): number {
    let open = 0;
    for (const { link } of this.#peers.values()) if (link.isOpen) open += 1;
    return open;
  }

  /** Nodes that have called, and proven to be who they are. */
  get heard(): number {
    let heard = 0;
    for (const { call } of this.#peers.values()) if (call !== null) heard += 1;
    return heard;
  }

  /** Bytes that wait for peers. */
  get unsentBytes(): number {
    let bytes = 0;
    for (const { link } of this.#peers.values()) bytes += link.unsentBytes;
    return bytes;
  }

  get hello(): PeerHello {
    assert(this.#hello !== null, 'a node alone has no peers');
    return this.#hello;
  }

  get log(): Log {
    assert(this.#options !== null, 'a node alone has no peers');
    return this.#options.log;
  }

  get security(): PeerCredentials {
    return this.#options?.security ?? CLEAR_TEXT;
  }

  // --- to the others ---

  /** A broadcast of a client of this node. */
  broadcastToAll(request: Buffer): void {
    if (this.#peers.size === 0) return;
    const part = encodeBroadcast(request);
    for (const { link } of this.#peers.values()) {
      if (link.trySend(part)) this.broadcastsSent += 1;
      else this.unsent += 1;
    }
  }

  /** A ToMain.PEER_BATCH record: a batch of this node that the log has closed as stored. */
  stored({ buffer, view }: { readonly buffer: Buffer; readonly view: DataView }, offset: number, length: number): void {
    const subjectStart = offset + PEER_BATCH_HEADER;
    const batchStart = subjectStart + view.getUint32(offset + 24, true);
    const traceBytes = view.getUint32(offset + 28, true);
    const subject = buffer.toString('latin1', subjectStart, batchStart);
    // Encoded once for all, which also copies it off the ring.
    let part: Buffer | null = null;
    for (const { link, interest } of this.#peers.values()) {
      if (!interest.wants(subject)) continue;
      if (link.isOpen) {
        part ??= encodeBatch(
          {
            base: view.getFloat64(offset, true),
            count: view.getUint32(offset + 16, true),
            publishedAt: view.getFloat64(offset + 8, true),
          },
          buffer,
          subjectStart,
          batchStart,
          offset + length - traceBytes,
          traceBytes,
        );
        if (link.trySend(part)) {
          this.batchesSent += 1;
          continue;
        }
      }
      this.unsent += 1;
    }
  }

  opened({ target }: PeerLink): void {
    const peer = this.#peers.get(target.node);
    if (peer !== undefined) this.#tell(peer);
  }

  /** Nothing is taken of this node there before its proof. */
  #tell({ link, challenges }: Peer): void {
    for (const challenge of challenges) link.send(encodeProof(challenge));
    for (const interest of this.own.whole()) link.send(encodeInterest(interest));
  }

  #tellSoon(peer: Peer): void {
    if (peer.tellTimer !== null) return;
    const wait = Math.max(0, peer.toldAt + TELL_MS_MIN - performance.now());
    peer.tellTimer = setTimeout(() => {
      peer.tellTimer = null;
      peer.toldAt = performance.now();
      this.#tell(peer);
    }, wait);
  }

  readonly #announce = (): void => {
    const parts = this.own.takeChanges().map(encodeInterest);
    for (const { link } of this.#peers.values()) for (const part of parts) link.send(part);
  };

  // --- from the others ---

  /** A call of broker.v1.Peer. */
  accept(call: ServerDuplexStream<Buffer, Buffer>): void {
    if (this.#options === null) call.emit('error', makeStatus('SHUTTING_DOWN', ''));
    else this.#calls.add(new PeerCall(call, this, nodeOfCall(call)));
  }

  greet(hello: PeerHello): string | null {
    if (hello.clusterId !== this.hello.clusterId) return `it is of cluster ${hello.clusterId}`;
    const peer = this.#peers.get(hello.nodeId);
    if (peer === undefined) return `node ${hello.nodeId} is no other member that is known here`;
    if (peer.link.target.instance !== hello.instanceId) return `the member is another instance of ${hello.nodeId}`;
    if (hello.version < 1) return 'it names no version';
    const { challenges } = peer;
    if (!challenges.includes(hello.challenge)) {
      challenges.push(hello.challenge);
      if (challenges.length > CHALLENGES_MAX) challenges.shift();
      this.#tellSoon(peer);
    }
    return null;
  }

  prove(call: PeerCall, challenge: string): boolean {
    const peer = this.#peers.get(call.node);
    if (peer === undefined || peer.link.challenge !== challenge) return false;
    const former = peer.call;
    peer.call = call;
    former?.end('PEER_REFUSED', 'there is a newer call of the same node');
    if (peer.incarnation !== call.incarnation) peer.interest.clear();
    peer.incarnation = call.incarnation;
    return true;
  }

  interest(node: string, interest: PeerInterest): void {
    this.#peers.get(node)?.interest.apply(interest);
  }

  batch(
    message: Buffer,
    { subjectStart, subjectEnd, base, count, publishedAt, batchStart, batchEnd, traceStart, traceEnd }: PeerBatchScan,
    node: string,
  ): void {
    this.batchesReceived += 1;
    const link = this.own.wants(message.toString('latin1', subjectStart, subjectEnd))
      ? this.#routes.linkOf(subjectHash(message, subjectStart, subjectEnd))
      : null;
    const length = PEER_BATCH_HEADER + (subjectEnd - subjectStart) + (batchEnd - batchStart);
    const at = link === null ? -1 : claimSpare(link, length);
    if (link === null || at < 0) {
      this.batchesIgnored += 1;
      return;
    }
    const { view, buffer } = link.payload;
    view.setFloat64(at, base, true);
    view.setFloat64(at + 8, publishedAt, true);
    view.setUint32(at + 16, count, true);
    view.setUint32(at + 20, subjectHash(message, subjectStart, subjectEnd), true);
    view.setUint32(at + 24, subjectEnd - subjectStart, true);
    const bytesAt = at + PEER_BATCH_HEADER + message.copy(buffer, at + PEER_BATCH_HEADER, subjectStart, subjectEnd);
    message.copy(buffer, bytesAt, batchStart, batchEnd);
    link.payload.commit();
    this.#routes.touched(link);
    if (traceEnd - traceStart !== TRACE_CONTEXT_BYTES || this.tracing === null) return;
    const subject = Buffer.from(message.subarray(subjectStart, subjectEnd));
    const context = message.subarray(traceStart, traceEnd);
    this.tracing.expectDelivery(subject, Buffer.from(context), base, count, [], node);
  }

  /** Not passed on: its sender tells every node itself. */
  broadcast(request: Buffer): void {
    this.broadcastsReceived += 1;
    this.#routes.broadcastHere(request);
  }

  closed(call: PeerCall): void {
    this.#calls.delete(call);
    const peer = this.#peers.get(call.node);
    if (peer?.call !== call) return;
    peer.call = null;
    peer.silentSince = performance.now();
  }

  // --- members ---

  #tick(): void {
    const now = performance.now();
    this.own.sweep();
    for (const call of this.#calls) if (now - call.heardAt >= SILENCE_MS_MAX) call.end('REQUEST_STALLED');
    for (const { link, interest, call, silentSince } of this.#peers.values()) {
      link.tick(now);
      if (call === null && now - silentSince >= INTEREST_KEPT_MS) interest.clear();
    }
    void this.#lookUp();
  }

  async #lookUp(): Promise<void> {
    if (this.#isLooking || this.#options === null) return;
    this.#isLooking = true;
    const members = await this.#options.members();
    this.#isLooking = false;
    if (members !== null && this.#options !== null) this.#meet(members, this.#options.node);
  }

  #meet(members: readonly PeerTarget[], self: string): void {
    const others = new Map(members.filter(({ node }) => node !== self).map((member) => [member.node, member]));
    for (const [node, peer] of this.#peers) {
      const member = others.get(node);
      const { instance, grpc } = peer.link.target;
      if (member?.instance === instance && member.grpc === grpc) others.delete(node);
      else this.#leave(node, peer);
    }
    for (const [node, target] of others) {
      const link = new PeerLink(target, this);
      const interest = new InterestSet(this.demand);
      this.#peers.set(node, {
        link,
        interest,
        call: null,
        challenges: [],
        tellTimer: null,
        toldAt: Number.NEGATIVE_INFINITY,
        incarnation: 0,
        silentSince: performance.now(),
      });
      link.start();
    }
  }

  /** No member any more, or another instance, or elsewhere: then it is met anew. */
  #leave(node: string, peer: Peer): void {
    this.#peers.delete(node);
    stop(peer);
    for (const call of this.#calls) {
      if (call.node === node) call.end('PEER_REFUSED', 'it is no member any more, or has another address');
    }
    peer.interest.clear();
  }
}

function stop({ link, tellTimer }: Peer): void {
  link.stop();
  if (tellTimer !== null) clearTimeout(tellTimer);
}

/** Batches of peers take no more than half of a ring: publishes are refused when it is full. */
function claimSpare({ payload }: ShardLink, length: number): number {
  if (length > payload.recordBytesMax || payload.freeBytes() - length < payload.capacityBytes / 2) return -1;
  return payload.claim(ToShard.PEER_BATCH, length);
}

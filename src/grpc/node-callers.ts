import type { Http2Session, IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { Anonymous, type Caller } from '../access/caller.ts';
import type { Reason } from '../base/errors.ts';
import { peerOf } from '../base/peer-address.ts';
import { TENANT_DEFAULT } from '../base/subject-space.ts';
import type { TlsNews } from '../tls/handshake-watch.ts';
import { nodeOf } from '../tls/node-certificate.ts';
import type { DoorNotes } from './access/access-callers.ts';
import type { CallerSource } from './callers.ts';

/** Metadata of a call that a node has passed on to the leader, so that it is never passed on twice. */
export const FORWARDED = 'broker-forwarded';

/** What nodes call and nobody else. */
const OF_NODES: ReadonlySet<string> = new Set(['/broker.v1.Peer/Exchange', '/broker.v1.Cluster/Join']);

/** What a node may call for itself: one whose log is damaged has itself taken out of the cluster. Of others only operators ask that. */
const FOR_NODES: ReadonlySet<string> = new Set(['/broker.v1.Cluster/Members', '/broker.v1.Cluster/Remove']);

/** Writes down who is refused. */
export type NodeNotes = Pick<DoorNotes, 'refused'>;

export interface NodeCallersOptions {
  /** Says who everybody else is. */
  readonly others: CallerSource;
  /** Nobody else has to say who they are: then a node may what everybody may, and is somebody only where nobody else may call. */
  readonly isOpen: boolean;
  /** Name of the cluster, as certificates have it. */
  readonly cluster: string;
  /** Whoever shows no certificate of a node is none; else nodes are believed what they say, as long as there is no TLS between all of them. */
  readonly isRequired: boolean;
  /** Takes what strangers can cause to be said. */
  readonly news: TlsNews;
  /** None in tests that need none. */
  readonly notes?: NodeNotes | null;
}

interface KnownNode {
  readonly node: string;
  readonly caller: Caller;
}

const NODE = Symbol('node');
type NodeStream = ServerHttp2Stream & { [NODE]?: string };

/**
 * Knows other nodes by their certificates. What they call as nodes needs no other permission. What they pass on does: that a node says so proves nothing of
 * who has asked it, so that the token of whoever has comes along.
 */
export class NodeCallers implements CallerSource {
  readonly #options: NodeCallersOptions;
  /** Whoever says that it is a node, where that is believed. */
  readonly #believed = new Anonymous(TENANT_DEFAULT);
  /** By connection; null if it has no certificate of a node. */
  readonly #known = new WeakMap<Http2Session, KnownNode | null>();

  constructor(options: NodeCallersOptions) {
    this.#options = options;
  }

  of(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): ReturnType<CallerSource['of']> {
    const path = headers[':path'] as string;
    const isOfNodes = OF_NODES.has(path);
    const { isOpen, others } = this.#options;
    // Who shows a token is who it says, whatever certificate the way to here has.
    const isForNode = FOR_NODES.has(path) && !isOpen && headers.authorization === undefined;
    if (!isOfNodes && !isForNode) return others.of(stream, headers);
    const known = this.#nodeOf(stream);
    if (known !== null) {
      (stream as NodeStream)[NODE] = known.node;
      return known.caller;
    }
    if (!isOfNodes) return others.of(stream, headers);
    if (!this.#options.isRequired) return this.#believed;
    const reason = 'NODE_UNPROVEN' satisfies Reason;
    this.#options.notes?.refused({ reason, name: null, detail: this.#refused(stream, path), stream, path });
    return reason;
  }

  /** Of a node nothing changes but its certificate, by which its connection ends. */
  lapsed(stream: ServerHttp2Stream, caller: Caller, path: string): Reason | null {
    return this.#options.others.lapsed?.(stream, caller, path) ?? null;
  }

  refused(stream: ServerHttp2Stream, caller: Caller, path: string, reason: Reason): void {
    this.#options.others.refused?.(stream, caller, path, reason);
  }

  /** In words, why. */
  #refused({ session }: ServerHttp2Stream, method: string): string {
    const socket = session?.socket as TLSSocket | undefined;
    const certificate = socket?.encrypted === true && socket.authorized ? socket.getPeerX509Certificate() : undefined;
    const found = nodeOf(certificate, this.#options.cluster);
    const reason = 'distrust' in found ? found.words : '';
    const fields = { peer: peerOf(socket), method, reason };
    this.#options.news.warn('node_unproven', 'refused a call that only nodes of this cluster make', fields);
    return reason;
  }

  #nodeOf({ session }: ServerHttp2Stream): KnownNode | null {
    if (session === undefined) return null;
    let known = this.#known.get(session);
    if (known === undefined) {
      const node = nodeAt(session.socket as TLSSocket, this.#options.cluster);
      known = node === null ? null : { node, caller: new Anonymous(TENANT_DEFAULT, `node ${node}`) };
      this.#known.set(session, known);
    }
    return known;
  }
}

function nodeAt(socket: TLSSocket, cluster: string): string | null {
  if (socket.encrypted !== true || !socket.authorized) return null;
  const found = nodeOf(socket.getPeerX509Certificate(), cluster);
  return 'distrust' in found ? null : found.node;
}

/** The node that makes a call, by its certificate; null if it showed none, or calls what everybody may call. */
export function nodeOfCall(call: object): string | null {
  const { stream } = (call as { readonly call?: { readonly stream?: NodeStream } }).call ?? {};
  return stream?.[NODE] ?? null;
}

import { defined } from '../../src/base/assert.ts';
import { Prng } from '../../src/base/prng.ts';
import { lanProfile, MemberList, type Profile } from '../../src/gossip/members/member-list.ts';
import type { Address, PacketMessage } from '../../src/gossip/types.ts';
import { addressOf, FakeDelegate, FakePort, VERSIONS } from './gossip-members-rig.ts';

/** What the socket of a node that does not run keeps: about 200 KB of small packets. */
const SOCKET_PACKETS = 500;

interface Node {
  readonly name: string;
  readonly list: MemberList;
  readonly port: FakePort;
  readonly delegate: FakeDelegate;
  readonly socket: (() => void)[];
  blockedUntil: number;
  isDown: boolean;
}

interface Event {
  readonly at: number;
  readonly to: Node;
  readonly run: () => void;
}

export interface NetOptions {
  readonly seed: number;
  readonly profile?: Partial<Profile>;
  /** Of a thousand packets, how many are lost. */
  readonly lossPerMille?: number;
  /** After a pause, what comes first: timers (as in Node) or packets. */
  readonly packetsFirst?: boolean;
}

/** Member lists on one virtual clock; packets take 1 to 5 ms. */
export class MemberNet {
  now = 0;
  readonly nodes = new Map<string, Node>();
  readonly #random: Prng;
  readonly #options: NetOptions;
  #events: Event[] = [];

  constructor(names: readonly string[], options: NetOptions) {
    this.#options = options;
    this.#random = new Prng(options.seed);
    for (const name of names) this.#add(name);
    const [first] = names;
    for (const name of names.slice(1)) this.node(name).list.join([addressOf(first as string)], 0);
    this.#exchange();
  }

  node(name: string): Node {
    return defined(this.nodes.get(name), 'no such node');
  }

  /** It does not run until then; packets wait. */
  block(name: string, until: number): void {
    this.node(name).blockedUntil = until;
  }

  run(until: number): void {
    for (;;) {
      let due = this.#events[0]?.at ?? Number.POSITIVE_INFINITY;
      for (const node of this.nodes.values()) due = Math.min(due, this.#dueAt(node));
      if (due > until) break;
      this.now = Math.max(this.now, due);
      for (const node of this.nodes.values()) if (this.#dueAt(node) <= this.now) this.#step(node);
      while ((this.#events[0]?.at ?? Number.POSITIVE_INFINITY) <= this.now)
        this.#deliver(this.#events.shift() as Event);
      this.#exchange();
    }
    this.now = until;
  }

  #dueAt(node: Node): number {
    if (node.isDown) return Number.POSITIVE_INFINITY;
    return Math.max(node.list.nextAt, node.blockedUntil);
  }

  #step(node: Node): void {
    const waiting = node.socket.splice(0);
    if (this.#options.packetsFirst === true) for (const packet of waiting) packet();
    node.list.tick(this.now);
    if (this.#options.packetsFirst !== true) for (const packet of waiting) packet();
  }

  #deliver({ to, run }: Event): void {
    if (to.isDown) return;
    if (to.blockedUntil <= this.now) run();
    else if (to.socket.length < SOCKET_PACKETS) to.socket.push(run);
  }

  #add(name: string): void {
    const port = new FakePort(this.#random.nextUint32());
    const delegate = new FakeDelegate();
    const list = new MemberList(
      {
        node: name,
        address: addressOf(name),
        versions: VERSIONS,
        profile: { ...lanProfile(), ...this.#options.profile },
        incarnation: 1,
        overheadBytes: 0,
      },
      port,
      delegate,
      0,
    );
    port.onPacket = ({ to, messages }) => this.#send(name, to, messages);
    this.nodes.set(name, { name, list, port, delegate, socket: [], blockedUntil: 0, isDown: false });
  }

  #at(address: Address): Node | undefined {
    return [...this.nodes.values()].find(({ name }) => addressOf(name).host === address.host);
  }

  #send(from: string, to: Address, messages: readonly PacketMessage[]): void {
    const node = this.#at(to);
    if (node === undefined || this.#random.nextBelow(1_000) < (this.#options.lossPerMille ?? 0)) return;
    this.#schedule(node, () => {
      for (const message of messages) node.list.onMessage(addressOf(from), message, this.now);
    });
  }

  #schedule(to: Node, run: () => void): void {
    const at = this.now + 1 + this.#random.nextBelow(5);
    const place = this.#events.findIndex((event) => event.at > at);
    this.#events.splice(place < 0 ? this.#events.length : place, 0, { at, to, run });
  }

  /** Connections: nothing is lost, a node that is down does not answer, one that does not run answers later. */
  #exchange(): void {
    for (const node of this.nodes.values()) {
      for (const { token, to, state } of node.port.pushPulls.splice(0)) {
        const peer = this.#at(to);
        if (peer === undefined || peer.isDown || state === null) {
          this.#schedule(node, () => node.list.pushPullDone(token, null, this.now));
          continue;
        }
        this.#schedule(peer, () => {
          const answer = peer.list.onPushPull(state, this.now);
          this.#schedule(node, () =>
            node.list.pushPullDone(token, typeof answer === 'string' ? null : answer, this.now),
          );
        });
      }
      for (const { token, to } of node.port.streamPings.splice(0)) {
        const peer = this.#at(to);
        if (peer === undefined || peer.isDown) continue;
        this.#schedule(peer, () => this.#schedule(node, () => node.list.streamPingDone(token, true, this.now)));
      }
    }
  }
}

import { formatEndpoint } from '../../base/endpoint.ts';
import type { MemberList, Profile } from '../../gossip/members/member-list.ts';
import type { Serf } from '../../gossip/serf/serf.ts';
import type { QueryEvent, SerfEvent, UserEvent } from '../../gossip/serf/types.ts';
import type { Address, MemberPort, PacketMessage, PushPull, StreamMessage } from '../../gossip/types.ts';
import { addressKey, normalHost } from '../../net/gossip/hosts.ts';
import type { RandomBytes } from '../../net/gossip/random.ts';
import type { GossipTransport, TransportHandler } from '../../net/gossip/transport.ts';
import { encodeMessage } from '../../net/gossip/wire/messages.ts';
import { LogLimit } from '../../net/log-limit.ts';
import type { Log } from '../../telemetry/log.ts';
import type { MovedAddress } from './moved-address.ts';
import type { RejoinFile } from './rejoin-file.ts';
import { Seeds } from './seeds.ts';
import { TickTimer } from './tick-timer.ts';

/** memberlist's protocol from which on a node understands checksums of packets. */
const CRC_PROTOCOL = 5;
/** What waits to be told to the owner; the oldest go. */
const TOLD_MAX = 1_024;
/**
 * What is new is told no sooner than so many times what telling it took last: with thousands of members that takes milliseconds, and a flood of made up members
 * has something new in every turn of the thread that serves clients too. At most so late, in ms.
 */
const TELL_SHARE = 10;
const TELL_LATE_MS_MAX = 1_000;
/** Who is told more than by gossip that this node has moved. */
const MET_AT_ONCE_MAX = 32;
const EMPTY = new Uint8Array(0);

export interface RunOptions {
  readonly profile: Profile;
  readonly transport: GossipTransport;
  readonly random: RandomBytes;
  /** Packets are encrypted, so they need no checksum. */
  readonly isEncrypted: boolean;
  /** Null: nothing is kept. */
  readonly rejoin: RejoinFile | null;
  /** Null: the node is where it was before, or was not before. */
  readonly moved: MovedAddress | null;
  readonly log: Log;
  /** Each at most once a turn, never inside a call of the rules. */
  readonly onChange: () => void;
  readonly onTold: (event: UserEvent | QueryEvent) => void;
  /** Another node has this node's name, and the cluster keeps to that one. */
  readonly onNameLost: () => void;
}

/** memberlist's and Serf's rules at work: what the sockets bring goes to them, what they ask for is done, and the timer wakes them. */
export class GossipRun implements MemberPort, TransportHandler {
  readonly #options: RunOptions;
  readonly #log: LogLimit;
  readonly #timer: TickTimer;
  #list: MemberList | null = null;
  #serf: Serf | null = null;
  #seeds: Seeds | null = null;
  #told: (UserEvent | QueryEvent)[] = [];
  #hasChanged = true;
  /** Not before that time, by `performance.now()`. */
  #tellAt = 0;
  #tellLater: NodeJS.Timeout | null = null;
  #suspects = '';
  #after: NodeJS.Immediate | null = null;
  #onLeft: () => void = () => undefined;
  #isStopped = false;

  constructor(options: RunOptions) {
    this.#options = options;
    this.#log = new LogLimit(options.log);
    this.#timer = new TickTimer({
      nextAt: () => Math.min(this.list.nextAt, this.serf.nextAt),
      tick: (now) => this.#tick(now),
      packetsIn: () => options.transport.packetsIn,
    });
  }

  /** The rules, which know this as their port already; from here on they run. */
  begin(list: MemberList, serf: Serf): void {
    this.#list = list;
    this.#serf = serf;
    this.#seeds = new Seeds({
      join: (addresses) => this.#join(addresses),
      joinsDone: () => list.counters.joinsDone,
      joinsPending: () => list.joinsPending,
      isAlone: () => list.aliveCount <= 1,
      isMet: (address) => {
        const key = addressKey(address);
        const isThere = ({ host, port }: Address): boolean => addressKey({ host: normalHost(host), port }) === key;
        return list.members.some((one) => one.state === 'alive' && isThere(one.address));
      },
      random: (below) => this.random(below),
      own: list.self.address,
      log: this.#options.log,
    });
    this.touch();
  }

  get list(): MemberList {
    if (this.#list === null) throw new Error('gossip: the rules come first');
    return this.#list;
  }

  get serf(): Serf {
    if (this.#serf === null) throw new Error('gossip: the rules come first');
    return this.#serf;
  }

  get seeds(): Seeds {
    if (this.#seeds === null) throw new Error('gossip: the rules come first');
    return this.#seeds;
  }

  get transport(): GossipTransport {
    return this.#options.transport;
  }

  /** After each call of the rules: what it changed is told, and the timer set anew, at the end of the turn. */
  touch(): void {
    if (this.#after !== null || this.#isStopped) return;
    this.#after = setImmediate(() => this.#settle());
  }

  /** Resolves when the others have been told that this node leaves, or after `withinMs`. */
  async leave(withinMs: number): Promise<void> {
    this.seeds.stop();
    const left = new Promise<void>((resolve) => {
      this.#onLeft = resolve;
    });
    this.serf.leave(performance.now());
    this.touch();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, withinMs);
    });
    await Promise.race([left, late]);
    clearTimeout(timer);
  }

  /** Nothing of the rules runs any more; the sockets are the caller's to close. */
  stop(): void {
    this.#isStopped = true;
    this.#timer.stop();
    this.#seeds?.stop();
    this.#options.moved?.stop();
    if (this.#after !== null) clearImmediate(this.#after);
    this.#after = null;
    if (this.#tellLater !== null) clearTimeout(this.#tellLater);
    this.#tellLater = null;
  }

  // What memberlist's rules ask for.

  send(to: Address, node: string, messages: readonly Uint8Array[]): void {
    const crc = !this.#options.isEncrypted && (this.#list?.get(node)?.versions[1] ?? 0) >= CRC_PROTOCOL;
    this.#options.transport.send(to, messages, crc);
  }

  encode(message: PacketMessage): Uint8Array {
    return encodeMessage(message);
  }

  random(below: number): number {
    return this.#options.random.below(below);
  }

  pushPull(token: number, to: Address, node: string, state: PushPull): void {
    const { transport, profile } = this.#options;
    transport.exchange(to, { kind: 'pushPull', state }, profile.streamTimeoutMs).then(
      (answer) => this.#exchanged(token, to, node, answer),
      (error: Error) => {
        this.#options.log.debug('an exchange with another node by gossip failed', {
          peer: node,
          ...to,
          reason: error.message,
        });
        this.#exchanged(token, to, node, null);
      },
    );
  }

  streamPing(token: number, to: Address, node: string, seq: number): void {
    const { transport, profile } = this.#options;
    const { address, node: own } = this.list.self;
    const done = (isAcked: boolean): void => {
      if (this.#isStopped) return;
      this.list.streamPingDone(token, isAcked, performance.now());
      this.touch();
    };
    transport.exchange(to, { kind: 'ping', seq, node, source: { address, node: own } }, profile.probeIntervalMs).then(
      (answer) => done(answer.kind === 'ack' && answer.seq === seq),
      () => done(false),
    );
  }

  // What the sockets bring.

  onMessages(messages: readonly PacketMessage[], from: Address): void {
    if (this.#isStopped) return;
    const now = performance.now();
    for (const message of messages) this.list.onMessage(from, message, now);
    this.touch();
  }

  onStream(message: StreamMessage, from: Address): StreamMessage | null {
    if (this.#isStopped) return null;
    const now = performance.now();
    this.touch();
    switch (message.kind) {
      case 'pushPull': {
        const answer = this.list.onPushPull(message.state, now);
        if (typeof answer !== 'string') return { kind: 'pushPull', state: answer };
        this.#log.warn('refused', 'refused the state of another node by gossip', { ...from, reason: answer });
        return { kind: 'error', message: answer };
      }
      case 'ping':
        return this.list.onStreamPing(message.node) ? { kind: 'ack', seq: message.seq, payload: EMPTY } : null;
      case 'user':
        this.list.onMessage(from, message, now);
        return null;
      case 'ack':
      case 'error':
        return null;
    }
  }

  // What Serf's rules tell.

  onEvent(event: SerfEvent): void {
    this.#options.rejoin?.onEvent(event);
    switch (event.kind) {
      case 'user':
      case 'query':
        if (this.#told.length >= TOLD_MAX) this.#told.shift();
        this.#told.push(event);
        break;
      case 'nameConflict':
        this.#onNameConflict(event.known.node, event.known.address, event.other.address);
        break;
      case 'nameLost':
        // Not upstream's: there nobody answering is a defeat, and one forged packet would silence a node that is alone.
        if (event.responses === 0)
          this.#log.warn('vote', 'nobody says whose the name of this node is: it keeps it', {});
        else setImmediate(() => this.#isStopped || this.#options.onNameLost());
        break;
      case 'left':
        this.#onLeft();
        break;
      default:
        this.#hasChanged = true;
    }
    this.touch();
  }

  /** Takes leave of these at the address that this node had before, and is there at the new one. */
  farewell(targets: readonly Address[]): void {
    this.#options.moved?.farewell(targets, () => {
      this.list.updateMeta(performance.now());
      this.meet(targets);
    });
  }

  /** Exchanges everything with each of these: gossip reaches everybody only most likely, and who misses where this node is now waits for half a minute. */
  meet(targets: readonly Address[]): void {
    this.#join(targets.slice(0, MET_AT_ONCE_MAX));
  }

  #onNameConflict(node: string, known: Address, other: Address): void {
    const isOwn = node === this.#list?.self.node;
    if (isOwn && this.#options.moved?.isOld(other) === true) {
      const { members } = this.list;
      setImmediate(() => {
        if (!this.#isStopped) this.farewell(members.filter((one) => one.node !== node).map(({ address }) => address));
      });
      return;
    }
    this.#log.warn('conflict', 'two nodes have one name: give one of them another --node-id', {
      peer: node,
      address: formatEndpoint(known),
      other: formatEndpoint(other),
    });
  }

  #join(addresses: readonly Address[]): void {
    this.serf.join(addresses, { ignoresOldEvents: true }, performance.now());
    this.touch();
  }

  #exchanged(token: number, to: Address, node: string, answer: StreamMessage | null): void {
    if (this.#isStopped) return;
    if (answer !== null && answer.kind !== 'pushPull') {
      const reason = answer.kind === 'error' ? answer.message : `it answered with ${answer.kind}`;
      this.#log.warn('answer', 'another node refused to exchange its state by gossip', { peer: node, ...to, reason });
    }
    this.list.pushPullDone(token, answer?.kind === 'pushPull' ? answer.state : null, performance.now());
    this.seeds.settle();
    this.touch();
  }

  #tick(now: number): void {
    this.list.tick(now);
    this.serf.tick(now);
    const suspects = this.list.members.filter(({ state }) => state === 'suspect').map(({ node }) => node);
    const words = suspects.join('\n');
    if (words === this.#suspects) return;
    this.#suspects = words;
    this.#hasChanged = true;
    this.touch();
  }

  #settle(): void {
    this.#after = null;
    const { rejoin, onTold } = this.#options;
    const told = this.#told;
    this.#told = [];
    rejoin?.onTimes(this.serf.times);
    const { address, incarnation } = this.list.self;
    rejoin?.noteSelf({ address, incarnation });
    if (this.#hasChanged && this.#tellLater === null) this.#maybeTellChange();
    for (const event of told) onTold(event);
    this.#timer.arm();
  }

  #maybeTellChange(): void {
    const { transport, onChange } = this.#options;
    const now = performance.now();
    if (now < this.#tellAt) {
      this.#tellLater = setTimeout(() => {
        this.#tellLater = null;
        this.#maybeTellChange();
      }, this.#tellAt - now);
      return;
    }
    this.#hasChanged = false;
    transport.setMembers(this.list.members.map((member) => member.address));
    onChange();
    const end = performance.now();
    this.#tellAt = end + Math.min(TELL_LATE_MS_MAX, TELL_SHARE * (end - now));
  }
}

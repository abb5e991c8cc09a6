import { lanProfile, MemberList } from '../../src/gossip/members/member-list.ts';
import type {
  Address,
  AliveMessage,
  Member,
  MemberDelegate,
  MemberPort,
  NodeState,
  PacketMessage,
  PushPull,
  Versions,
} from '../../src/gossip/types.ts';
import { decode, encode } from './gossip-codec.ts';
import { type Endpoint, type GossipWorld, keyOf } from './gossip-world.ts';
import { SafetyViolation } from './raft-checkers.ts';

/** What the checkers hear of a node. */
export interface NodeWatcher {
  /** It made `message` to send it. */
  onMade(node: GossipNode, message: PacketMessage): void;
  onJoin(node: GossipNode, member: Member): void;
  onLeave(node: GossipNode, member: Member): void;
  onUpdate(node: GossipNode, member: Member): void;
}

type StreamRequest =
  | { readonly kind: 'pushPull'; readonly state: PushPull }
  | { readonly kind: 'ping'; readonly node: string; readonly seq: number };

interface Parcel {
  readonly messages: readonly Uint8Array[];
  readonly from: Address;
  readonly bytes: number;
}

interface Call {
  readonly request: StreamRequest;
  readonly from: Address;
  readonly answer: (reply: unknown) => void;
}

/** Linux counts about this much for a small packet, and gives a socket 208 KiB. */
const SOCKET_BYTES = 212_992;
const PACKET_OVERHEAD_BYTES = 768;
/** Connections that the kernel takes before the process does. */
const BACKLOG_MAX = 128;
/** Of one moment. */
const TICKS_MAX = 200;
/** How often failed members are tried again, and seeds while nobody is known: as Serf does (serf/config.go ReconnectInterval). */
export const RECONNECT_MS = 30_000;
const SEED_RETRY_MS = 5_000;
/** How often a node that knows somebody asks a seed that it has not met: src/workers/gossip/seeds.ts. */
const STRANGER_MS = 10_000;

/** Those of memberlist, and of Serf above it. */
const VERSIONS: Versions = [1, 5, 2, 2, 5, 4];
/** As production runs them: src/workers/gossip. */
const PROFILE = { ...lanProfile(), deadNodeReclaimMs: lanProfile().probeIntervalMs };

export interface NodeOptions {
  readonly name: string;
  readonly address: Address;
  readonly seeds: () => readonly Address[];
  /** Its clock runs this much faster: 1 is right. */
  readonly clockRate: number;
}

/** A machine with one process, which holds the production rules. */
export class GossipNode implements Endpoint {
  readonly name: string;
  readonly #world: GossipWorld;
  readonly #watcher: NodeWatcher;
  readonly #options: NodeOptions;
  #address: Address;
  #rules: MemberList | null = null;
  #meta: Uint8Array = new Uint8Array([1]);
  /** Counts starts; what was planned in an earlier life does not happen. */
  life = 0;
  #timerAt = Number.POSITIVE_INFINITY;
  #tickedAt = 0;
  #ticks = 0;
  #stoppedUntil = 0;
  #socket: Parcel[] = [];
  #socketBytes = 0;
  #backlog: Call[] = [];
  #failed = new Map<string, Address>();
  /** Since when it runs, neither stopped nor about to leave; Infinity while it does not. */
  wellSince = Number.POSITIVE_INFINITY;
  downSince = 0;
  /** When its address changed: it takes a while until others listen to it there. */
  movedAt = Number.NEGATIVE_INFINITY;
  /** When its tags changed. */
  changedAt = 0;
  hasLeft = false;
  droppedAtSocket = 0;
  /** All that it was stopped for, in all its lives. */
  stopMs = 0;
  socketPacketsMax = 0;

  constructor(world: GossipWorld, watcher: NodeWatcher, options: NodeOptions) {
    this.#world = world;
    this.#watcher = watcher;
    this.#options = options;
    this.name = options.name;
    this.#address = options.address;
    world.plug(this.#address, this);
  }

  get address(): Address {
    return this.#address;
  }

  get meta(): Uint8Array {
    return this.#meta;
  }

  get isUp(): boolean {
    return this.#rules !== null;
  }

  get isStopped(): boolean {
    return this.#stoppedUntil > this.#world.now;
  }

  get isListening(): boolean {
    return this.isUp;
  }

  /** Null while it is down. */
  get rules(): MemberList | null {
    return this.#rules;
  }

  members(): readonly Member[] {
    return this.#rules?.members ?? [];
  }

  start(address: Address = this.#address): void {
    if (keyOf(address) !== keyOf(this.#address)) {
      this.#world.unplug(this.#address);
      this.#address = address;
      this.movedAt = this.#world.now;
      this.#world.plug(address, this);
    }
    this.life += 1;
    this.hasLeft = false;
    this.#failed.clear();
    this.#timerAt = Number.POSITIVE_INFINITY;
    this.#rules = new MemberList(
      { node: this.name, address, versions: VERSIONS, profile: PROFILE, incarnation: 1, overheadBytes: 0 },
      this.#port(this.life),
      this.#delegate(),
      this.clock(),
    );
    this.wellSince = this.#world.now;
    this.#schedule();
    this.#later(0, () => this.#joinSeeds());
    this.#later(this.#world.prng.nextBelow(RECONNECT_MS), () => this.#reconnect());
  }

  crash(): void {
    this.#rules = null;
    this.life += 1;
    this.wellSince = Number.POSITIVE_INFINITY;
    this.downSince = this.#world.now;
    this.#stoppedUntil = 0;
    this.#emptySocket();
    this.#backlog = [];
  }

  /** SIGSTOP, or an event loop that is busy: nothing runs until then, packets wait in the socket. */
  stop(ms: number): void {
    const until = this.#world.now + ms;
    if (!this.isUp || until <= this.#stoppedUntil) {
      return;
    }
    this.#stoppedUntil = until;
    this.stopMs += ms;
    this.wellSince = Number.POSITIVE_INFINITY;
    this.#later(ms, () => this.#resume(), true);
  }

  leave(): void {
    if (this.#rules === null || this.isStopped) {
      return;
    }
    this.hasLeft = true;
    this.wellSince = Number.POSITIVE_INFINITY;
    this.downSince = this.#world.now;
    this.#rules.leave(this.clock());
    this.#schedule();
  }

  updateMeta(meta: Uint8Array): void {
    this.#meta = meta;
    this.changedAt = this.#world.now;
    if (this.#rules !== null && !this.isStopped && !this.hasLeft) {
      this.#rules.updateMeta(this.clock());
      this.#schedule();
    }
  }

  join(address: Address): void {
    if (this.#rules !== null && !this.isStopped && !this.hasLeft) {
      this.#rules.join([address], this.clock());
      this.#schedule();
    }
  }

  receive(messages: readonly Uint8Array[], from: Address): void {
    if (this.#rules === null) {
      return;
    }
    if (!this.isStopped) {
      this.#take(messages, from);
      this.#schedule();
      return;
    }
    const bytes = PACKET_OVERHEAD_BYTES + messages.reduce((sum, message) => sum + message.length, 0);
    if (this.#socketBytes + bytes > SOCKET_BYTES) {
      this.droppedAtSocket += 1;
      return;
    }
    this.#socketBytes += bytes;
    this.#socket.push({ messages, from, bytes });
    this.socketPacketsMax = Math.max(this.socketPacketsMax, this.#socket.length);
  }

  accept(request: unknown, from: Address, answer: (reply: unknown) => void): void {
    const call = { request: request as StreamRequest, from, answer };
    if (!this.isStopped) {
      this.#serve(call);
      this.#schedule();
    } else if (this.#backlog.length < BACKLOG_MAX) {
      this.#backlog.push(call);
    }
  }

  /** Node's event loop runs timers first, then what sockets have; a packet that was read before the stop may still come first. */
  #resume(): void {
    if (this.isStopped) {
      return;
    }
    this.#stoppedUntil = 0;
    this.wellSince = this.#world.now;
    if (this.#world.prng.chance(3, 4)) {
      this.#tick();
    }
    const [parcels, calls] = [this.#socket, this.#backlog];
    this.#emptySocket();
    this.#backlog = [];
    for (const { messages, from } of parcels) {
      this.#take(messages, from);
    }
    for (const call of calls) {
      this.#serve(call);
    }
    this.#tick();
    this.#schedule();
  }

  #emptySocket(): void {
    this.#socket = [];
    this.#socketBytes = 0;
  }

  #take(messages: readonly Uint8Array[], from: Address): void {
    for (const bytes of messages) {
      const message = decode(bytes);
      if (message !== null) {
        this.#rules?.onMessage(from, message, this.clock());
      }
    }
  }

  #serve({ request, answer }: Call): void {
    if (this.#rules === null) {
      return;
    }
    if (request.kind === 'ping') {
      answer(this.#rules.onStreamPing(request.node));
      return;
    }
    const reply = this.#rules.onPushPull(request.state, this.clock());
    answer(typeof reply === 'string' ? undefined : reply);
  }

  /** What its own clock says. */
  clock(): number {
    return this.#world.now * this.#options.clockRate;
  }

  #tick(): void {
    const { now } = this.#world;
    this.#ticks = this.#tickedAt === now ? this.#ticks + 1 : 0;
    this.#tickedAt = now;
    if (this.#ticks > TICKS_MAX) {
      throw new SafetyViolation(`${this.name} asks for ticks and does nothing (at ${now} ms)`);
    }
    this.#rules?.tick(this.clock());
  }

  /** A wake-up that comes early, as the rules have put it off meanwhile, does no harm. */
  #schedule(): void {
    if (this.#rules === null) {
      return;
    }
    const { now } = this.#world;
    let at = Math.max(now, Math.ceil(this.#rules.nextAt / this.#options.clockRate));
    // Where clocks differ, rounding may lead to just before what is due.
    if (at === now && this.#rules.nextAt > this.clock()) {
      at += 1;
    }
    if (at >= this.#timerAt) {
      return;
    }
    this.#timerAt = at;
    const { life } = this;
    this.#world.at(at, () => {
      if (this.life !== life || this.#timerAt !== at) {
        return;
      }
      this.#timerAt = Number.POSITIVE_INFINITY;
      if (!this.isStopped) {
        this.#tick();
        this.#schedule();
      }
    });
  }

  /** Runs in this life only, and while stopped only what ends that. */
  #later(ms: number, run: () => void, evenStopped = false): void {
    const { life } = this;
    this.#world.at(this.#world.now + ms, () => {
      if (this.life !== life) {
        return;
      }
      if (this.isStopped && !evenStopped) {
        this.#later(this.#stoppedUntil - this.#world.now, run);
      } else {
        run();
      }
    });
  }

  /** All of them until somebody is known; later one now and then that is not met, or two halves that have forgotten each other would never meet again. */
  #joinSeeds(): void {
    const alive = this.members().filter((member) => member.node !== this.name && member.state === 'alive');
    const met = new Set([this.#address, ...alive.map(({ address }) => address)].map(keyOf));
    const strangers = this.#options.seeds().filter((seed) => !met.has(keyOf(seed)));
    if (alive.length === 0) {
      for (const seed of strangers) {
        this.join(seed);
      }
    } else if (strangers.length > 0) {
      this.join(strangers[this.#world.prng.nextBelow(strangers.length)] as Address);
    }
    this.#later(alive.length === 0 ? SEED_RETRY_MS : STRANGER_MS, () => this.#joinSeeds());
  }

  #reconnect(): void {
    const failed = [...this.#failed.values()];
    const chosen = failed[this.#world.prng.nextBelow(Math.max(1, failed.length))];
    if (chosen !== undefined) {
      this.join(chosen);
    }
    this.#later(RECONNECT_MS, () => this.#reconnect());
  }

  #port(life: number): MemberPort {
    const world = this.#world;
    const isMine = (): boolean => this.life === life;
    const back = (run: (rules: MemberList) => void): void => {
      if (!isMine()) {
        return;
      }
      this.#later(this.isStopped ? this.#stoppedUntil - world.now : 0, () => {
        if (this.#rules !== null) {
          run(this.#rules);
          this.#schedule();
        }
      });
    };
    return {
      send: (to, _node, messages) => world.packet(this.name, this.#address, to, messages),
      pushPull: (token, to, _node, state) => {
        world.note(state.nodes.length + token);
        const request: StreamRequest = { kind: 'pushPull', state };
        world.connect(this.name, this.#address, to, request, (reply) =>
          back((rules) => rules.pushPullDone(token, (reply as PushPull | undefined) ?? null, this.clock())),
        );
      },
      streamPing: (token, to, node, seq) => {
        world.note(seq + token);
        const request: StreamRequest = { kind: 'ping', node, seq };
        world.connect(this.name, this.#address, to, request, (reply) =>
          back((rules) => rules.streamPingDone(token, reply === true, this.clock())),
        );
      },
      encode: (message) => {
        const bytes = encode(message);
        world.note(bytes.length + ('incarnation' in message ? message.incarnation : 0));
        this.#watcher.onMade(this, message);
        return bytes;
      },
      random: (below) => world.prng.nextBelow(below),
    };
  }

  #delegate(): MemberDelegate {
    return {
      meta: () => this.#meta,
      onUser: () => undefined,
      broadcasts: () => [],
      localState: () => new Uint8Array(0),
      mergeState: () => undefined,
      onJoin: (member) => {
        this.#failed.delete(member.node);
        this.#watcher.onJoin(this, member);
      },
      onLeave: (member) => {
        if (member.state === 'dead') {
          this.#failed.set(member.node, member.address);
        } else {
          this.#failed.delete(member.node);
        }
        this.#watcher.onLeave(this, member);
      },
      onUpdate: (member) => this.#watcher.onUpdate(this, member),
      onConflict: () => undefined,
      refuseMerge: (_members: readonly NodeState[]) => null,
      refuseAlive: (_member: AliveMessage) => null,
      ackPayload: () => new Uint8Array(0),
      onPingDone: () => undefined,
    };
  }
}

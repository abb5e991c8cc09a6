import { Prng } from '../../src/base/prng.ts';
import { lanProfile, MemberList, type MemberListOptions, type Profile } from '../../src/gossip/members/member-list.ts';
import type {
  Address,
  AliveMessage,
  DeadMessage,
  Member,
  MemberDelegate,
  MemberPort,
  NodeState,
  PacketMessage,
  PushPull,
  SuspectMessage,
  Versions,
} from '../../src/gossip/types.ts';

export const VERSIONS: Versions = [1, 5, 2, 2, 5, 4];
export const NO_BYTES = new Uint8Array(0);
/** net.go userMsg */
const USER = 8;

/** Node number 0 is `self`, others are `a`, `b` and so on. */
export function addressOf(node: string): Address {
  const number = node === 'self' ? 200 : node.charCodeAt(0) - 96 + (Number(node.slice(1)) || 0);
  return { host: `10.0.0.${number}`, port: 7_946 };
}

export function alive(node: string, incarnation = 1, more: Partial<AliveMessage> = {}): AliveMessage {
  return { kind: 'alive', incarnation, node, address: addressOf(node), meta: NO_BYTES, versions: VERSIONS, ...more };
}

export function suspect(node: string, incarnation = 1, from = 'x'): SuspectMessage {
  return { kind: 'suspect', incarnation, node, from };
}

export function dead(node: string, incarnation = 1, from = 'x'): DeadMessage {
  return { kind: 'dead', incarnation, node, from };
}

export function stateOf(node: string, state: NodeState['state'], incarnation = 1): NodeState {
  return { node, address: addressOf(node), meta: NO_BYTES, incarnation, state, versions: VERSIONS };
}

/** User messages as on the wire, because the rules count their bytes beforehand; others as JSON. */
export function encode(message: PacketMessage): Uint8Array {
  if (message.kind === 'user') return Uint8Array.of(USER, ...message.payload);
  const text = JSON.stringify(message, (_, value: unknown) =>
    value instanceof Uint8Array ? { hex: Buffer.from(value).toString('hex') } : value,
  );
  return new TextEncoder().encode(text);
}

export function decode(bytes: Uint8Array): PacketMessage {
  if (bytes[0] === USER) return { kind: 'user', payload: bytes.slice(1) };
  return JSON.parse(new TextDecoder().decode(bytes), (_, value: unknown) =>
    typeof value === 'object' && value !== null && 'hex' in value
      ? new Uint8Array(Buffer.from(String(value.hex), 'hex'))
      : value,
  ) as PacketMessage;
}

export interface Packet {
  readonly to: Address;
  readonly node: string;
  readonly messages: readonly PacketMessage[];
  readonly bytes: number;
}

export interface Stream {
  readonly token: number;
  readonly node: string;
  readonly to: Address;
  readonly state: PushPull | null;
}

export class FakePort implements MemberPort {
  readonly packets: Packet[] = [];
  readonly pushPulls: Stream[] = [];
  readonly streamPings: Stream[] = [];
  readonly #random: Prng;
  /** Called instead of keeping the packet, when there is a network. */
  onPacket: ((packet: Packet) => void) | null = null;

  constructor(seed: number) {
    this.#random = new Prng(seed);
  }

  send(to: Address, node: string, parts: readonly Uint8Array[]): void {
    const bytes = parts.reduce((sum, part) => sum + part.length + (parts.length > 1 ? 2 : 0), parts.length > 1 ? 2 : 0);
    const packet = { to, node, messages: parts.map(decode), bytes };
    if (this.onPacket !== null) this.onPacket(packet);
    else this.packets.push(packet);
  }

  pushPull(token: number, to: Address, node: string, state: PushPull): void {
    this.pushPulls.push({ token, to, node, state });
  }

  streamPing(token: number, to: Address, node: string): void {
    this.streamPings.push({ token, to, node, state: null });
  }

  encode(message: PacketMessage): Uint8Array {
    return encode(message);
  }

  random(below: number): number {
    return this.#random.nextBelow(below);
  }
}

export class FakeDelegate implements MemberDelegate {
  readonly events: string[] = [];
  readonly waiting: Uint8Array[] = [];
  readonly merged: [Uint8Array, boolean][] = [];
  tags: Uint8Array = NO_BYTES;
  state: Uint8Array = NO_BYTES;
  mergeFault: string | null = null;
  aliveFault: string | null = null;
  meta(): Uint8Array {
    return this.tags;
  }
  onUser(payload: Uint8Array): void {
    this.events.push(`user ${Buffer.from(payload).toString()}`);
  }
  broadcasts(overhead: number, limit: number): readonly Uint8Array[] {
    const taken: Uint8Array[] = [];
    let room = limit;
    while (this.waiting.length > 0 && (this.waiting[0] as Uint8Array).length + overhead <= room) {
      const next = this.waiting.shift() as Uint8Array;
      room -= next.length + overhead;
      taken.push(next);
    }
    return taken;
  }
  localState(): Uint8Array {
    return this.state;
  }
  mergeState(state: Uint8Array, join: boolean): void {
    this.merged.push([state, join]);
  }
  onJoin(member: Member): void {
    this.events.push(`join ${member.node}`);
  }
  onLeave(member: Member): void {
    this.events.push(`${member.state} ${member.node}`);
  }
  onUpdate(member: Member): void {
    this.events.push(`update ${member.node}`);
  }
  onConflict(known: Member, other: Member): void {
    this.events.push(`conflict ${known.node} ${known.address.host} ${other.address.host}`);
  }
  refuseMerge(): string | null {
    return this.mergeFault;
  }
  refuseAlive(): string | null {
    return this.aliveFault;
  }
  ackPayload(): Uint8Array {
    return NO_BYTES;
  }
  onPingDone(member: Member, rttMs: number): void {
    this.events.push(`ping ${member.node} ${rttMs}`);
  }
}

export interface RigOptions {
  readonly profile?: Partial<Profile>;
  readonly options?: Partial<MemberListOptions>;
  readonly others?: readonly string[];
  readonly seed?: number;
  /** Randomness always says the highest. */
  readonly lastOf?: boolean;
}

/** One member list, `self`, that knows `others`, and whoever of them is in `answering` acks pings at once. */
export class Rig {
  readonly port: FakePort;
  readonly delegate = new FakeDelegate();
  readonly list: MemberList;
  readonly answering = new Set<string>();
  now = 0;
  #read = 0;

  constructor({ profile = {}, options = {}, others = [], seed = 1, lastOf = false }: RigOptions = {}) {
    this.port = new FakePort(seed);
    if (lastOf) this.port.random = (below) => below - 1;
    this.list = new MemberList(
      {
        node: 'self',
        address: addressOf('self'),
        versions: VERSIONS,
        profile: { ...lanProfile(), pushPullIntervalMs: 0, ...profile },
        incarnation: 1,
        overheadBytes: 0,
        ...options,
      },
      this.port,
      this.delegate,
      0,
    );
    for (const node of others) this.take(alive(node));
    this.delegate.events.length = 0;
  }

  take(message: PacketMessage, from = addressOf('x')): void {
    this.list.onMessage(from, message, this.now);
  }

  state(node: string): string | undefined {
    return this.list.get(node)?.state;
  }

  /** `state@incarnation` */
  view(node: string): string {
    const member = this.list.get(node);
    return member === null ? 'unknown' : `${member.state}@${member.incarnation}`;
  }

  /** Runs in time up to `until`, or until `isDone`. */
  run(until: number, isDone: () => boolean = () => false): void {
    while (this.list.nextAt <= until && !isDone()) {
      this.now = Math.max(this.now, this.list.nextAt);
      this.list.tick(this.now);
      this.#answer();
    }
    if (!isDone()) this.now = until;
  }

  /** What was said of `node`, to anybody, and pings of it not counted. */
  said(node: string): readonly PacketMessage[] {
    return this.port.packets
      .flatMap(({ messages }) => messages)
      .filter((message) => 'node' in message && message.node === node && /alive|suspect|dead/.test(message.kind));
  }

  #answer(): void {
    const { packets } = this.port;
    for (; this.#read < packets.length; this.#read++) {
      const packet = packets[this.#read] as Packet;
      for (const message of packet.messages) {
        if (message.kind !== 'ping' || !this.answering.has(packet.node)) continue;
        this.take({ kind: 'ack', seq: message.seq, payload: NO_BYTES }, packet.to);
      }
    }
  }
}

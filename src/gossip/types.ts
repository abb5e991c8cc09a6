/**
 * What memberlist and Serf say to each other, as values, and what the rules of this folder ask of the world. Bytes are made of them in src/net/gossip.
 * Sources: hashicorp/memberlist net.go, state.go, delegate.go; hashicorp/serf serf/messages.go.
 */

/**
 * Where a packet came from or goes to. `host`: an IPv4 or IPv6 address in words, never a name. `::ffff:10.0.0.1` is not `10.0.0.1` in messages: upstream
 * compares the bytes that it was told, so that a node's address is passed on as it came (src/net/gossip/wire/address.ts).
 */
export interface Address {
  readonly host: string;
  /** 1 to 65,535 */
  readonly port: number;
}

/** [minimum, maximum, current] of the memberlist protocol, then the same of the delegate (Serf). */
export type Versions = readonly [number, number, number, number, number, number];

/** Bits of 0 to 2^32 - 1. A name is at most 128 bytes here, an address 4 or 16 bytes, `meta` at most 512 bytes. */
export type PacketMessage =
  | { readonly kind: 'ping'; readonly seq: number; readonly node: string; readonly source: Sender | null }
  | {
      readonly kind: 'indirectPing';
      readonly seq: number;
      readonly target: Address;
      readonly node: string;
      /** The asker understands a nack. */
      readonly nack: boolean;
      readonly source: Sender | null;
    }
  | { readonly kind: 'ack'; readonly seq: number; readonly payload: Uint8Array }
  | { readonly kind: 'nack'; readonly seq: number }
  | SuspectMessage
  | AliveMessage
  | DeadMessage
  /** What the delegate (Serf) says: opaque to memberlist. */
  | { readonly kind: 'user'; readonly payload: Uint8Array };

/** Who pings, for a node that does not know it yet. */
export interface Sender {
  readonly address: Address;
  readonly node: string;
}

export interface SuspectMessage {
  readonly kind: 'suspect';
  readonly incarnation: number;
  readonly node: string;
  readonly from: string;
}

export interface AliveMessage {
  readonly kind: 'alive';
  readonly incarnation: number;
  readonly node: string;
  readonly address: Address;
  readonly meta: Uint8Array;
  readonly versions: Versions;
}

/** `from` = `node`: it left. */
export interface DeadMessage {
  readonly kind: 'dead';
  readonly incarnation: number;
  readonly node: string;
  readonly from: string;
}

export type MemberState = 'alive' | 'suspect' | 'dead' | 'left';

/** A node in a push/pull. */
export interface NodeState {
  readonly node: string;
  readonly address: Address;
  readonly meta: Uint8Array;
  readonly incarnation: number;
  readonly state: MemberState;
  readonly versions: Versions;
}

export interface PushPull {
  readonly join: boolean;
  readonly nodes: readonly NodeState[];
  /** The delegate's state (Serf's push/pull message); empty if there is none. */
  readonly userState: Uint8Array;
}

/** What a node that opens a TCP connection may want of the other. */
export type StreamMessage =
  | { readonly kind: 'pushPull'; readonly state: PushPull }
  | { readonly kind: 'ping'; readonly seq: number; readonly node: string; readonly source: Sender | null }
  | { readonly kind: 'ack'; readonly seq: number; readonly payload: Uint8Array }
  | { readonly kind: 'user'; readonly payload: Uint8Array }
  | { readonly kind: 'error'; readonly message: string };

/** A member as others see it. */
export interface Member {
  readonly node: string;
  readonly address: Address;
  readonly meta: Uint8Array;
  readonly versions: Versions;
  readonly state: MemberState;
  readonly incarnation: number;
}

/** What memberlist's rules ask of the world. Every call returns at once, and comes back, if at all, in a later turn. */
export interface MemberPort {
  /** A packet of one or more encoded messages (more than one: a compound message). They fit PACKET_BYTES together. */
  send(to: Address, node: string, messages: readonly Uint8Array[]): void;
  /** Opens a connection, sends `state` and reads the other's; ends with `pushPullDone(token, ...)`. */
  pushPull(token: number, to: Address, node: string, state: PushPull): void;
  /** Pings over a connection; ends with `streamPingDone(token, ...)`. */
  streamPing(token: number, to: Address, node: string, seq: number): void;
  /** Bytes of a message as a packet carries it, with its type byte. */
  encode(message: PacketMessage): Uint8Array;
  /** An integer of 0 to below - 1: the only randomness that the rules have. */
  random(below: number): number;
}

/** What rides on memberlist: Serf. Each is called inside a call of the rules, and may read the `MemberList` and send (`sendUser`, `sendUserTo`), nothing else. */
export interface MemberDelegate {
  /** The tags, encoded; at most 512 bytes. */
  meta(): Uint8Array;
  onUser(payload: Uint8Array, now: number): void;
  /** Payloads of user messages (as `onUser` gets them) to be gossiped now, each counted with `overhead` bytes more, at most `limit` bytes in all. */
  broadcasts(overhead: number, limit: number): readonly Uint8Array[];
  localState(join: boolean, now: number): Uint8Array;
  mergeState(state: Uint8Array, join: boolean, now: number): void;
  onJoin(member: Member, now: number): void;
  /** It left or is called failed: `member.state` says which. */
  onLeave(member: Member, now: number): void;
  /** Its tags, address or versions changed. */
  onUpdate(member: Member, now: number): void;
  /** Two nodes have one name: `known` keeps it here. */
  onConflict(known: Member, other: Member, now: number): void;
  /** A reason not to merge with these (another cluster's), or null. */
  refuseMerge(members: readonly NodeState[]): string | null;
  /** A reason not to take this node in, or null. */
  refuseAlive(member: AliveMessage): string | null;
  /** Goes with an ack, for round-trip measurements (Serf's network coordinate); may be empty. */
  ackPayload(): Uint8Array;
  onPingDone(member: Member, rttMs: number, payload: Uint8Array, now: number): void;
}

/** Payload of a UDP packet, in bytes, before encryption and label (memberlist config.go UDPBufferSize). */
export const PACKET_BYTES = 1_400;
/** memberlist.go MetaMaxSize */
export const META_BYTES_MAX = 512;

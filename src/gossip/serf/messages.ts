import type { Address, Versions } from '../types.ts';

/**
 * Serf's messages as values (hashicorp/serf serf/messages.go). Bytes are made of them in src/net/gossip/serf-codec.ts.
 * A Lamport time is an integer of 0 to LAMPORT_MAX; what is beyond it on the wire is not decoded.
 */
export type SerfMessage =
  | JoinIntent
  | LeaveIntent
  | SerfState
  | UserEventMessage
  | QueryMessage
  | QueryResponseMessage
  | ConflictResponse
  | KeyRequest
  | KeyResponse
  | RelayMessage;

/** "This node joined": puts a Lamport time to it. */
export interface JoinIntent {
  readonly kind: 'join';
  readonly time: number;
  readonly node: string;
}

export interface LeaveIntent {
  readonly kind: 'leave';
  readonly time: number;
  readonly node: string;
  /** Forget it as well, at once. */
  readonly prune: boolean;
}

/** The state that goes with memberlist's push/pull. */
export interface SerfState {
  readonly kind: 'pushPull';
  /** Clock of the membership, and below those of events and queries: the next time each would give. */
  readonly time: number;
  readonly statusTimes: ReadonlyMap<string, number>;
  readonly leftMembers: readonly string[];
  readonly eventTime: number;
  readonly events: readonly EventsOfTime[];
  readonly queryTime: number;
}

/** User events of one Lamport time. */
export interface EventsOfTime {
  readonly time: number;
  readonly events: readonly SeenEvent[];
}

export interface SeenEvent {
  readonly name: string;
  readonly payload: Uint8Array;
}

export interface UserEventMessage {
  readonly kind: 'userEvent';
  readonly time: number;
  readonly name: string;
  readonly payload: Uint8Array;
  /** Several of one name within a short time may be told as the newest alone. */
  readonly coalesce: boolean;
}

export interface QueryMessage {
  readonly kind: 'query';
  readonly time: number;
  /** 0 to 2^32 - 1 */
  readonly id: number;
  /** Where answers go to, without a detour. */
  readonly source: Address;
  readonly sourceNode: string;
  /** All of them must be met by a node that answers. */
  readonly filters: readonly QueryFilter[];
  readonly wantsAck: boolean;
  /** Not to be gossiped on. */
  readonly noBroadcast: boolean;
  /** 0 to 255: so many other nodes carry each answer as well. */
  readonly relayFactor: number;
  /** Whole milliseconds, 0 to QUERY_TIMEOUT_MS_MAX. */
  readonly timeoutMs: number;
  readonly name: string;
  readonly payload: Uint8Array;
}

export type QueryFilter =
  | { readonly kind: 'nodes'; readonly nodes: readonly string[] }
  /** `expression`: of Go's RE2 syntax, found anywhere in the tag's value; a tag that is missing is empty. */
  | { readonly kind: 'tag'; readonly tag: string; readonly expression: string }
  /** Of a newer version: nobody who does not know it is meant. */
  | { readonly kind: 'unknown' };

export interface QueryResponseMessage {
  readonly kind: 'queryResponse';
  readonly time: number;
  readonly id: number;
  readonly from: string;
  readonly isAck: boolean;
  readonly payload: Uint8Array;
}

/** Payload of an answer to the internal query `conflict`: what the asked knows of the name, or null. */
export interface ConflictResponse {
  readonly kind: 'conflictResponse';
  readonly member: ConflictMember | null;
}

export interface ConflictMember {
  readonly node: string;
  readonly address: Address;
  readonly tags: Tags;
  readonly status: MemberStatus;
  readonly versions: Versions;
}

/** Payload of the internal queries about keys. */
export interface KeyRequest {
  readonly kind: 'keyRequest';
  /** Empty for list-keys. */
  readonly key: Uint8Array;
}

export interface KeyResponse {
  readonly kind: 'keyResponse';
  readonly isDone: boolean;
  /** Why not, or a remark. */
  readonly message: string;
  /** In base64. */
  readonly keys: readonly string[];
  readonly primaryKey: string;
}

/** An answer that another node carries to `target`. */
export interface RelayMessage {
  readonly kind: 'relay';
  readonly target: Address;
  readonly targetNode: string;
  /** An encoded message. */
  readonly payload: Uint8Array;
}

export type Tags = ReadonlyMap<string, string>;

/** serf.go MemberStatus; `none` is the status of a node that never was a member. */
export type MemberStatus = 'none' | 'alive' | 'leaving' | 'left' | 'failed';

/** A network coordinate (coordinate/coordinate.go), in seconds but for `error`. */
export interface Coordinate {
  readonly vector: readonly number[];
  readonly error: number;
  readonly adjustment: number;
  readonly height: number;
}

/** The wire, as the rules see it. Nothing throws, and decoding is bounded. */
export interface SerfCodec {
  encode(message: SerfMessage): Uint8Array;
  /** Null: not a message, or one that breaks a bound. Nothing of what comes out is a view of `bytes`. */
  decode(bytes: Uint8Array): SerfMessage | null;
  encodeTags(tags: Tags): Uint8Array;
  /** What cannot be read is no tags. Bytes without Serf's mark are the old form: the tag `role` alone. */
  decodeTags(meta: Uint8Array): Tags;
  encodeCoordinate(coordinate: Coordinate): Uint8Array;
  decodeCoordinate(payload: Uint8Array): Coordinate | null;
}

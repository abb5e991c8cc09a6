import type { Address, Member, Versions } from '../types.ts';
import type { DEFAULTS } from './limits.ts';
import type { MemberStatus, SerfCodec, Tags } from './messages.ts';

/** A member as Serf sees it. */
export interface SerfMember {
  readonly node: string;
  readonly address: Address;
  readonly tags: Tags;
  readonly status: MemberStatus;
  /** Lamport time of the newest intent about it. */
  readonly statusTime: number;
  readonly versions: Versions;
  /** When it left or failed, by the clock of `now`; 0 before. */
  readonly leaveTime: number;
}

export type MemberEventKind = 'memberJoin' | 'memberLeave' | 'memberFailed' | 'memberUpdate' | 'memberReap';

export interface MemberEvent {
  readonly kind: MemberEventKind;
  /** More than one only if events are coalesced. */
  readonly members: readonly SerfMember[];
}

export interface UserEvent {
  readonly kind: 'user';
  readonly time: number;
  readonly name: string;
  readonly payload: Uint8Array;
  readonly coalesce: boolean;
}

/** Another's question, or this node's own. */
export interface QueryEvent {
  readonly kind: 'query';
  /** For `Serf.respond`, once, before `deadline` (by the clock of `now`). */
  readonly handle: number;
  readonly time: number;
  readonly name: string;
  readonly payload: Uint8Array;
  readonly sourceNode: string;
  readonly deadline: number;
}

/** Two nodes have one name. `known` keeps it here; about this node's own name the cluster is asked, see `nameLost`. */
export interface NameConflictEvent {
  readonly kind: 'nameConflict';
  readonly known: Member;
  readonly other: Member;
}

/** Most of those that answered know another address for this node's name: it has to stop gossiping, and nothing more. */
export interface NameLostEvent {
  readonly kind: 'nameLost';
  readonly matching: number;
  readonly responses: number;
}

/** `Serf.leave` is through: the cluster has been told, and had time to hear it. */
export interface LeftEvent {
  readonly kind: 'left';
}

export type SerfEvent = MemberEvent | UserEvent | QueryEvent | NameConflictEvent | NameLostEvent | LeftEvent;

/** What Serf needs of memberlist's rules (members/member-list.ts is one). Inside calls of the delegate it only reads, and sends. */
export interface SerfList {
  readonly self: Member;
  /** Exchanges states with all of these. */
  join(addresses: readonly Address[], now: number): void;
  /** Joins under way. */
  readonly joinsPending: number;
  /** Gossips `delegate.meta()` anew. */
  updateMeta(now: number): void;
  leave(now: number): void;
  /** The leave was gossiped often enough. */
  readonly isLeaveSpread: boolean;
  /** A user message straight to a node. `node` may be '' if only the address is known. False: it does not fit a packet. */
  sendUserTo(to: Address, node: string, payload: Uint8Array): boolean;
}

export interface JoinTarget {
  readonly node: string;
  readonly address: Address;
}

/** The keys of memberlist's encryption. Failures are sentences for whoever asked. */
export interface SerfKeyring {
  /** `done` is called once, in this turn or a later one (the keyring's file is written first). */
  change(operation: KeyOperation, key: Uint8Array, done: (failure: string | null, now: number) => void): void;
  /** In base64; the primary key is one of them. */
  list(): { readonly keys: readonly string[]; readonly primaryKey: string };
}

export type KeyOperation = 'install-key' | 'use-key' | 'remove-key';

/** What Serf's rules ask of the world. Every call returns at once. */
export interface SerfPort extends SerfCodec {
  /** An integer of 0 to below - 1. */
  random(below: number): number;
  /** Null: gossip is not encrypted. */
  readonly keyring: SerfKeyring | null;
  /** May call `Serf.respond`, nothing else of Serf. */
  onEvent(event: SerfEvent): void;
}

/** See DEFAULTS. */
export type SerfTimes = Partial<typeof DEFAULTS>;

export interface SerfOptions extends SerfTimes {
  /** This node's name: 1 to NODE_NAME_BYTES_MAX bytes. */
  readonly node: string;
  /** `whyNotTags` is null. The tag `cluster` is what nodes of other clusters are told apart by. */
  readonly tags: Tags;
  /** Ask the cluster who keeps a name that two nodes have (config.go EnableNameConflictResolution). Default: true. */
  readonly resolvesNameConflicts?: boolean;
  /** From a snapshot: clocks to go on from, and nodes to meet again. */
  readonly restored?: RestoredSerf;
}

export interface RestoredSerf {
  /** Newest Lamport time seen of each kind. */
  readonly time: number;
  readonly eventTime: number;
  readonly queryTime: number;
  readonly nodes: readonly JoinTarget[];
}

/** Why a call was refused. */
export type SerfRefusal =
  | 'TAGS_TOO_LARGE'
  | 'EVENT_TOO_LARGE'
  | 'QUERY_TOO_LARGE'
  | 'QUERIES_TOO_MANY'
  | 'EXPRESSION_NOT_SUPPORTED'
  | 'QUERY_CLOSED'
  | 'RESPONSE_TOO_LARGE'
  | 'NOT_ALIVE'
  | 'KEYRING_ABSENT';

export interface QueryRequest {
  readonly name: string;
  readonly payload: Uint8Array;
  /** Empty: every node. */
  readonly nodes?: readonly string[];
  /** Tag and expression (RE2); see tag-pattern.ts for what this node itself understands of it. */
  readonly tags?: Tags;
  readonly wantsAck?: boolean;
  /** 0 to 255 */
  readonly relayFactor?: number;
  /** 0 or absent: `Serf.queryTimeoutMs`. */
  readonly timeoutMs?: number;
}

/** Called inside calls of the rules, once for each node. */
export interface QueryWatcher {
  onAck?(node: string): void;
  onResponse?(node: string, payload: Uint8Array): void;
  /** The time is over; nothing comes after it. */
  onDone?(): void;
}

export type QueryStart = { readonly handle: number } | { readonly refusal: SerfRefusal };

export interface SerfStatistics {
  readonly members: number;
  readonly failed: number;
  readonly left: number;
  readonly memberTime: number;
  readonly eventTime: number;
  readonly queryTime: number;
  readonly intentQueue: number;
  readonly eventQueue: number;
  readonly queryQueue: number;
  readonly isEncrypted: boolean;
  /** Messages that could not be read or broke a bound. */
  readonly refused: number;
  /** Gossip that was dropped for a full queue. */
  readonly dropped: number;
}

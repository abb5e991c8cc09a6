import type { Endpoint } from '../../base/endpoint.ts';
import type { MemberCounters } from '../../gossip/members/member-list.ts';
import type { QueryEvent, SerfStatistics, UserEvent } from '../../gossip/serf/types.ts';
import type { Address } from '../../gossip/types.ts';
import type { TransportCounters } from '../../net/gossip/transport.ts';
import type { Log } from '../../telemetry/log.ts';

/** Timing (memberlist config.go): `lan` for one data centre, `wan` between them, `local` for one machine. */
export type GossipProfile = 'local' | 'lan' | 'wan';

export interface GossipOptions {
  /** This node's name, 1 to 128 bytes. */
  readonly node: string;
  /** UDP and TCP. Port 0: the system chooses. */
  readonly listen: Endpoint;
  /** Where others reach this node; a name is looked up once, at the start. Null: `listen`, or an address of this machine if that is a wildcard. */
  readonly advertise: Endpoint | null;
  /** 16, 24 or 32 bytes each, the primary one first; none: gossip is not encrypted. Where the data directory has a keyring, that one is used. */
  readonly keys: readonly Uint8Array[];
  /** Keeps clusters apart that find one another by mistake; '' for none. Real agents of the command line have none. */
  readonly label: string;
  readonly profile: GossipProfile;
  /** All together at most 512 bytes, encoded. `cluster` is added to them. */
  readonly tags: Readonly<Record<string, string>>;
  /** Nodes with another name in their tag `cluster` are not taken in. */
  readonly clusterName: string;
  /** Folder that exists and is this node's; null: nothing is kept. */
  readonly dataDirectory: string | null;
  readonly log: Log;
  /** When a node that has lost its name tries again, in ms; it doubles each time. Default: 30 s. */
  readonly nameRetryMs?: number;
  /** Somebody joined, left, failed, is suspected or no longer, or has other tags: `view()` is new. At most once a turn. */
  readonly onChange?: () => void;
  readonly onUserEvent?: (event: UserEvent) => void;
  /** Answered with `GossipAgent.respond`, once, or not at all. */
  readonly onQuery?: (event: QueryEvent) => void;
}

/** `suspect`: it has not answered, and has some seconds to say that it is alive. */
export type GossipStatus = 'alive' | 'suspect' | 'leaving' | 'left' | 'failed';

/** A node as gossip sees it. That is news, not truth: it changes no voter and elects nobody. */
export interface GossipMember {
  readonly node: string;
  readonly status: GossipStatus;
  readonly address: Address;
  readonly tags: Readonly<Record<string, string>>;
  /** Of Serf's protocol: least, most and the one it speaks. */
  readonly protocol: readonly [number, number, number];
  readonly isSelf: boolean;
}

/** What gossip has done and knows, for /metrics. */
export interface GossipFigures {
  /** 0: well; up to 7 (Lifeguard). */
  readonly health: number;
  readonly rules: Readonly<MemberCounters>;
  /** Messages about nodes that wait to be gossiped. */
  readonly nodeQueue: number;
  readonly serf: SerfStatistics;
  readonly transport: TransportCounters;
  /** 0: not encrypted. */
  readonly keys: number;
}

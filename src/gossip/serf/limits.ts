/**
 * What strangers can make grow, and how far; and the defaults of Serf (hashicorp/serf serf/config.go, serf.go). Bytes, milliseconds, counts.
 */

/** Far beyond what a cluster counts to, and far enough from 2^53 for one more. */
export const LAMPORT_MAX = 2 ** 52;

/** Members of any status. */
export const MEMBERS_MAX = 8_192;
/** Intents of nodes that are not members (yet); more are not kept and not gossiped on. */
export const RECENT_INTENTS_MAX = 4_096;
export const NODE_NAME_BYTES_MAX = 128;

/** Slots of Lamport times in which events and queries are recognised (config.go EventBuffer, QueryBuffer). */
export const SEEN_SLOTS = 512;
/** Events of one Lamport time. Upstream has no bound. */
export const EVENTS_PER_SLOT_MAX = 256;
/** Names and payloads of all slots; beyond it the oldest go, and with them the right of older events to be heard. */
export const EVENT_BUFFER_BYTES_MAX = 1_536 * 1024;
/** Queries of one Lamport time. Upstream has no bound. */
export const QUERIES_PER_SLOT_MAX = 256;

/** Name and payload of a user event (config.go UserEventSizeLimit, serf.go UserEventSizeLimit). */
const EVENT_BYTES_DEFAULT = 512;
export const EVENT_BYTES_MAX = 9 * 1024;
/** Encoded (config.go QuerySizeLimit, QueryResponseSizeLimit). */
export const QUERY_BYTES_MAX = 1_024;
export const QUERY_RESPONSE_BYTES_MAX = 1_024;
/** Of a message that comes in: an event of the largest size and its frame. */
export const MESSAGE_BYTES_MAX = EVENT_BYTES_MAX + 1_024;
/** Of a push/pull state that comes in; what this node says itself, with as many members and events as there may be, is less. */
export const STATE_BYTES_MAX = 4 * 1024 * 1024;

/** Queries of this node that run. */
export const RUNNING_QUERIES_MAX = 64;
/** Queries of others that may still be answered by whoever listens to events; the oldest go. */
export const OPEN_QUERIES_MAX = 256;
export const QUERY_TIMEOUT_MS_MAX = 3_600_000;
export const FILTERS_MAX = 64;

/** Each of the three queues (config.go MaxQueueDepth). */
export const QUEUE_DEPTH_MAX = 4_096;
export const QUEUE_BYTES_MAX = 4 * 1024 * 1024;

/** Pending names of coalesced user events, and events of one name; full: told at once. */
export const COALESCED_NAMES_MAX = 1_024;
export const COALESCED_EVENTS_MAX = 256;

/** Answers and relays in a second to addresses that no member has: a forged query must not aim a cluster at a bystander. */
export const STRANGER_SENDS_PER_SECOND = 10;

/** Tags of one node; all of them, encoded, are at most META_BYTES_MAX bytes. */
export const TAGS_MAX = 128;
/** Keys in an answer to list-keys: as many as fit QUERY_RESPONSE_BYTES_MAX. */
export const KEYS_MAX = 64;

/** coordinate/config.go */
export const COORDINATE_DIMENSIONS = 8;
export const COORDINATE_ERROR_MAX = 1.5;
export const COORDINATE_HEIGHT_MIN = 10e-6;
export const COORDINATE_BYTES_MAX = 512;

/** Nodes to rejoin from a snapshot, and the largest snapshot that is read. */
export const SNAPSHOT_NODES_MAX = MEMBERS_MAX;
export const SNAPSHOT_BYTES_MAX = 16 * 1024 * 1024;

export const DEFAULTS = numbers({
  reapIntervalMs: 15_000,
  recentIntentTimeoutMs: 300_000,
  reconnectIntervalMs: 30_000,
  /** How long a failed member is kept and reconnected to. */
  reconnectTimeoutMs: 86_400_000,
  /** How long a member that left is remembered. */
  tombstoneTimeoutMs: 86_400_000,
  broadcastTimeoutMs: 5_000,
  leavePropagateDelayMs: 1_000,
  /** memberlist config.go, LAN */
  gossipIntervalMs: 200,
  retransmitMultiplier: 4,
  queryTimeoutMultiplier: 16,
  /** At least, between two nodes of a snapshot. */
  rejoinIntervalMs: 1_000,
  eventBytesMax: EVENT_BYTES_DEFAULT,
  /** 0: events are told at once. The agent of Serf has 3,000 and 1,000 (cmd/serf/command/agent). */
  coalescePeriodMs: 0,
  quiescentPeriodMs: 0,
  userCoalescePeriodMs: 0,
  userQuiescentPeriodMs: 0,
});

/** Their names, with any number. */
function numbers<Name extends string>(values: Readonly<Record<Name, number>>): Readonly<Record<Name, number>> {
  return values;
}

/**
 * What goes in and out of the Raft core. Plain records: the core never changes one after it was handed out, and the
 * caller never changes one after it was handed in.
 */

/** Opaque, short name of a node; compared, never parsed. '' means nobody. */
export type NodeId = string;
export const NOBODY: NodeId = '';

/** Log position from 1; 0 is the place before the first entry. */
export type Index = number;
/** Term from 1; 0 is the term of the place before the first entry. */
export type Term = number;

/** The last position an entry may take: its successor (`next`, exclusive ends) must still be an exact number. */
export const INDEX_MAX: Index = Number.MAX_SAFE_INTEGER - 1;
/** The last term somebody may campaign for. */
export const TERM_MAX: Term = Number.MAX_SAFE_INTEGER - 1;

/** Stored in the log and sent to peers, so the numbers are append-only. */
export const ENTRY_NORMAL = 0;
export const ENTRY_CONFIG = 1;
export type EntryType = typeof ENTRY_NORMAL | typeof ENTRY_CONFIG;

export interface Entry {
  readonly term: Term;
  readonly index: Index;
  readonly type: EntryType;
  /** Never copied by the core. Empty for the entry with which a leader opens its term. */
  readonly data: Uint8Array;
}

/** What an entry weighs beyond its data, in bytes: the other fields and their framing. A round figure for the caps. */
export const ENTRY_OVERHEAD_BYTES = 24;

/** Durable before it is spoken of (Raft paper, figure 2: persistent state), except for `commit`, which may lag. */
export interface HardState {
  readonly term: Term;
  /** Who got this node's vote in `term`; '' for nobody. */
  readonly vote: NodeId;
  /**
   * Lets a restart apply what it knows to be committed. It comes to disk in one piece with the entries of its Ready, both
   * or neither. Without it, entries could hold a membership change of which the node does not know that the one before
   * it is committed (config-change.ts, rule 3). Before the entries, it could call committed what they were to replace.
   */
  readonly commit: Index;
}

/** Who takes part. Sorted, disjoint. */
export interface ConfigState {
  readonly voters: readonly NodeId[];
  readonly learners: readonly NodeId[];
}

/** Metadata of a state machine snapshot; the bytes are the transport's and the store's business. */
export interface Snapshot {
  readonly index: Index;
  readonly term: Term;
  /** The members as of `index`. */
  readonly config: ConfigState;
  /** Opaque to the core: where the sender, or after the transfer the receiver, finds the bytes. */
  readonly ref: string;
}

export type MessageType =
  | 'append'
  | 'append-response'
  | 'heartbeat'
  | 'heartbeat-response'
  | 'vote'
  | 'vote-response'
  | 'pre-vote'
  | 'pre-vote-response'
  | 'snapshot'
  | 'timeout-now'
  | 'read-index'
  | 'read-index-response';

/** One shape for all types, so that the code that reads them stays monomorphic. Unused fields are 0, false, empty or null. */
export interface Message {
  readonly type: MessageType;
  readonly from: NodeId;
  readonly to: NodeId;
  /** Sender's term; of a pre-vote (and its grant) the term to be campaigned for; 0 for `read-index`. */
  readonly term: Term;
  /**
   * append: position before the first entry. append-response: last position known to match, or, when rejected, the
   * `index` of the refused append. vote, pre-vote: candidate's last position; in a refusal what the voter knows to be
   * committed. read-index-response: position to wait for.
   */
  readonly index: Index;
  /** Term at `index`; in a rejection the term at `rejectHint`. */
  readonly logTerm: Term;
  /** Up to where the sender knows its log to be committed; of an append and a heartbeat, as far as the receiver has it. */
  readonly commit: Index;
  readonly entries: readonly Entry[];
  readonly reject: boolean;
  /** Of a refused append: the highest position at which the logs may still match. */
  readonly rejectHint: Index;
  readonly snapshot: Snapshot | null;
  /** heartbeat and its response: number of the read round, 0 for none. read-index and its response: caller's number. vote, pre-vote: term at `commit`. */
  readonly context: number;
  /** vote: the leader asked for this election (leadership transfer), so a live leader is no reason to refuse. */
  readonly force: boolean;
}

const NO_ENTRIES: readonly Entry[] = Object.freeze([]);

type MessageFields = Pick<Message, 'type' | 'from' | 'to' | 'term'> & Partial<Message>;

/** Fills in the unused fields. */
export function makeMessage(fields: MessageFields): Message {
  return {
    type: fields.type,
    from: fields.from,
    to: fields.to,
    term: fields.term,
    index: fields.index ?? 0,
    logTerm: fields.logTerm ?? 0,
    commit: fields.commit ?? 0,
    entries: fields.entries ?? NO_ENTRIES,
    reject: fields.reject ?? false,
    rejectHint: fields.rejectHint ?? 0,
    snapshot: fields.snapshot ?? null,
    context: fields.context ?? 0,
    force: fields.force ?? false,
  };
}

/**
 * A message from outside makes sense in itself: its numbers are exact and cannot overflow when one is added, its entries
 * follow each other and are of no later term than their sender.
 */
export function isMessageSound(message: Message): boolean {
  return (
    inRange(message.term) &&
    inRange(message.index) &&
    inRange(message.logTerm) &&
    inRange(message.commit) &&
    inRange(message.rejectHint) &&
    inRange(message.context) &&
    areEntriesSound(message) &&
    isSnapshotSound(message)
  );
}

function areEntriesSound(message: Message): boolean {
  let term = message.logTerm;
  for (let i = 0; i < message.entries.length; i += 1) {
    const entry = message.entries[i] as Entry;
    if (entry.index !== message.index + 1 + i || !inRange(entry.index) || !(entry.term >= term)) {
      return false;
    }
    term = entry.term;
  }
  return term <= message.term || message.type !== 'append';
}

function isSnapshotSound(message: Message): boolean {
  const snapshot = message.snapshot;
  if (snapshot === null) {
    return message.type !== 'snapshot';
  }
  return inRange(snapshot.index) && inRange(snapshot.term) && snapshot.term <= message.term;
}

function inRange(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value <= INDEX_MAX;
}

export type Role = 'follower' | 'pre-candidate' | 'candidate' | 'leader';

/** Never stored. */
export interface SoftState {
  readonly role: Role;
  /** '' while no leader is known. */
  readonly leader: NodeId;
}

/** Answer to `readIndex(context)`: once everything up to `index` is applied, a read is linearizable. */
export interface ReadState {
  readonly context: number;
  readonly index: Index;
}

/**
 * Work for the caller. Readies are numbered and are made durable in order; several may be under way at once.
 * How to drive them: see RaftCore.
 */
export interface Ready {
  readonly number: number;
  /** Set when it changed since the last Ready. */
  readonly softState: SoftState | null;
  /** Set when it changed since the last Ready. Goes to the WAL in one piece with `entries`: a crash leaves both or neither. */
  readonly hardState: HardState | null;
  /** A snapshot received from the leader: install it (store it, restore the state machine) before `entries`. */
  readonly snapshot: Snapshot | null;
  /** To be written to the WAL; the first one may overwrite a suffix written before. */
  readonly entries: readonly Entry[];
  /** Whether the write has to reach the disk (fdatasync). A change of `commit` alone may wait for the next write. */
  readonly mustSync: boolean;
  /** To be sent at once; may overtake the write. */
  readonly messages: readonly Message[];
  /** To be sent only after this Ready *and all before it* are durable: they promise what is written (R3, R4). */
  readonly messagesAfterPersist: readonly Message[];
  /** Committed and durable on this node: to be applied in order. Config entries among them take effect in `appliedTo`. */
  readonly committedEntries: readonly Entry[];
  readonly readStates: readonly ReadState[];
}

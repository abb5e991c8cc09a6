/**
 * Where batches are durable. One contract suite (test/contract/message-store.ts) runs against every implementation.
 *
 * Keys are (subject, base). An append is idempotent under its key, and a void mark beats data whichever comes first: whoever revoked an
 * allotment may write its mark while a late write of its batch is still on the way (design section 7, rule 2). The ranges of two
 * keys of one subject never overlap: the log allots them.
 */
export interface MessageStore {
  /**
   * One durable write for the whole group. Resolves when everything in it is durable *and* visible to `read`. Rejects with BrokerError
   * STORE_FULL or STORE_UNAVAILABLE: nothing of it is or will be readable, and later appends may succeed. Rejects with StoreUncertain
   * (databases only): any part of it may be there now or appear later; the caller repeats the same group until it is told, or revokes the
   * allotments and writes their marks. Rejects with anything else: what is durable is not known, and the process has to end (StoreFailure,
   * or what the disk port calls fatal).
   * A batch and the mark of its allotment carry the same `publishedAt` and `expiresMax`, those of the `open` entry: a store may file by them.
   * The group's memory has to stay unchanged until then; after StoreUncertain, until the caller has done with the store.
   */
  append(group: readonly SealedBatch[]): Promise<void>;
  /**
   * Batches in base order that intersect [from, until], up to about `maxBytes` of encoded bytes but at least one. May answer at once.
   * Expiry is for the reader to judge. Bytes of an answer that came at once are valid until the caller's turn of the event loop ends (they may
   * be the store's own memory); those of a promise are the caller's. With `memory`, the store may read into it: then the
   * bytes are valid until the caller uses that again, and those of an answer at once also only until the turn ends.
   */
  read(
    subject: SubjectRef,
    from: number,
    until: number,
    maxBytes: number,
    memory?: ReadMemory,
  ): ReadResult | Promise<ReadResult>;
  /**
   * The same batches from `until` downwards: highest base first, up to about `maxBytes` but at least one. `next` is the highest id that the
   * answer says nothing about, `from - 1` when it says all; ids above it that no item covers are not stored. Whose bytes they are: as for `read`.
   */
  readBack(
    subject: SubjectRef,
    from: number,
    until: number,
    maxBytes: number,
    memory?: ReadMemory,
  ): ReadResult | Promise<ReadResult>;
  /** Smallest stored id of a message that was published at or after `ms` (epoch ms), or null. */
  findTime(subject: SubjectRef, ms: number): number | null | Promise<number | null>;
  /** Highest id with a stored batch or void mark; 0 if none. */
  lastId(subject: SubjectRef): number | Promise<number>;
  /** What is stored under the key (subject, base). */
  lookup(subject: SubjectRef, base: number): Stored | Promise<Stored>;
  /** Forgets batches whose ids are all below `first`. */
  trim(subject: SubjectRef, first: number): void | Promise<void>;
  subjectStats(subject: SubjectRef): SubjectStats | Promise<SubjectStats>;
  /** Embedded: counters, at once. A database counts what is there, which reads all of its index: for people, not for a scrape. */
  stats(): StoreStats | Promise<StoreStats>;
  /** Finishes the writes that have begun, refuses further ones. Closing twice is allowed. */
  close(): Promise<void>;
}

/** A store that stands apart from the log, so that one of the two can be an older copy. */
export interface DatabaseStore extends MessageStore {
  /**
   * Something that is stored and that a log with these heads has not given, or null. If there is such a thing, whichever copy of the log it is, then
   * one is found. Log time never falls, so the batches of the greatest `publishedAt` will do, all of them; without an index on times, of every
   * subject what begins at its head or behind. Reads in pages, each with its own time limit. `onPage` hears how many rows were looked at.
   */
  beyond(heads: Heads, onPage?: (rows: number) => void): Promise<BeyondHead | null>;
  /**
   * `cluster recover`: every subject that has a batch or void mark here, once each, with the id of its last one; the bytes are the visitor's. Answers the
   * greatest `publishedAt` of what is stored (epoch ms; of Cassandra, of what `visit` heard of), 0 if there is nothing. In pages; rejects with BrokerError STORE_UNAVAILABLE.
   */
  newest(visit: NewestVisitor): Promise<number>;
  /**
   * A cheap question to a store that nothing was written to for a while. Null: it would take a write, as far as a read tells. A text: it
   * answers, and would not take one (read-only, its tables gone). Rejects with BrokerError STORE_UNAVAILABLE if it does not answer.
   */
  probe(): Promise<string | null>;
  /**
   * Gives back the space of what expired long before `beforeMs` (epoch ms, the earlier of log time and clock), where that is done in pieces
   * that the store does not drop by itself; how many. A write to such a piece that comes later is taken and not stored: nobody would be given it.
   * Rejects if some could not be given back yet, and says why: they are tried again the next time.
   */
  dropExpired(beforeMs: number): Promise<number>;
  /**
   * Whether batches of such a life (`expiresMax`, in s) that have no ids yet may ask for some. False: they would need a piece of the store that is not
   * there, and that is not made for them now. What has ids is stored all the same, and so are marks: what cannot be stored is to be refused before.
   */
  hasRoomFor(expiresMax: number): boolean;
}

/** What a database is busy with, of this store's connections alone. */
export interface StoreConnections {
  readonly open: number;
  /** Requests that it works on. */
  readonly busy: number;
  /** Requests that wait for their turn. */
  readonly waiting: number;
}

export type NewestVisitor = (subject: Uint8Array, lastId: number) => void;

/** What a log has given: the greatest id of each subject, in their order; 0 if it does not know the subject. */
export type Heads = (subjects: readonly Uint8Array[]) => Promise<ArrayLike<number>>;

/** `lastId` is that of a batch or mark, `head` what the log has given of the subject, which is less. */
export interface BeyondHead {
  readonly subject: Uint8Array;
  readonly lastId: number;
  readonly head: number;
}

/** Memory of whoever reads, for the bytes of one answer. */
export interface ReadMemory {
  take(length: number): Buffer;
}

export type Stored = 'data' | 'void' | 'absent';

/** `bytes` is the caller's own copy of the subject's UTF-8, `hash` its subjectHash. */
export interface SubjectRef {
  readonly bytes: Uint8Array;
  readonly hash: number;
}

export interface SealedBatch {
  readonly subject: SubjectRef;
  /** Encoded and stamped (src/batch). */
  readonly bytes: Buffer;
  readonly base: number;
  readonly count: number;
  /** Log time of the allotment, epoch ms. */
  readonly publishedAt: number;
  /** Largest `expirationSeconds`; 0 if any message never expires. */
  readonly expiresMax: number;
  readonly kind: 'data' | 'void';
}

/** Ids [from, to) of the item; `to` is exclusive. Items come in the order of the read and do not overlap. */
export type StoredItem =
  | { readonly kind: 'data'; readonly from: number; readonly to: number; readonly base: number; readonly bytes: Buffer }
  | { readonly kind: 'void'; readonly from: number; readonly to: number }
  | { readonly kind: 'damaged'; readonly from: number; readonly to: number };

export interface ReadResult {
  readonly items: readonly StoredItem[];
  /** First id, in the direction of the read, that this answer says nothing about. Ids before it that no item covers are not stored. */
  readonly next: number;
}

export interface SubjectStats {
  readonly batches: number;
  /** Encoded bytes of them. */
  readonly bytes: number;
}

export interface StoreStats {
  readonly bytes: number;
  /** Files of the embedded log, partitions of PostgreSQL; 0 where there is nothing of the kind. */
  readonly segments: number;
  readonly batches: number;
  readonly subjects: number;
  /** Batches that a read found damaged since the start. */
  readonly damaged: number;
  /** Memory of what the store keeps for its subjects and batches, bytes; absent where it keeps nothing. */
  readonly indexBytes?: number;
}

/**
 * The request was sent and its answer did not come (a connection lost, a timeout, a standby not waited for): whether the group is durable is
 * not known. Appends are idempotent, so asking again is how to find out.
 */
export class StoreUncertain extends Error {
  override name = 'StoreUncertain';
}

/** Something that must not happen did, and what is stored is no longer known: the process ends. */
export class StoreFailure extends Error {
  override name = 'StoreFailure';
}

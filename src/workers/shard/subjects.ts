import { assert, defined } from '../../base/assert.ts';
import { shownSubject } from '../../base/subject-space.ts';
import { SubjectTable } from '../../base/subject-table.ts';
import type { SubjectRef } from '../../storage/store.ts';
import type { TailGroup } from '../../subscribe/tail-group.ts';
import type { OpenBatch } from './open-batch.ts';

/** Ids [base, base + count) that were allotted to this shard and have no verdict yet. */
export interface Unresolved {
  readonly base: number;
  readonly count: number;
  /** Log time, epoch ms. */
  readonly publishedAt: number;
  done: boolean;
  /** The one behind it in base order, or null. */
  next: Unresolved | null;
}

/** Where the log stands with a subject. */
export interface LogPosition {
  readonly first: number;
  readonly head: number;
  readonly settled: number;
  readonly everExpires: boolean;
}

/** A repeated sequence: the id that it will be answered with, its call, the sequence on its stream (0: unary), and since when it waits, ms of performance.now(). */
export interface Repeat {
  readonly id: number;
  readonly call: number;
  readonly sequence: number;
  readonly since: number;
}

/** What a shard knows of a subject that something is going on with. Nothing here is durable: it can be dropped when idle. */
export class ActiveSubject {
  readonly ref: SubjectRef;
  /** As its clients call it: without the space in front. */
  readonly shown: Uint8Array;
  /**
   * With peers: other nodes are given ids of it, and close them. What has its verdict is then what the log has settled, as far as this shard was
   * told (`learn`): its own allotments may lie between those of others.
   */
  readonly isShared: boolean;
  /** The Raft thread tells where the log stands with it (interests.ts). */
  isFollowed = false;
  /** Messages waiting for ids, or null. */
  waiting: OpenBatch | null = null;
  /** Who is subscribed to it: at most one group for each encoding. */
  readonly groups: TailGroup[] = [];
  /** True while the pump has this subject on its list. */
  pumping = false;
  /** Ids below it are trimmed; as far as this shard has heard, which is all there is once it has asked or delivered. */
  first = 1;
  /** `first` is the log's; otherwise only trims since this shard got the subject are in it. */
  knowsFirst = false;
  /** Some message of it has, or had, an expiry: what is missing may have expired. */
  everExpires = false;
  /** Batches, and single ids, that have not got their ids yet: also batches that take no more messages and are `waiting` no longer. */
  opening = 0;
  /** Calls that wait for a verdict of this subject. */
  parked = 0;
  /** Ids of the batch that was last looked up in a database: others near its ids are likely in one batch too. */
  lookedUpIds = 1;
  /** Subscriptions that begin at a time which the log has not reached. */
  awaiting = 0;
  /** Repeated sequences whose first copy has no verdict yet. */
  readonly repeats: Repeat[] = [];
  /** By publish stream: lowest sequence that was refused and may come again; null while there is none (stream-failures.ts). */
  failures: Map<number, number> | null = null;
  /** Bases of other nodes' revoked allotments whose marks this shard is writing; null while there is none. */
  marking: Set<number> | null = null;
  /** Calls that wait for a trim to be applied, and since when, ms of performance.now(). */
  readonly trims: { readonly call: number; readonly since: number }[] = [];
  /** A list in base order: an array would keep room for 17 for each of the many subjects that only ever have one. */
  #firstUnresolved: Unresolved | null = null;
  #lastUnresolved: Unresolved | null = null;
  #allottedTo = -1;
  /** Of a shared one: as the log said last. */
  #settledTo = -1;
  /** Of a shared one: allotments of this shard that have no verdict yet. They are in no list. */
  #pending = 0;

  constructor(ref: SubjectRef, isShared = false) {
    this.ref = ref;
    this.shown = shownSubject(ref.bytes);
    this.isShared = isShared;
  }

  /** Highest id such that it and all below have a verdict in the store; -1 while that is not known here. */
  get resolvedTo(): number {
    if (this.isShared) return this.#settledTo;
    const first = this.#firstUnresolved;
    return first === null ? this.#allottedTo : first.base - 1;
  }

  /** Last id that was allotted; -1 while that is not known here. */
  get head(): number {
    return this.#allottedTo;
  }

  groupOf(encoding: number): TailGroup | null {
    return this.groups.find((group) => group.encoding === encoding) ?? null;
  }

  /** Nothing of it is on its way: every call is answered and every id has its verdict. Subscriptions may go on. */
  get settled(): boolean {
    const calls = this.parked + this.opening + this.repeats.length + this.trims.length;
    return calls === 0 && this.waiting === null && this.#firstUnresolved === null && this.#pending === 0;
  }

  get idle(): boolean {
    const isRead = this.groups.length > 0 || this.awaiting > 0 || this.isFollowed;
    return this.settled && !isRead && this.failures === null && !this.pumping;
  }

  /** Somebody waits for what becomes of its ids, also of those of other nodes. */
  get isWaitedFor(): boolean {
    return this.groups.length + this.awaiting + this.parked + this.repeats.length > 0;
  }

  /** True if `id` was allotted here and has its verdict. Of a shared subject: if the log has settled it. */
  isResolved(id: number): boolean {
    if (this.isShared) return id <= this.#settledTo;
    if (id > this.#allottedTo) return false;
    for (let entry = this.#firstUnresolved; entry !== null; entry = entry.next) {
      if (!entry.done && id >= entry.base && id < entry.base + entry.count) return false;
    }
    return true;
  }

  /** First id that is allotted here, without a verdict yet, and was published at or after `ms`; the next id to come if there is none. */
  firstInFlightSince(ms: number): number {
    for (let entry = this.#firstUnresolved; entry !== null; entry = entry.next) {
      if (entry.publishedAt >= ms) return entry.base;
    }
    return this.#allottedTo + 1;
  }

  /** The state machine's view, read when this shard had nothing unresolved that it did not know of. */
  learn(state: LogPosition): void {
    if (this.isShared) this.#settledTo = Math.max(this.#settledTo, state.settled);
    this.#allottedTo = Math.max(this.#allottedTo, state.head);
    this.first = Math.max(this.first, state.first);
    this.knowsFirst = true;
    this.everExpires ||= state.everExpires;
  }

  /** Lowest of the ids [from, to), which the store does not have, that must be there; `to` if none must. */
  firstMissing(from: number, to: number): number {
    return this.everExpires ? to : Math.min(to, Math.max(from, this.first));
  }

  allotted(base: number, count: number, publishedAt: number): Unresolved {
    if (this.isShared) {
      this.#pending += 1;
      this.#allottedTo = Math.max(this.#allottedTo, base + count - 1);
      return { base, count, publishedAt, done: false, next: null };
    }
    assert(base > this.#allottedTo, () => `allotment at ${base} is not above ${this.#allottedTo}`);
    const allotment: Unresolved = { base, count, publishedAt, done: false, next: null };
    if (this.#lastUnresolved === null) this.#firstUnresolved = allotment;
    else this.#lastUnresolved.next = allotment;
    this.#lastUnresolved = allotment;
    this.#allottedTo = base + count - 1;
    return allotment;
  }

  resolved(allotment: Unresolved): void {
    if (this.isShared) {
      assert(!allotment.done, () => `the allotment at ${allotment.base} has its verdict already`);
      this.#pending -= 1;
    }
    allotment.done = true;
    for (let first = this.#firstUnresolved; first?.done === true; first = this.#firstUnresolved) {
      this.#firstUnresolved = first.next;
      // One that was promoted to the old generation must not keep those behind it alive.
      first.next = null;
    }
    if (this.#firstUnresolved === null) this.#lastUnresolved = null;
  }
}

/** Keeps at most this many idle subjects before it forgets them. */
const IDLE_MAX = 4_096;

/** The active subjects of a shard, found by their bytes so that the publish path makes no string. */
export class ActiveSubjects {
  readonly #areShared: boolean;
  #table = new SubjectTable();
  #rows: ActiveSubject[] = [];

  /** `areShared`: other nodes are given ids of these subjects too. */
  constructor(areShared = false) {
    this.#areShared = areShared;
  }

  get size(): number {
    return this.#rows.length;
  }

  find(bytes: Uint8Array, start: number, end: number, hash: number): ActiveSubject | null {
    const row = this.#table.find(bytes, start, end, hash);
    return row < 0 ? null : defined(this.#rows[row], 'a row of the active subjects is empty');
  }

  get(bytes: Uint8Array, start: number, end: number, hash: number): ActiveSubject {
    return this.find(bytes, start, end, hash) ?? this.#insert(bytes, start, end, hash);
  }

  all(): readonly ActiveSubject[] {
    return this.#rows;
  }

  #insert(bytes: Uint8Array, start: number, end: number, hash: number): ActiveSubject {
    const subject = new ActiveSubject({ bytes: Buffer.from(bytes.subarray(start, end)), hash }, this.#areShared);
    const row = this.#table.insert(subject.ref.bytes, 0, end - start, hash);
    assert(row === this.#rows.length, 'rows of the active subjects are not dense');
    this.#rows.push(subject);
    return subject;
  }

  /** Forgets idle subjects once there are many, so that invented subjects do not stay in memory. Call between rounds of work. */
  maybeForgetIdle(): void {
    if (this.#rows.length < IDLE_MAX) return;
    const kept = this.#rows.filter((subject) => !subject.idle);
    if (kept.length > this.#rows.length / 2) return;
    this.#keep(kept);
  }

  /** Forgets subjects that are another shard's from now on. */
  forget(subjects: ReadonlySet<ActiveSubject>): void {
    if (subjects.size > 0) this.#keep(this.#rows.filter((subject) => !subjects.has(subject)));
  }

  #keep(kept: readonly ActiveSubject[]): void {
    this.#table = new SubjectTable();
    this.#rows = [];
    for (const subject of kept) {
      this.#table.insert(subject.ref.bytes, 0, subject.ref.bytes.length, subject.ref.hash);
      this.#rows.push(subject);
    }
  }
}

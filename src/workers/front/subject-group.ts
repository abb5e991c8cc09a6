import { assert } from '../../base/assert.ts';
import { slotOfHash } from '../../base/subject.ts';
import { Start } from '../link.ts';
import type { Seats } from './seats.ts';

/** Where a subscription begins: a Start kind of workers/link.ts with its value (an id, or ms since 1970). */
export interface StartPosition {
  readonly kind: number;
  readonly value: number;
  /** With a time: ids below this one are not wanted, whenever they were published. */
  readonly from?: number;
}

/** Where a subscription goes on that stands at `next`. A start at a time stays one, for the time may be still to come. */
export function goingOn(start: StartPosition, next: number): StartPosition {
  return start.kind === Start.TIME ? { ...start, from: next } : { kind: Start.ID, value: next };
}

/** What the links to the shards need to know of a subscription. */
export interface Seat {
  readonly id: number;
  readonly group: {
    readonly id: number;
    readonly shard: number;
    readonly hash: number;
    readonly subject: Buffer;
    /** Encoding of workers/link.ts. */
    readonly encoding: number;
  };
}

/** What subscriptions need of the links to the shards. None of it may be lost. */
export interface SubscriptionPort {
  subscribeAt(seat: Seat, start: StartPosition, creditBytes: number): void;
  credit(seat: Seat, kind: number, next: number, bytes: number): void;
  unsubscribe(seat: Seat): void;
}

/** The subscriptions of one subject and one encoding on this node; runs of its shard are shared by all. */
export class SubjectGroup<Member> {
  readonly id: number;
  /** The shard that serves it; HELD of slots/slot-table.ts while its slot changes its shard. */
  shard: number;
  readonly hash: number;
  readonly subject: Buffer;
  readonly encoding: number;
  readonly members = new Set<Member>();
  /** Last id with a verdict, as the shard said when somebody last wanted a look at the subscriptions; -1: nobody has, or it does not know. */
  settled = -1;

  constructor(id: number, shard: number, hash: number, subject: Buffer, encoding: number) {
    this.id = id;
    this.shard = shard;
    this.hash = hash;
    this.subject = subject;
    this.encoding = encoding;
  }
}

/** Told of subjects that get their first group of an encoding, and lose it. */
export interface GroupObserver {
  began(subject: Uint8Array): void;
  ended(subject: Uint8Array): void;
}

/** The groups of one encoding. */
export class GroupTable<Member> {
  readonly #encoding: number;
  readonly #seats: Seats;
  readonly #observer: GroupObserver | null;
  readonly #bySubject = new Map<string, SubjectGroup<Member>>();
  readonly #byId = new Map<number, SubjectGroup<Member>>();

  constructor(encoding: number, seats: Seats, observer: GroupObserver | null = null) {
    this.#encoding = encoding;
    this.#seats = seats;
    this.#observer = observer;
  }

  /** The group of a subject, made if there is none; somebody has to join it. */
  get(subject: Buffer, hash: number, shard: number): SubjectGroup<Member> {
    const key = subject.toString('latin1');
    let group = this.#bySubject.get(key);
    if (group === undefined) {
      group = new SubjectGroup(this.#seats.groupNumber(), shard, hash, Buffer.from(subject), this.#encoding);
      this.#bySubject.set(key, group);
      this.#byId.set(group.id, group);
      this.#observer?.began(group.subject);
    }
    return group;
  }

  /** The groups of these slots have another shard. */
  setShard(slots: ReadonlySet<number>, shardOf: (slot: number) => number): void {
    for (const group of this.#byId.values()) {
      const slot = slotOfHash(group.hash);
      if (slots.has(slot)) group.shard = shardOf(slot);
    }
  }

  all(): Iterable<SubjectGroup<Member>> {
    return this.#byId.values();
  }

  ofSubject(subject: Buffer): SubjectGroup<Member> | undefined {
    return this.#bySubject.get(subject.toString('latin1'));
  }

  ofId(id: number): SubjectGroup<Member> | undefined {
    return this.#byId.get(id);
  }

  leave(group: SubjectGroup<Member>, member: Member): void {
    assert(group.members.delete(member), 'a subscription is not in its group');
    if (group.members.size > 0) return;
    this.#bySubject.delete(group.subject.toString('latin1'));
    this.#byId.delete(group.id);
    this.#observer?.ended(group.subject);
  }
}

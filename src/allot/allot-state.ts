import { assert } from '../base/assert.ts';
import { isPlanted } from '../base/planted.ts';
import { SLOT_COUNT } from '../base/subject.ts';
import { AllotmentPool } from './allotment-pool.ts';
import { NodeTable } from './nodes.ts';
import { type Producer, ProducerTable } from './producers.ts';
import { SlotSubjects } from './slot-subjects.ts';
import { type AllotmentOwner, AllotVerdict } from './verdicts.ts';

/** Caps that live in the log: equal on every node, or replicas part ways. */
export interface AllotLimits {
  /** Subjects, for life (subjects.max). */
  readonly subjectsMax: number;
  /** Producers known at a time (producers.max). */
  readonly producersMax: number;
  /** Allotments of one node that are open, or revoked and not void yet. */
  readonly openPerNodeMax: number;
}

export interface AllotCounts {
  readonly subjects: number;
  readonly producers: number;
  readonly nodes: number;
  readonly open: number;
  readonly revoked: number;
  /** Memory of the columns, in bytes (an estimate without the few objects). */
  readonly bytes: number;
}

/** Is told before a subject changes, so that a snapshot in progress can keep what it has not written. */
export interface SubjectObserver {
  beforeSubjectChange(slot: number, row: number): void;
}

/** The sequences whose ids lie in an open allotment, so that a revoke finds them. */
export interface PartOwners {
  readonly producers: Producer[];
  readonly sequences: number[];
  readonly firstIds: number[];
}

/** A subject as one number: row * SLOT_COUNT + slot. Equal on every replica, and the same for ever. */
export function subjectNumber(slot: number, row: number): number {
  return row * SLOT_COUNT + slot;
}

export function slotOfSubject(subject: number): number {
  return subject % SLOT_COUNT;
}

export function rowOfSubject(subject: number): number {
  return Math.floor(subject / SLOT_COUNT);
}

/** Everything that is replicated, with the moves that keep it consistent. What may move when is AllotMachine's business. */
export class AllotState {
  /** Set by the log; until then what the node was started with. */
  limits: AllotLimits;
  readonly slots: (SlotSubjects | null)[] = new Array<SlotSubjects | null>(SLOT_COUNT).fill(null);
  readonly pool = new AllotmentPool();
  readonly nodes = new NodeTable();
  readonly producers = new ProducerTable();
  /** By slot of the pool: only open allotments with producers have an entry. */
  readonly partOwners = new Map<number, PartOwners>();
  observer: SubjectObserver | null = null;
  /** Raft index and log time (ms) of the last entry applied. */
  index = 0;
  time = 0;
  /** Chain over every entry and every answer; see AllotMachine.hash. */
  chain = 0;
  subjects = 0;
  open = 0;
  revoked = 0;
  /** Where subjects that do not exist yet start: ids up to here are void (`cluster recover`). */
  floor = 0;

  constructor(limits: AllotLimits) {
    this.limits = limits;
  }

  /** Adds to the chain. */
  mix(value: number): void {
    const low = value | 0;
    const high = (value / 0x1_0000_0000) | 0;
    const chain = Math.imul(this.chain ^ low, 0x9e3779b1);
    this.chain = Math.imul((chain ^ (chain >>> 15)) + high, 0x85ebca6b) | 0;
  }

  slotOf(subject: number): SlotSubjects {
    const slot = this.slots[slotOfSubject(subject)] ?? null;
    assert(slot !== null, 'no such subject');
    return slot;
  }

  beforeSubjectChange(slot: number, row: number): void {
    if (this.observer !== null) this.observer.beforeSubjectChange(slot, row);
  }

  insertSubject(bytes: Uint8Array, start: number, end: number, hash: number): number {
    const number = hash & (SLOT_COUNT - 1);
    let slot = this.slots[number] ?? null;
    if (slot === null) {
      slot = new SlotSubjects();
      this.slots[number] = slot;
    }
    const row = slot.insert(bytes, start, end, hash, this.floor);
    if (this.floor > 0) {
      slot.voidRanges ??= new Map();
      slot.voidRanges.set(row, { from: 1, to: this.floor });
      slot.addFlags(row, 2);
      // Readers from the beginning must not take the ids below for lost messages: the store has no marks of them.
      slot.setFirst(row, this.floor + 1);
    }
    this.subjects += 1;
    return row;
  }

  /** Adds an allotment behind the last one of a subject. */
  append(slot: SlotSubjects, number: number, row: number, end: number, state: number): number {
    const base = slot.head(row) + 1;
    assert(end >= base, 'an allotment has no ids');
    const taken = this.pool.take(subjectNumber(number, row), base, end, state);
    const tail = slot.tail(row);
    if (tail === 0) {
      this.pool.setNext(taken, taken);
    } else {
      this.pool.setNext(taken, this.pool.next(tail));
      this.pool.setNext(tail, taken);
    }
    slot.setTail(row, taken);
    slot.setHead(row, end);
    return taken;
  }

  /** The pool's slot that holds an id of a subject, or 0 if the id is settled or above the head. */
  holderOf(slot: SlotSubjects, row: number, id: number): number {
    const tail = slot.tail(row);
    if (tail === 0 || id <= slot.settled(row) || id > slot.head(row)) return 0;
    let holder = this.pool.next(tail);
    while (this.pool.end(holder) < id) holder = this.pool.next(holder);
    return holder;
  }

  verdictOf(slot: SlotSubjects, row: number, id: number): number {
    if (id < 1 || id > slot.head(row)) return AllotVerdict.UNKNOWN;
    if (id > slot.settled(row)) return this.pool.state(this.holderOf(slot, row, id));
    const range = slot.voidRanges?.get(row);
    return range !== undefined && id >= range.from && id <= range.to ? AllotVerdict.VOID : AllotVerdict.SETTLED;
  }

  /** Who asked for an unresolved allotment. */
  describeOwner(owner: AllotmentOwner, holder: number): void {
    const { pool } = this;
    owner.node = pool.node(holder);
    owner.incarnationLow = pool.incarnationLow(holder);
    owner.incarnationHigh = pool.incarnationHigh(holder);
    owner.shard = pool.shard(holder);
    owner.counter = pool.counter(holder);
  }

  /** OPEN -> STORED. */
  becomeStored(slot: SlotSubjects, row: number, holder: number): void {
    assert(this.pool.state(holder) === AllotVerdict.OPEN, 'only an open allotment becomes stored');
    this.nodes.unlink(this.pool, holder);
    this.partOwners.delete(holder);
    this.open -= 1;
    this.pool.setState(holder, AllotVerdict.STORED);
    this.#resolve(slot, row, holder);
  }

  /** OPEN -> REVOKED: the sequences that lie in it are forgotten. */
  becomeRevoked(holder: number): void {
    assert(this.pool.state(holder) === AllotVerdict.OPEN, 'only an open allotment becomes revoked');
    this.pool.setState(holder, AllotVerdict.REVOKED);
    this.open -= 1;
    this.revoked += 1;
    const owners = this.partOwners.get(holder);
    if (owners === undefined || isPlanted('S7-sequence-outlives-revoke')) return;
    this.partOwners.delete(holder);
    const subject = this.pool.subject(holder);
    for (let i = 0; i < owners.producers.length; i++) {
      const producer = owners.producers[i] as Producer;
      if (producer.gone) continue;
      this.producers.beforeChange(producer);
      producer.window.forget(owners.sequences[i] as number, owners.firstIds[i] as number, subject);
    }
  }

  /** REVOKED -> OPEN: never but for a planted bug. */
  tryUnrevoke(holder: number): boolean {
    if (!isPlanted('S7-close-revoked') || this.pool.state(holder) !== AllotVerdict.REVOKED) return false;
    this.pool.setState(holder, AllotVerdict.OPEN);
    this.revoked -= 1;
    this.open += 1;
    return true;
  }

  /** REVOKED -> VOID. */
  becomeVoid(slot: SlotSubjects, row: number, holder: number): void {
    assert(this.pool.state(holder) === AllotVerdict.REVOKED, 'only a revoked allotment becomes void');
    this.nodes.unlink(this.pool, holder);
    this.revoked -= 1;
    this.pool.setState(holder, AllotVerdict.VOID);
    this.#resolve(slot, row, holder);
  }

  /** Notes that a sequence has its ids in an open allotment. */
  addPartOwner(holder: number, producer: Producer, sequence: number, firstId: number): void {
    let owners = this.partOwners.get(holder);
    if (owners === undefined) {
      owners = { producers: [], sequences: [], firstIds: [] };
      this.partOwners.set(holder, owners);
    }
    owners.producers.push(producer);
    owners.sequences.push(sequence);
    owners.firstIds.push(firstId);
  }

  byteLength(): number {
    let bytes = this.pool.byteLength() + this.producers.byteLength();
    for (const slot of this.slots) bytes += slot === null ? 0 : slot.byteLength();
    return bytes;
  }

  /** Moves `settled` up if the first of the ring is resolved, else merges the slot with equal neighbours. */
  #resolve(slot: SlotSubjects, row: number, holder: number): void {
    const pool = this.pool;
    let tail = slot.tail(row);
    if (pool.next(tail) !== holder) {
      this.#merge(slot, row, holder);
      return;
    }
    while (tail !== 0) {
      const first = pool.next(tail);
      if (pool.isUnresolved(first)) break;
      slot.setSettled(row, pool.end(first));
      if (first === tail) tail = 0;
      else pool.setNext(tail, pool.next(first));
      pool.give(first);
    }
    slot.setTail(row, tail);
    assert(tail !== 0 || slot.settled(row) === slot.head(row), 'ids between settled and head have no allotment');
  }

  #merge(slot: SlotSubjects, row: number, holder: number): void {
    const pool = this.pool;
    const tail = slot.tail(row);
    let kept = holder;
    let previous = pool.next(tail);
    while (pool.next(previous) !== holder) previous = pool.next(previous);
    if (pool.state(previous) === pool.state(holder)) {
      this.#absorbNext(slot, row, previous);
      kept = previous;
    }
    if (kept !== slot.tail(row) && pool.state(pool.next(kept)) === pool.state(kept)) this.#absorbNext(slot, row, kept);
  }

  #absorbNext(slot: SlotSubjects, row: number, kept: number): void {
    const pool = this.pool;
    const absorbed = pool.next(kept);
    assert(pool.base(absorbed) === pool.end(kept) + 1, 'neighbours in a ring are not neighbours in ids');
    pool.setEnd(kept, pool.end(absorbed));
    pool.setNext(kept, pool.next(absorbed));
    if (slot.tail(row) === absorbed) slot.setTail(row, kept);
    pool.give(absorbed);
  }
}

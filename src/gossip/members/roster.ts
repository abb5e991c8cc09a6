import { assert } from '../../base/assert.ts';
import type { Member, MemberState } from '../types.ts';
import type { Suspicion } from './suspicion.ts';

/** What is known of one member. `member` is replaced when something changes, never written to. */
export interface MemberRecord {
  member: Member;
  /** When its state changed, ms. */
  changedAt: number;
  /** As long as it is suspected. */
  suspicion: Suspicion | null;
}

/** An integer of 0 to below - 1. */
export type Random = (below: number) => number;

export function isGone(state: MemberState): boolean {
  return state === 'dead' || state === 'left';
}

/** All members known, in the order in which they are probed. */
export class Roster {
  readonly #random: Random;
  readonly #byName = new Map<string, MemberRecord>();
  readonly #suspected = new Set<MemberRecord>();
  #list: MemberRecord[] = [];
  #present = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  get size(): number {
    return this.#list.length;
  }

  /** Neither dead nor left. */
  get present(): number {
    return this.#present;
  }

  get list(): readonly MemberRecord[] {
    return this.#list;
  }

  get suspected(): ReadonlySet<MemberRecord> {
    return this.#suspected;
  }

  get(node: string): MemberRecord | undefined {
    return this.#byName.get(node);
  }

  /** At a random place, so that no two members probe in the same order (state.go aliveNode). */
  add(member: Member, now: number): MemberRecord {
    assert(!this.#byName.has(member.node), 'a member is added once');
    const record: MemberRecord = { member, changedAt: now, suspicion: null };
    this.#byName.set(member.node, record);
    if (!isGone(member.state)) this.#present += 1;
    this.#list.push(record);
    this.#swap(this.#random(this.#list.length), this.#list.length - 1);
    return record;
  }

  set(record: MemberRecord, member: Member, suspicion: Suspicion | null, now: number): void {
    assert((suspicion !== null) === (member.state === 'suspect'), 'who is suspected has a time for it');
    this.#present += Number(!isGone(member.state)) - Number(!isGone(record.member.state));
    if (member.state !== record.member.state) record.changedAt = now;
    record.member = member;
    record.suspicion = suspicion;
    if (suspicion === null) this.#suspected.delete(record);
    else this.#suspected.add(record);
  }

  /** state.go resetNodes: forgets who is gone for longer than `ms`, shuffles the rest; returns how many were forgotten. */
  renew(self: string, ms: number, now: number): number {
    const isKept = ({ member, changedAt }: MemberRecord): boolean =>
      member.node === self || !isGone(member.state) || now - changedAt <= ms;
    const kept = this.#list.filter(isKept);
    for (const record of this.#list) {
      if (!isKept(record)) this.#byName.delete(record.member.node);
    }
    const forgotten = this.#list.length - kept.length;
    this.#list = kept;
    for (let i = kept.length - 1; i > 0; i--) this.#swap(i, this.#random(i + 1));
    return forgotten;
  }

  /**
   * util.go kRandomNodes: up to `count` different ones that are wanted. Few members are shuffled, so that none is missed; of many, random ones are
   * looked at, at most three times as many as there are.
   */
  pick(count: number, isWanted: (record: MemberRecord) => boolean): MemberRecord[] {
    const size = this.#list.length;
    if (size < count * 3) return this.#shuffled().filter(isWanted).slice(0, count);
    const picked = new Set<MemberRecord>();
    for (let i = 0; i < 3 * size && picked.size < count; i++) {
      const record = this.#list[this.#random(size)] as MemberRecord;
      if (isWanted(record)) picked.add(record);
    }
    return [...picked];
  }

  #shuffled(): MemberRecord[] {
    const list = [...this.#list];
    for (let i = list.length - 1; i > 0; i--) {
      const j = this.#random(i + 1);
      [list[i], list[j]] = [list[j] as MemberRecord, list[i] as MemberRecord];
    }
    return list;
  }

  #swap(i: number, j: number): void {
    const list = this.#list;
    [list[i], list[j]] = [list[j] as MemberRecord, list[i] as MemberRecord];
  }
}
